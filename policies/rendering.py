"""Chat rendering: messages to ids and ids to turns, in the structure of the Nemotron 3 chat format.

    <|im_start|>system\\n[prompt][tools]<|im_end|>\\n
    <|im_start|>user\\n...<|im_end|>\\n
    <|im_start|>assistant\\n<think>\\n[reasoning]\\n</think>\\n[answer or calls]<|im_end|>\\n

Source: tinker-cookbook's public renderer of the format. Pieces of text are encoded apart, so a rendered piece has the same
ids wherever it stands, and a conversation grows by appending. The one thing that changes what was already said is dropping
old reasoning at a new user turn (`drop_past_reasoning`): then `extend` returns None and the caller forks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from ..messages import Message, ToolCall, ToolSchema, Turn
from .tokenizer import TextRecorder, Tokenizer
from .toolcalls import parse_call

Effort = Literal["full", "low", "efficient"]


class ChatRenderer:
    """Renders for one tokenizer. `stop_ids` end a completion; `think_end_id` ends reasoning."""

    def __init__(self, tokenizer: Tokenizer | TextRecorder, *, drop_past_reasoning: bool = False) -> None:
        self.tokenizer = tokenizer
        self.drop_past_reasoning = drop_past_reasoning
        control = tokenizer.control
        self.start_id, self.end_id = control["<|im_start|>"], control["<|im_end|>"]
        self.think_id, self.think_end_id = control["<think>"], control["</think>"]
        self.call_id, self.call_end_id = control["<tool_call>"], control["</tool_call>"]
        self.stop_ids = (self.end_id,)
        self._newline = tokenizer.encode("\n")
        self._roles = {role: tokenizer.encode(f"{role}\n") for role in ("system", "user", "assistant")}

    # Conversations to ids.

    def open(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[int]:
        """The ids of a conversation from its beginning, and the generation prompt. A system block is always there."""
        has_system = bool(messages) and messages[0].role == "system"
        system, rest = (messages[0].text, messages[1:]) if has_system else ("", messages)
        ids = [*self._block("system", self._text(system) + self._tools(tools, after_text=bool(system)))]
        last_user = max((i for i, m in enumerate(rest) if m.role == "user"), default=-1)
        index = 0
        while index < len(rest):
            message = rest[index]
            if message.role == "assistant":
                dropped = self.drop_past_reasoning and index < last_user
                ids += self._block("assistant", self._assistant(message, dropped))
            elif message.role == "tool":
                results = [message]
                while index + 1 < len(rest) and rest[index + 1].role == "tool":
                    index += 1
                    results.append(rest[index])
                ids += self._block("user", self._results(results))
            else:
                hint = f"\n\n{{reasoning effort: {effort}}}" if effort != "full" and index == last_user else ""
                ids += self._block(message.role, self._text(message.text + hint))
            index += 1
        return ids + self._generation_prompt(reasoning)

    def extend(self, messages: Sequence[Message], *, reasoning: bool = True, reasoned: bool = True) -> list[int] | None:
        """What follows a finished completion: the new messages and the next generation prompt.

        `reasoned` says whether an earlier turn carries reasoning. None where that reasoning must be dropped, which
        changes what was already said: render anew with `open` and fork.
        """
        if self.drop_past_reasoning and reasoned and any(message.role == "user" for message in messages):
            return None
        ids = list(self._newline)
        tool_results = [message for message in messages if message.role == "tool"]
        if tool_results:
            ids += self._block("user", self._results(tool_results))
        for message in messages:
            if message.role != "tool":
                ids += self._block(message.role, self._text(message.text))
        return ids + self._generation_prompt(reasoning)

    def completion(self, turn: Turn, *, reasoning: bool = True) -> list[int]:
        """The ids that a policy would have sampled to take this turn, after the generation prompt."""
        ids: list[int] = []
        if reasoning:
            if turn.reasoning:
                ids += self._text(turn.reasoning + "\n")
            ids += [self.think_end_id, *self._newline]
        return ids + self._said(turn.answer, turn.tool_calls) + [self.end_id]

    def closing_ids(self) -> list[int]:
        """What the engine forces to end reasoning: a newline (left out after one), the end token, a newline."""
        return [*self._newline, self.think_end_id, *self._newline]

    # Ids to turns.

    def parse(self, ids: Sequence[int], *, reasoning: bool = True) -> Turn:
        """The turn of a completion's ids; `reasoning` says whether the prompt opened it. Linear in the ids.

        Broken output is kept as far as it can be read, with the verdict in `malformed`; a completion that does not end
        with the end token is `cut`.
        """
        cut = not ids or ids[-1] not in self.stop_ids
        rest = list(ids if cut else ids[:-1])
        thought: str | None = None
        ends: list[int] = []
        if reasoning:
            ends = [i for i, token in enumerate(rest) if token in (self.think_end_id, self.call_id)]
            at = ends[0] if ends else len(rest)
            thought = self.tokenizer.decode(rest[:at]).removesuffix("\n")
            closed = at < len(rest) and rest[at] == self.think_end_id
            rest = rest[at + 1 :] if closed else rest[at:]
            if closed and rest[: len(self._newline)] == self._newline:
                rest = rest[len(self._newline) :]
        if self.call_id not in rest:
            malformed = None
            if reasoning and not ends and not cut:
                malformed = "the reasoning was never closed with </think>"
            elif self.call_end_id in rest:
                malformed = "</tool_call> without <tool_call>"
            return Turn(self.tokenizer.decode(rest), reasoning=thought, malformed=malformed, cut=cut)
        first = rest.index(self.call_id)
        answer = self.tokenizer.decode(rest[:first]).removesuffix("\n")
        calls, malformed = self._calls(rest[first:])
        return Turn(answer, reasoning=thought, tool_calls=calls, malformed=None if cut else malformed, cut=cut)

    def _calls(self, ids: list[int]) -> tuple[tuple[ToolCall, ...], str | None]:
        calls: list[ToolCall] = []
        position = 0
        while position < len(ids):
            if ids[position] != self.call_id:
                following = (
                    ids[position:].index(self.call_id) if self.call_id in ids[position:] else len(ids) - position
                )
                if self.tokenizer.decode(ids[position : position + following]).strip():
                    return tuple(calls), "text between or after tool calls"
                position += following
                continue
            if self.call_end_id not in ids[position:]:
                return tuple(calls), "<tool_call> was never closed"
            end = ids.index(self.call_end_id, position)
            call = parse_call(self.tokenizer.decode(ids[position + 1 : end]))
            if isinstance(call, str):
                return tuple(calls), call
            calls.append(call)
            position = end + 1
        return tuple(calls), None

    # Pieces.

    def _text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text) if text else []

    def _block(self, role: str, content: list[int]) -> list[int]:
        return [self.start_id, *self._roles[role], *content, self.end_id, *self._newline]

    def _generation_prompt(self, reasoning: bool) -> list[int]:
        opened = [self.think_id, *self._newline] if reasoning else [self.think_id, self.think_end_id]
        return [self.start_id, *self._roles["assistant"], *opened]

    def _assistant(self, message: Message, dropped: bool) -> list[int]:
        if message.reasoning is None or dropped:
            after = self._newline if dropped and message.text and message.reasoning is not None else []
            return [self.think_id, self.think_end_id, *after, *self._said(message.text, message.tool_calls)]
        turn = Turn(message.text, message.reasoning, message.tool_calls)
        return [self.think_id, *self._newline, *self.completion(turn)[:-1]]

    def _said(self, answer: str, calls: Sequence[ToolCall]) -> list[int]:
        ids = self._text(answer)
        for index, call in enumerate(calls):
            if index == 0 and answer:
                ids += self._newline
            body = "\n".join(
                [f"\n<function={call.name}>"]
                + [f"<parameter={key}>\n{_value(value)}\n</parameter>" for key, value in call.arguments.items()]
                + ["</function>\n"]
            )
            ids += [self.call_id, *self._text(body), self.call_end_id, *self._newline]
        return ids

    def _results(self, messages: Sequence[Message]) -> list[int]:
        control, ids = self.tokenizer.control, []
        for message in messages:
            ids += [control["<tool_response>"], *self._text(f"\n{message.text}\n"), control["</tool_response>"]]
            ids += self._newline
        return ids

    def _tools(self, tools: Sequence[ToolSchema], after_text: bool) -> list[int]:
        if not tools:
            return []
        control = self.tokenizer.control
        body = "\n" + "".join(_declaration(tool) for tool in tools)
        lead = self._text("\n\n") if after_text else []
        return [*lead, control["<tools>"], *self._text(body), control["</tools>"]]


def _declaration(tool: ToolSchema) -> str:
    lines = [
        "<function>",
        f"<name>{tool.name}</name>",
        f"<description>{tool.description}</description>",
        "<parameters>",
    ]
    for key, schema in tool.parameters.get("properties", {}).items():
        lines += ["<parameter>", f"<name>{key}</name>"]
        for field, value in schema.items():
            lines.append(f"<{field}>{value if isinstance(value, str) else json.dumps(value)}</{field}>")
        lines.append("</parameter>")
    lines += [f"<required>{json.dumps(tool.parameters.get('required', []))}</required>", "</parameters>", "</function>"]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
