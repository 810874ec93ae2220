"""Tool calls as text, in the two ways that chat formats write them, read by structure: no expression runs over model text.

    Nemotron: <tool_call>                        Hermes: <tool_call>
              <function=NAME>                            {"name": "NAME", "arguments": {"KEY": VALUE}}
              <parameter=KEY>                            </tool_call>
              VALUE (any lines)
              </parameter>
              </function>
              </tool_call>

What cannot be read comes back as words that the policy can act on. Reading takes one pass and stops at the first mistake.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..messages import ToolCall, is_unicode

MAX_DEPTH = 32
"""How deep an argument may be nested: deeper ones would end the recursion of whatever handles them next."""

_JSON_FORM = '{"name": ..., "arguments": {...}}'


@dataclass(frozen=True)
class CallStyle:
    """How calls are written. `read` takes what stands inside one <tool_call> block; `write` gives it."""

    read: Callable[[str], tuple[ToolCall, ...] | str]
    write: Callable[[ToolCall], str]


def parse_call(text: str) -> ToolCall | str:
    """The call of a Nemotron block, or what is wrong with it. Values are text: the tool's schema types them."""
    lines = text.strip("\n").split("\n")
    if not (lines[0].startswith("<function=") and lines[0].endswith(">")):
        return f"a call begins with <function=NAME>, got {lines[0][:40]!r}"
    name = lines[0][len("<function=") : -1]
    if not name.strip():
        return "the function's name is empty"
    arguments: dict[str, str] = {}
    at = 1
    while at < len(lines) and lines[at] != "</function>":
        opening = lines[at]
        if not (opening.startswith("<parameter=") and opening.endswith(">")):
            return f"expected <parameter=KEY> or </function>, got {opening[:40]!r}"
        key = opening[len("<parameter=") : -1]
        if key in arguments:
            return f"the parameter {key!r} came twice"
        close = next((i for i in range(at + 1, len(lines)) if lines[i] == "</parameter>"), None)
        if close is None:
            return f"the parameter {key!r} was never closed with </parameter>"
        arguments[key] = "\n".join(lines[at + 1 : close])
        at = close + 1
    if at == len(lines):
        return "a call ends with </function>"
    if at + 1 < len(lines):
        return f"one call a block: expected </tool_call> after </function>, got {lines[at + 1][:40]!r}"
    return ToolCall(name, arguments)


def write_call(call: ToolCall) -> str:
    """A call as Nemotron writes it inside its block; what is no text is written as JSON."""
    lines = [f"\n<function={call.name}>"]
    for key, value in call.arguments.items():
        lines.append(f"<parameter={key}>\n{_spelt(value)}\n</parameter>")
    return "\n".join([*lines, "</function>\n"])


def parse_json_calls(text: str) -> tuple[ToolCall, ...] | str:
    """The calls of a Hermes block, usually one, or what is wrong with it."""
    calls: list[ToolCall] = []
    at = _past_blanks(text, 0)
    while at < len(text):
        found = _object(text, at)
        if isinstance(found, str):
            return found
        value, at = found
        call = _call_of(value)
        if isinstance(call, str):
            return call
        calls.append(call)
        at = _past_blanks(text, at)
    return tuple(calls) or f"the block is empty: a call is {_JSON_FORM}"


def write_json_call(call: ToolCall) -> str:
    """A call as Hermes writes it inside its block."""
    return "\n" + json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False) + "\n"


def _one(text: str) -> tuple[ToolCall, ...] | str:
    call = parse_call(text)
    return call if isinstance(call, str) else (call,)


NEMOTRON = CallStyle(_one, write_call)
HERMES = CallStyle(parse_json_calls, write_json_call)


class _Refused(ValueError):
    """JSON that Python reads and we do not."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _Refused(f"the key {twice[:40]!r} came twice in one object")
    return found


def _no_number(name: str) -> Any:
    raise _Refused(f"{name} is no JSON; write a number or null")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_number)


def _object(text: str, at: int) -> tuple[dict[str, Any], int] | str:
    """The JSON object that begins at `at`, and where it ends."""
    if text[at] != "{":
        return f"a call is {_JSON_FORM}, got {text[at : at + 40]!r}"
    try:
        value, end = _DECODER.raw_decode(text, at)
    except _Refused as error:
        return str(error)
    except json.JSONDecodeError as error:
        where = text[max(error.pos - 20, at) : error.pos + 20]
        return f"the call is no whole JSON object: {error.msg}, near {where!r}"
    except (RecursionError, ValueError) as error:  # too deep, or an integer of thousands of digits
        return "the call is nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
    return _unfit(value) or (value, end)


def _call_of(value: dict[str, Any]) -> ToolCall | str:
    name, arguments = value.get("name"), value.get("arguments", {})
    if not isinstance(name, str) or not name.strip():
        return f'the call has no "name": a call is {_JSON_FORM}'
    if isinstance(arguments, str):
        at = _past_blanks(arguments, 0)
        found = _object(arguments, at) if at < len(arguments) else ({}, at)
        if isinstance(found, str):
            return f'"arguments" of {name[:40]!r}: {found}'
        arguments, end = found
        if _past_blanks(value["arguments"], end) < len(value["arguments"]):
            return f'"arguments" of {name[:40]!r} holds more than one object'
    if not isinstance(arguments, dict):
        return f'"arguments" of {name[:40]!r} must be an object {{...}}, got {json.dumps(arguments)[:40]}'
    return ToolCall(name, arguments)


def _unfit(value: Any) -> str | None:
    """What cannot go on as an argument: nested too deeply, no finite number, no Unicode. Without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str) and not is_unicode(item):
                return "a text holds half a surrogate pair (\\ud800 to \\udfff), which is no character"
            if isinstance(item, float) and not math.isfinite(item):
                return "a number is too large"
            if isinstance(item, dict):
                inner += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                inner += item
        if not inner:
            return None
        level = inner
    return f"the call is nested too deeply: at most {MAX_DEPTH} levels are read"


def _past_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
