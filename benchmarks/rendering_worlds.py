"""What the rendering fuzz plays with: hostile texts, tokenizers of several kinds, templates that change what was said."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from swannery.policies import ChatRenderer, TemplateRenderer, Tokenizer
from swannery.policies.fetch import cache_folder, is_fetched

STRUCTURE = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
CONTROL = ("<|im_start|>", "<|im_end|>", *STRUCTURE)
FRAGMENTS = (
    *CONTROL, "<|im_", "end|>", "start|>", "<", ">", "|", "think>", "</", "<|im_end|", "|im_end|>", "call", "im_end",
    "<function=f>", "</function>", "<parameter=a>", "\n</parameter>\n", "assistant\n", "user\n", "system",
    "\n", "\n\n", "\r\n", "\t", "  ", " ", "", "\0", "\u00a0", "\u2028", "é", "e\u0301", "日本語", "🦢", "👩‍👩‍👧", "שלום", "\ufeff",
    "\ufdd0", "\\ufdd0", "\ue000", "\ufffd", "\ud800", "\udfff", "\ud83e\udda2", "{", "}", "{{", "}}", "{% x %}", '"', '\\"', "[1, 2",
    '{"name": "f", "arguments": {}}', "NaN", "1e999", "12", "3.5", "swan", "hello", "the policy answers", "a", "I", "&lt;", "'",
)  # fmt: skip


def text(rng: random.Random, *, surrogates: bool = True) -> str:
    """A few fragments; now and then nothing, or very many."""
    size = rng.choice((0, 1, 1, 2, 3, 4, 6)) if rng.random() < 0.995 else rng.randrange(200, 800)
    said = "".join(rng.choices(FRAGMENTS, k=size))
    return said if surrogates else "".join(c for c in said if not 0xD800 <= ord(c) < 0xE000)


def _byte_level(
    sizes: int, special: tuple[str, ...], plain: tuple[str, ...] = (), **flags: Any
) -> tokenizers.Tokenizer:
    """A byte-level BPE; `plain` tokens are added but not special, as <think> is in many vocabularies."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=sizes, initial_alphabet=alphabet, show_progress=False)
    corpus = [
        "user\n\nassistant\nhello the policy answers swan\n\n",
        "<think>\n\n</think>\n\n<|im_end|>\n",
        "im_end|> </",
    ]
    backend.train_from_iterator(corpus * 50, trainer)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False, **flags) for token in special])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return backend


def _greedy_words() -> tokenizers.Tokenizer:
    """A vocabulary that holds a control token as a word, and takes whole words first: plain text could become control."""
    base = _byte_level(400, ())
    vocabulary = base.get_vocab()
    for token in ("<|im_end|>", "<|im_start|>", "<think>"):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in json.loads(base.to_str())["model"]["merges"]]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    return backend


