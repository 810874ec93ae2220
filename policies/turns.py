"""A completion's text to a Turn, by structure: where reasoning ends, where calls begin and end.

    ids --renderer--> text with marks --one pass over the marks--> Turn

A renderer marks what is structure, by control ids where its format has them; so the same words as plain text in an answer
stay an answer. What cannot be read as a whole is kept as text, to the letter, with the verdict beside it: the policy sees
its own words in the conversation, and what was wrong with them in the observation.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from ..messages import ToolCall, Turn
from .toolcalls import CallStyle

Effort = Literal["full", "low", "efficient"]
"""How much to reason, where a format can ask for less."""


class Kind(enum.Enum):
    """What structures a completion, as it is spelt."""

    THINK = "<think>"
    THINK_END = "</think>"
    CALL = "<tool_call>"
    CALL_END = "</tool_call>"


class Mark(NamedTuple):
    start: int
    end: int
    kind: Kind


class MarkedText(NamedTuple):
    """A completion's text and the structure in it, in order."""

    text: str
    marks: list[Mark]


def marked_text(ids: Iterable[int], kinds: Mapping[int, Kind], decode: Callable[[Sequence[int]], str]) -> MarkedText:
    """The text of ids, where some ids are structure. Each id is looked at once and decoded at most once."""
    parts: list[str] = []
    marks: list[Mark] = []
    run: list[int] = []
    length = 0
    for token in ids:
        kind = kinds.get(token)
        if kind is None:
            run.append(token)
            continue
        if run:
            parts.append(decode(run))
            length += len(parts[-1])
            run = []
        parts.append(kind.value)
        marks.append(Mark(length, length + len(kind.value), kind))
        length += len(kind.value)
    if run:
        parts.append(decode(run))
    return MarkedText("".join(parts), marks)


def read_turn(
    said: MarkedText, style: CallStyle | None, *, reasoning: bool, cut: bool, lead: str = "", gap: str = "\n"
) -> Turn:
    """The turn of a completion. `reasoning` says whether it begins inside reasoning; `lead` is what the format writes before
    the reasoning's own words, `gap` the newlines between </think> and the answer; one newline before </think> is its own.

    A completion that is `cut` has no verdict: what it was about to say is unknown.
    """
    text, marks = said
    thought, at, first = None, 0, 0
    verdict = None
    if reasoning:
        closing = (Kind.THINK_END, Kind.CALL)  # a call closes the reasoning that it was opened in
        first = next((i for i, mark in enumerate(marks) if mark.kind in closing), len(marks))
        closed_by = marks[first] if first < len(marks) else Mark(len(text), len(text), Kind.THINK_END)
        thought = text[: closed_by.start].removeprefix(lead).removesuffix("\n")
        at = closed_by.start
        if first == len(marks):
            verdict = "the reasoning was never closed with </think>"
        elif closed_by.kind is Kind.THINK_END:
            at, first = closed_by.end, first + 1
            while at - closed_by.end < len(gap) and text.startswith("\n", at):
                at += 1
    answer, calls = text[at:], ()
    if style is not None and verdict is None:
        found = _read_calls(text, at, marks[first:], style)
        if isinstance(found, str):
            verdict = found
        else:
            answer, calls = found
    return Turn(answer, reasoning=thought, tool_calls=calls, malformed=None if cut else verdict, cut=cut)


def _read_calls(text: str, at: int, marks: list[Mark], style: CallStyle) -> tuple[str, tuple[ToolCall, ...]] | str:
    """The answer before the calls, and the calls; or what is wrong."""
    answer: str | None = None
    calls: list[ToolCall] = []
    inside: Mark | None = None
    for mark in marks:
        if mark.kind is Kind.CALL:
            if inside is not None:
                return "<tool_call> was never closed: </tool_call> must come before the next <tool_call>"
            if answer is None:
                answer = text[at : mark.start]
            elif text[at : mark.start].strip():
                return "text between or after tool calls: say it before the first <tool_call>"
            inside = mark
        elif mark.kind is Kind.CALL_END:
            if inside is None:
                return "</tool_call> without <tool_call>"
            found = style.read(text[inside.end : mark.start])
            if isinstance(found, str):
                return found
            calls += found
            at, inside = mark.end, None
    if inside is not None:
        return "<tool_call> was never closed with </tool_call>"
    if answer is None:
        return text[at:], ()
    if text[at:].strip():
        return "text between or after tool calls: say it before the first <tool_call>"
    return answer.removesuffix("\n"), tuple(calls)
