"""Messages and turns as plain JSON, both ways: OpenAI's chat format outside, our own vocabulary inside.

Reading never trusts: what cannot be read becomes a Turn whose `malformed` says why, so that the policy sees it and the episode
goes on. Only a caller's own mistake, an action that is no message at all, is a TypeError.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..messages import Audio, Message, Part, Task, Text, ToolCall, Turn, is_unicode, legible

_ACTIONS = "step takes a Turn, text, or a message such as {'role': 'assistant', 'content': ...}"


def read_action(action: Any, max_chars: int) -> Turn:
    """Any action as a Turn of legible text. What is too long or no Unicode is cut or replaced, and `malformed` says so."""
    if action.__class__ is str:
        turn = Turn(action)
    elif isinstance(action, Turn):
        turn = action
    elif isinstance(action, Mapping):
        turn = turn_from_dict(action)
    elif isinstance(action, Message) and action.role == "assistant":
        turn = Turn(action.text, reasoning=action.reasoning, tool_calls=action.tool_calls)
    elif isinstance(action, str):
        turn = Turn(str(action))
    else:
        raise TypeError(f"{_ACTIONS}, got {type(action).__name__}")
    answer, reasoning = turn.answer, turn.reasoning
    if not isinstance(answer, str) or not (reasoning is None or isinstance(reasoning, str)):
        raise TypeError(f"a turn's answer and reasoning are text, got {type(answer).__name__}")
    if not turn.tool_calls and answer.isascii() and len(answer) <= max_chars and reasoning is None:
        return turn
    return _cleaned(turn, max_chars)


def _cleaned(turn: Turn, max_chars: int) -> Turn:
    verdict, answer, reasoning, calls = turn.malformed, turn.answer, turn.reasoning, turn.tool_calls
    length, named = len(answer) + len(reasoning or ""), True
    for call in calls:
        length += _size(call.arguments, max_chars)
        named = named and is_unicode(call.name)
    if length > max_chars:
        verdict = f"a turn of over {max_chars} characters is not read; write less"
        answer, reasoning, calls = answer[:max_chars], reasoning and reasoning[:max_chars], ()
    if not (named and is_unicode(answer) and is_unicode(reasoning or "")):
        verdict = "the text holds characters that are no Unicode (lone surrogates)"
        answer, reasoning, calls = legible(answer), reasoning and legible(reasoning), ()
    elif not all([_holds_text(call.arguments) for call in calls]):
        verdict, calls = "an argument holds characters that are no Unicode, or is nested too deeply", ()
    if verdict is turn.malformed:
        return turn
    return Turn(answer, reasoning=reasoning, tool_calls=calls, malformed=verdict, cut=turn.cut)


def turn_from_dict(message: Mapping[str, Any]) -> Turn:
    """An OpenAI-style assistant message as a Turn."""
    if message.get("role", "assistant") != "assistant":
        raise TypeError(f"{_ACTIONS}, got role {message.get('role')!r}")
    content = message.get("content")
    reasoning = message.get("reasoning_content", message.get("reasoning"))
    calls: list[ToolCall] = []
    for item in message.get("tool_calls") or ():
        call = _read_call(item)
        if isinstance(call, str):
            return Turn(_joined(content), reasoning=reasoning, malformed=call)
        calls.append(call)
    return Turn(_joined(content), reasoning=reasoning, tool_calls=tuple(calls))


def turn_to_dict(turn: Turn) -> dict[str, Any]:
    """A Turn as an OpenAI-style message, with our own fields where they say something. `read_turn` is the way back."""
    found = message_to_dict(turn.message)
    if turn.malformed is not None:
        found["malformed"] = turn.malformed
    if turn.cut:
        found["cut"] = True
    return found


def read_turn(found: Mapping[str, Any]) -> Turn:
    """What `turn_to_dict` wrote."""
    turn = turn_from_dict(found)
    return Turn(
        turn.answer,
        reasoning=turn.reasoning,
        tool_calls=turn.tool_calls,
        malformed=found.get("malformed"),
        cut=bool(found.get("cut")),
    )


def message_to_dict(message: Message) -> dict[str, Any]:
    """A Message as OpenAI's chat format writes it."""
    found: dict[str, Any] = {"role": message.role, "content": _content(message.content)}
    if message.reasoning is not None:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for number, call in enumerate(message.tool_calls)
        ]
    return found