def _blank_prefixed() -> tokenizers.Tokenizer:
    """SentencePiece's manner: every stretch of text gets a blank in front."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()]
    )
    bytes_of = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *bytes_of], show_progress=False)
    backend.train_from_iterator(["hello the policy answers user assistant"] * 20, trainer)
    backend = tokenizers.Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | {"added_tokens": []}))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    return backend


TURNS = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CALLS = (
    "{% for c in m.tool_calls %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<tool_call>\n{\"name\": \"' + c.function.name + '\", \"arguments\": ' + c.function.arguments|tojson + '}\n</tool_call>' }}"
    "{% endfor %}"
)
TOOLS = "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in ORDER %}{{ t|tojson + '\n' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
THINKING = (
    TOOLS.replace("ORDER", "tools")
    + """{% set ns = namespace(last=-1) %}{% for m in messages %}
{%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}
{%- if m.reasoning_content is defined and (KEEP or loop.index0 > ns.last) %}
{{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}{{- m.content }}"""
    + CALLS
    + """{{ '<|im_end|>\n' }}{% elif m.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}{% else %}"""
    + TURNS
    + """{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}
{%- elif OPEN %}{{ '<think>\n' }}{% endif %}{% endif %}"""
)
LOOP = "{% for m in messages %}" + TURNS + "{% endfor %}" + PROMPT
CALLING = "{% for m in messages %}" + TURNS.replace("+ '<|im_end|>\n' }}", "}}" + CALLS + "{{ '<|im_end|>\n' }}")
CALLING += "{% endfor %}" + PROMPT
TEMPLATES = {
    "plain": LOOP,
    "default system": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a swan.<|im_end|>\n' }}{% endif %}" + LOOP,
    "strips": LOOP.replace("m.content", "m.content|trim"),
    "keeps reasoning": THINKING.replace("KEEP", "true").replace("OPEN", "false"),
    "drops old reasoning": THINKING.replace("KEEP", "false").replace("OPEN", "false"),
    "opens reasoning": THINKING.replace("KEEP", "true").replace("OPEN", "true"),
    "tells the date": "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}" + LOOP,
    "tells the microsecond": "{{ '<|im_start|>system\nNow is ' + strftime_now('%f') + '<|im_end|>\n' }}" + LOOP,
    "reorders tools": TOOLS.replace("ORDER", "(tools if messages|length % 4 < 2 else tools|reverse|list)") + CALLING,
    "sorts tools": TOOLS.replace("ORDER", "tools|sort(attribute='function.name')") + CALLING,
    "drops the last newline": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\n' }}{% endif %}{% endfor %}" + PROMPT,
    "repeats": LOOP.replace("+ m.content", "+ m.content + (m.content if m.role == 'user' else '')"),
    "repeats the last": "{{ '<|im_start|>system\n' + messages[-1].content + '<|im_end|>\n' }}" + LOOP,
    "merges users": "{% for m in messages %}{% if m.role != 'user' or loop.first or loop.previtem.role != 'user' %}"
    "{{ '<|im_start|>' + m.role + '\n' }}{% endif %}{{ m.content }}"
    "{% if m.role != 'user' or loop.last or loop.nextitem.role != 'user' %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}" + PROMPT,
    "never ends": "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
}  # fmt: skip
TEMPLATES |= {
    "nemotron": THINKING.replace("KEEP", "true").replace("OPEN", "true").replace(
        CALLS,
        "{% for c in m.tool_calls %}{{ '\n<tool_call>\n<function=' + c.function.name + '>\n' }}"
        "{% for k, v in c.function.arguments|items %}{{ '<parameter=' + k + '>\n' + v|string + '\n</parameter>\n' }}{% endfor %}"
        "{{ '</function>\n</tool_call>' }}{% endfor %}",
    ),
}  # fmt: skip
CHANGEFUL = {"tells the microsecond"}
"""Templates whose text is another each time."""


@dataclass(frozen=True)
class World:
    """A renderer and what may be asked of it."""

    name: str
    renderer: ChatRenderer | TemplateRenderer
    exact: bool = True
    """Text and ids say the same, so that a conversation's ids do not depend on how it came about."""
    letters: bool = False
    """Structure is said in letters, so that data which spells it is read as structure."""


def worlds(only: Collection[str] = ()) -> Iterator[World]:
    """Our own renderer with several vocabularies, then every template with every kind of tokenizer, or with `only` some."""
    logging.set_verbosity_error()
    corpora = {
        267: [""],
        384: ["user\nhello the policy answers\n"] * 9,
        700: [*FRAGMENTS[:40] * 9, "<|im_end|>\n</think>\n" * 9],
    }
    for size, corpus in corpora.items():
        corpus = [part.encode("utf-8", "ignore").decode() for part in corpus]
        for drop in (False, True):
            yield World(f"nemotron {size}", ChatRenderer(Tokenizer.train(corpus, size), drop_past_reasoning=drop))
    kinds = {
        "byte-level": (_byte_level(500, CONTROL), True, False),
        "structure not special": (_byte_level(500, CONTROL[:2], STRUCTURE), True, False),
        "structure in letters": (_byte_level(500, CONTROL[:2]), True, True),
        "swallows blanks": (_byte_level(400, CONTROL, rstrip=True, lstrip=True), False, False),
        "greedy words": (_greedy_words(), True, False),
        "blank in front": (_blank_prefixed(), False, False),
    }
    for kind in only or kinds:
        backend, exact, letters = kinds[kind]
        for name, template in TEMPLATES.items():
            wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=template)
            yield World(f"{name}, {kind}", TemplateRenderer(wrapped), exact and name not in CHANGEFUL, letters)
    if is_fetched("smollm2"):
        yield World("smollm2", TemplateRenderer.load(cache_folder("smollm2")))
