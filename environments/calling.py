"""Carrying out one tool call: from a policy's words to an observation, or to a fault.

ToolCall --typed--> method --deadline--> CallRecord      refusals and bad arguments are observations
                                     \\-> EnvironmentFault  crashes, timeouts, lost connections
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..messages import EnvironmentFault, ToolCall
from .deadline import Deadline, guarded, in_thread
from .guess import nearest
from .tool import By, Tool, ToolError

if TYPE_CHECKING:
    from .env import Env

_LONGEST_NAME = 80


@dataclass(frozen=True)
class CallRecord:
    """A call that was made in this episode, with its typed arguments and what it was answered."""

    name: str
    arguments: Mapping[str, Any] = field(hash=False)
    result: str
    ok: bool
    """False where the tool refused or the arguments were wrong."""
    writes: bool
    by: By
    turn: int


async def call_tool(env: Env, call: ToolCall, *, by: By = "policy", threads: bool = False) -> CallRecord:
    """Carry a call out. `threads` runs plain code beside the event loop instead of on it."""
    tool = env.tools.get(call.name)
    if tool is None or (tool.by == "user" and by == "policy"):
        known = [name for name, found in env.tools.items() if found.by == by]
        shown = call.name if len(call.name) <= _LONGEST_NAME else call.name[:_LONGEST_NAME] + "..."
        return _record(env, call, by, f"error: no tool named {shown!r}. {nearest(shown, known)}")
    try:
        arguments = tool.typed(call.arguments)
        if tool.is_async:
            async with Deadline(tool.timeout_s or env.limits.tool_timeout_s):
                result = await getattr(env, tool.name)(**arguments)
        else:
            result = await _carry_out(env, tool, arguments, threads)
        text = result if isinstance(result, str) else _as_json(result)
    except ToolError as error:
        return _record(env, call, by, f"error: {error}", writes=tool.writes)
    except EnvironmentFault:
        raise
    except TimeoutError:
        limit_s = tool.timeout_s or env.limits.tool_timeout_s
        raise EnvironmentFault("tool_timeout", f"{call.name} took over {limit_s} s") from None
    except (ConnectionError, EOFError) as error:
        raise EnvironmentFault("connection_lost", f"{call.name} raised {error!r}") from error
    except Exception as error:
        raise EnvironmentFault("tool_crash", f"{call.name} raised {error!r}") from error
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text
    return CallRecord(call.name, arguments, text, True, tool.writes, by, env.num_turns)


async def _carry_out(env: Env, tool: Tool, arguments: dict[str, Any], threads: bool) -> Any:
    """What a plain tool returns: in a process or a thread of its own, or here."""
    limit_s = tool.timeout_s or env.limits.tool_timeout_s
    if tool.isolated:
        from . import isolation

        if threads:
            return await isolation.acall(env, tool, arguments, limit_s)
        return isolation.call(env, tool, arguments, limit_s)
    method = getattr(env, tool.name)
    if threads and not (env.quick_tools if tool.quick is None else tool.quick):
        return await in_thread(limit_s, lambda: method(**arguments))
    return guarded(limit_s, method, **arguments)


def _record(env: Env, call: ToolCall, by: By, text: str, *, writes: bool = False) -> CallRecord:
    return CallRecord(call.name, call.arguments, text, False, writes, by, env.num_turns)


def _plain(value: Any) -> Any:
    """What JSON does not know: pydantic models and dataclasses as objects, numbers of numpy, all else as text."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode
