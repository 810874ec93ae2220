"""The chat format of nemotron.py as the template that a saved policy carries, so that transformers' `apply_chat_template` and
servers that use it write the prompts that the policy was trained on.

Its variables: `enable_thinking` (default true) and `effort` ("full", or what the last user message is told).
"""

from __future__ import annotations

import json

CHAT_TEMPLATE = """
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- set system = messages[0].content if has_system else '' -%}
{%- set rest = messages[1:] if has_system else messages -%}
{%- set last = namespace(user=-1) -%}
{%- for message in rest -%}
{%- if message.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- '<|im_start|>system\\n' + system -}}
{%- if tools -%}
{{- '\\n\\n' if system else '' -}}
{{- '<tools>\\n' -}}
{%- for tool in tools -%}
{%- set tool = tool.function if tool.function is defined else tool -%}
{{- '<function>\\n<name>' + tool.name + '</name>\\n<description>' + tool.description + '</description>\\n<parameters>\\n' -}}
{%- for key, schema in tool.parameters.properties.items() -%}
{{- '<parameter>\\n<name>' + key + '</name>\\n' -}}
{%- for field, value in schema.items() -%}
{{- '<' + field + '>' + (value if value is string else value | tojson(ensure_ascii=true)) + '</' + field + '>\\n' -}}
{%- endfor -%}
{{- '</parameter>\\n' -}}
{%- endfor -%}
{{- '<required>' + (tool.parameters.required or []) | tojson(ensure_ascii=true) + '</required>\\n</parameters>\\n</function>\\n' -}}
{%- endfor -%}
{{- '</tools>' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- for message in rest -%}
{%- if message.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' -}}
{%- set reasoning = message.reasoning_content if message.reasoning_content is string else none -%}
{%- set answer = message.content or '' -%}
{{- '<think></think>' if reasoning is none else '<think>\\n' + (reasoning + '\\n' if reasoning else '') + '</think>\\n' -}}
{{- answer -}}
{%- if message.tool_calls -%}
{{- '\\n' if answer or reasoning is none else '' -}}
{%- for call in message.tool_calls -%}
{%- set call = call.function if call.function is defined else call -%}
{{- '<tool_call>\\n<function=' + call.name + '>\\n' -}}
{%- for key, value in call.arguments.items() -%}
{{- '<parameter=' + key + '>\\n' + (value if value is string else value | tojson) + '\\n</parameter>\\n' -}}
{%- endfor -%}
{{- '</function>\\n</tool_call>\\n' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- elif message.role == 'tool' -%}
{{- '<|im_start|>user\\n' if loop.first or loop.previtem.role != 'tool' else '' -}}
{{- '<tool_response>\\n' + message.content + '\\n</tool_response>\\n' -}}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' else '' -}}
{%- else -%}
{%- set hinted = effort is defined and effort != 'full' and loop.index0 == last.user -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content -}}
{{- '\\n\\n{reasoning effort: ' + effort + '}' if hinted else '' -}}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' + ('<think>\\n' if enable_thinking is not defined or enable_thinking else '<think></think>') -}}
{%- endif -%}
""".lstrip()


def tokenizer_config() -> bytes:
    """What transformers must know to load our tokenizer.json."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    return json.dumps(config, indent=2).encode()
