"""A Hugging Face chat template: conversations to text in pieces, in which data can never become a control token.

The template is the authority and is never second-guessed. It is foreign code, run in the sandbox of transformers: what it
refuses, leaves out or does not know is told in one ValueError that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..messages import Message, ToolCall, ToolSchema, legible
from .pieces import Piece, Pieces
from .toolcalls import HERMES, NEMOTRON, CallStyle
from .turns import Effort, Kind

ASKED = Message("user", "asked")
_TOOL = ToolSchema("probed", "A tool.", {"type": "object", "properties": {"key": {"type": "string"}}})


class ChatTemplate:
    """Renders one tokenizer's template. `style` is how it writes calls, None where that cannot be read; `thinks` whether it
    knows <think>."""

    def __init__(self, tokenizer: Any, pieces: Pieces, variables: Mapping[str, Any]) -> None:
        source = getattr(tokenizer, "chat_template", None)
        if not source:
            raise ValueError(
                "this tokenizer has no chat template: it belongs to a base model. Put a chat_template.jinja into its folder"
            )
        self.tokenizer, self.pieces, self.variables = tokenizer, pieces, variables
        self.source = source if isinstance(source, str) else "\n".join(map(str, source.values()))
        self.thinks = Kind.THINK_END.value in self.source
        self.style: CallStyle | None = None
        if Kind.CALL.value in self.source:
            self.style = NEMOTRON if "<function=" in self.source else HERMES
        self._left_out = self._find_left_out()

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[Piece]:
        """A conversation with the generation prompt, when it is sure that the template says all of it."""
        for role in {message.role for message in messages} & self._left_out:
            raise ValueError(
                f"this template leaves out {role} messages: put their text into the user's, or take another template"
            )
        if tools and self.style is None:
            raise ValueError(
                "this template has no tool calls that can be read (<tool_call> with JSON, or with <function=...>): choose an "
                "environment without tools, or another template"
            )
        pieces = self.render(messages, tools, reasoning=reasoning, effort=effort)
        text = self.pieces.flat(pieces)
        if unsaid := [tool.name for tool in tools if tool.name not in text]:
            raise ValueError(
                f"this template does not tell the policy its tools ({unsaid[0]!r} is nowhere in the prompt)"
            )
        if self.thinks and not reasoning and text.rstrip().endswith(Kind.THINK.value):
            raise ValueError("this template always opens the reasoning: it cannot be switched off")
        return pieces

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        prompt: bool = True,
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[Piece]:
        """The template's text in pieces. Data that could make a control token is guarded by marks. A template that looks into
        its messages may see those marks: then its text of the bare data counts where it has the same control tokens."""
        options = self._options(prompt, reasoning, effort)
        chat = [self._entry(message, reasoning) for message in messages]
        declared = [_declared(tool) for tool in tools] or None
        bare = self._apply(chat, declared, options)
        mark = self.pieces.mark_for([*_texts([chat, declared]), self.source])
        guarded = [_guarded(entry, mark, self.pieces) | {"role": entry["role"]} for entry in chat]
        guarded_tools = _guarded(declared, mark, self.pieces)
        pieces = self.pieces.split(bare)
        if (guarded, guarded_tools) == (chat, declared):
            return pieces
        marked = self._apply(guarded, guarded_tools, options)
        safe = self.pieces.split(marked, mark)
        if marked.replace(mark, "") == bare or _controls(pieces) != _controls(safe):
            return safe
        return safe if any(map(self.pieces.spells_control, _texts([chat, declared]))) else pieces

    def _apply(self, chat: list[dict[str, Any]], tools: Any, options: dict[str, Any]) -> str:
        try:
            text = self.tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, **options)
        except Exception as error:  # foreign code may raise anything
            roles = ", ".join(entry["role"] for entry in chat)
            raise ValueError(
                f"the chat template refuses this conversation ({roles}): {error}. Change the order or the roles of its messages "
                "(a system prompt can be put into the first user message), or take another template"
            ) from error
        assert isinstance(text, str)
        return text

    def _options(self, prompt: bool, reasoning: bool, effort: Effort) -> dict[str, Any]:
        options: dict[str, Any] = {"add_generation_prompt": prompt, **self.variables}
        if "enable_thinking" in self.source:
            options["enable_thinking"] = reasoning
        if effort != "full":
            switch = "low_effort" if effort == "low" else "medium_effort"
            if switch in self.source:
                options[switch] = True
            elif "reasoning_effort" in self.source:
                options["reasoning_effort"] = "low" if effort == "low" else "medium"
            else:
                raise ValueError(f"this template knows no effort {effort!r} and would reason in full; leave effort out")
        return options

    def _entry(self, message: Message, reasoning: bool) -> dict[str, Any]:
        """A message as templates know it. Where reasoning is off there is none to tell of."""
        entry: dict[str, Any] = {"role": message.role, "content": legible(message.text)}
        if message.role == "assistant":
            if message.reasoning is not None and reasoning and self.thinks:
                entry["reasoning_content"] = legible(message.reasoning)
            if message.tool_calls:
                entry["tool_calls"] = [
                    {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
                    for call in message.tool_calls
                ]
        return entry

    def _find_left_out(self) -> set[str]:
        """The roles whose messages are not in the text at all, found by trying."""
        call = Message("assistant", tool_calls=(ToolCall(_TOOL.name, {"key": "value"}),) if self.style else ())
        tools = [_TOOL] if self.style else []
        found: set[str] = set()
        for chat in ([Message("system", "probing"), ASKED], [ASKED, call, Message("tool", "probing")]):
            try:
                text = self.pieces.flat(self.render(chat, tools))
            except ValueError:  # it says so when it is used
                continue
            if "probing" not in text:
                found |= {message.role for message in chat if message.text == "probing"}
        return found


def _controls(pieces: Sequence[Piece]) -> list[int]:
    return [piece for piece in pieces if isinstance(piece, int)]


def _declared(tool: ToolSchema) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _guarded(value: Any, mark: str, pieces: Pieces) -> Any:
    """The same value with its texts guarded. Keys that are plain words stay: templates look them up."""
    if isinstance(value, str):
        return pieces.guard(value, mark)
    if isinstance(value, Mapping):
        plain = lambda key: key.isidentifier() and not pieces.spells_control(key)  # noqa: E731
        keys = {key: key if plain(key) else pieces.guard(key, mark) for key in value}
        return {keys[key]: _guarded(item, mark, pieces) for key, item in value.items()}
    return [_guarded(item, mark, pieces) for item in value] if isinstance(value, (list, tuple)) else value