def message_from_dict(found: Mapping[str, Any]) -> Message:
    """The Message of OpenAI's chat format. ValueError where it is none."""
    if not isinstance(found, Mapping) or "role" not in found:
        raise ValueError(f"a message is an object with a role and content, got {str(found)[:80]!r}")
    calls = []
    for item in found.get("tool_calls") or ():
        call = _read_call(item)
        if isinstance(call, str):
            raise ValueError(call)
        calls.append(call)
    return Message(
        found["role"],
        _parts(found.get("content")),
        reasoning=found.get("reasoning_content", found.get("reasoning")),
        tool_calls=tuple(calls),
    )


def task_from_prompt(prompt: Any) -> str | tuple[Message, ...]:
    """A prompt as task files hold it: text, or a list of messages."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence):
        return tuple(message_from_dict(item) for item in prompt)
    raise ValueError(f"a prompt is text or a list of messages, got {type(prompt).__name__}")


def task_to_dict(task: Task) -> dict[str, Any]:
    """A Task as plain JSON: what a record of an episode keeps."""
    prompt = task.prompt if isinstance(task.prompt, str) else [message_to_dict(m) for m in task.prompt]
    return {"prompt": prompt, "answer": task.answer, "difficulty": task.difficulty, "metadata": dict(task.metadata)}


def read_json(text: str) -> Any:
    """JSON as it is written, strictly: no NaN, no key twice, no endless nesting. ValueError says what is wrong."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_call(item: Any) -> ToolCall | str:
    function = item.get("function", item) if isinstance(item, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        return "a tool call is {'function': {'name': ..., 'arguments': ...}}"
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments) if arguments.strip() else {}
        except ValueError as error:
            return f"the arguments of {name[:80]} are no JSON: {str(error)[:200]}"
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        return f"the arguments of {name[:80]} must be an object, got {type(arguments).__name__}"
    return ToolCall(name, dict(arguments))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return found


def _joined(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _content(parts: tuple[Part, ...] | str) -> Any:
    if isinstance(parts, str) or all(isinstance(part, Text) for part in parts):
        return parts if isinstance(parts, str) else "".join(part.text for part in parts if isinstance(part, Text))
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {
            "type": "input_audio",
            "input_audio": {
                "data": base64.b64encode(part.samples).decode(),
                "format": "f32le",
                "sampling_rate": part.sampling_rate,
            },
        }
        for part in parts
    ]


def _parts(content: Any) -> tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return (Text(content),) if content else ()
    parts: list[Part] = []
    for item in content:
        if item.get("type") == "text":
            parts.append(Text(item["text"]))
        elif item.get("type") == "input_audio":
            audio = item["input_audio"]
            parts.append(Audio(base64.b64decode(audio["data"]), int(audio.get("sampling_rate", 16_000))))
        else:
            raise ValueError(f"a message's part is text or input_audio, got {item.get('type')!r}")
    return tuple(parts)


_DEEPEST = 64
_TEXTLESS = frozenset({int, float, bool, type(None)})


def _holds_text(value: Any, depth: int = 0) -> bool:
    """Whether a JSON-like value holds Unicode throughout and is not nested beyond reason."""
    if isinstance(value, str):
        return is_unicode(value)
    if depth > _DEEPEST:
        return False
    if isinstance(value, (dict, Mapping)):  # dict first: to ask about a Mapping is slow
        value = [*value, *value.values()]
    elif not isinstance(value, (list, tuple)):
        return True
    for item in value:
        if item.__class__ not in _TEXTLESS and not _holds_text(item, depth + 1):
            return False
    return True


def _size(value: Any, limit: int) -> int:
    """About how many characters a JSON-like value has; counting stops above `limit`."""
    total, waiting = 0, [value]
    while waiting and total <= limit:
        item = waiting.pop()
        if isinstance(item, str):
            total += len(item)
            continue
        total += 1
        if item.__class__ in _TEXTLESS:
            continue
        if isinstance(item, (dict, Mapping)):
            waiting += item
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
    return total
