"""Isolated tools: `@tool(isolated=True)` runs in a process of its own, killed when it is late, lost when it crashes.

    episode --task, dict and SQLite state, arguments--> child: a stand-in for self --result, changed state--> episode

The child sees of `self` the task and the declared state, nothing else; what it changes there comes back. It has an empty
environment, no file it may write, and limits on memory and CPU (see sandbox/worker.py, which also says what it is not).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..messages import EnvironmentFault, Task
from ..sandbox import Pool
from . import wire
from .declaration import DeclarationError
from .importing import class_at, place_of
from .tool import Tool, ToolError

if TYPE_CHECKING:
    from .env import Env

_LOAD, _RUN = f"{__name__}:load", f"{__name__}:run"
_POOL_SIZE = 8
_FAULTS = {"grader_timeout": "tool_timeout", "grader_crash": "tool_crash"}
_pool: Pool | None = None


def call(env: Env, tool: Tool, arguments: Mapping[str, Any], limit_s: float) -> Any:
    """The tool's result. EnvironmentFault where its process was late or died."""
    try:
        request, first = _request(env, tool, arguments)
        return _finish(env, _workers().call(_RUN, *request, timeout_s=limit_s, first=first))
    except EnvironmentFault as fault:
        raise _as_tool_fault(tool, fault) from None


async def acall(env: Env, tool: Tool, arguments: Mapping[str, Any], limit_s: float) -> Any:
    """`call`, for callers on an event loop."""
    try:
        request, first = _request(env, tool, arguments)
        return _finish(env, await _workers().acall(_RUN, *request, timeout_s=limit_s, first=first))
    except EnvironmentFault as fault:
        raise _as_tool_fault(tool, fault) from None


def load(place: Mapping[str, str]) -> None:
    """In the child: import the author's module, which may take longer than a tool may."""
    class_at(place)


def run(place: Mapping[str, str], tool: str, task: Mapping[str, Any], states: Mapping[str, Any], arguments: Any) -> Any:
    """In the child: the method on a stand-in. A refusal is a value of its own kind."""
    cls = class_at(place)
    stand_in = object.__new__(cls)
    stand_in.task = Task(wire.task_from_prompt(task["prompt"]), task["answer"], task["difficulty"], task["metadata"])
    stand_in.states = {name: state.blank.branch() for name, state in cls.declared.items()}
    for name, value in states.items():
        stand_in.states[name].restore(_unpacked(value))
    found = cls.tools[tool]
    try:
        result = getattr(stand_in, tool)(**found.typed(arguments))
    except ToolError as error:
        return {"refused": str(error)}
    from pydantic_core import to_jsonable_python

    return {"result": to_jsonable_python(result), "states": _packed(stand_in) if found.writes else {}}


def _workers() -> Pool:
    global _pool
    _pool = _pool or Pool([_LOAD, _RUN], size=_POOL_SIZE)
    return _pool


def _request(env: Env, tool: Tool, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    from pydantic_core import to_jsonable_python

    place = _place(type(env), tool)
    request = (place, tool.name, wire.task_to_dict(env.task), _packed(env), to_jsonable_python(dict(arguments)))
    return request, (_LOAD, place)


def _place(cls: type, tool: Tool) -> dict[str, str]:
    if "<locals>" in cls.__qualname__:
        raise DeclarationError(
            tool.method,
            f"the isolated tool {tool.name!r} is in the class {cls.__qualname__}, which no other process can import",
            "define the class at module level",
        )
    return place_of(cls)


def _packed(env: Env) -> dict[str, Any]:
    packed = {}
    for name, state in env.states.items():
        taken = state.snapshot()
        packed[name] = {"bytes": base64.b64encode(taken).decode()} if isinstance(taken, bytes) else {"json": taken}
    return packed


def _unpacked(value: Mapping[str, Any]) -> Any:
    return base64.b64decode(value["bytes"]) if "bytes" in value else value["json"]


def _finish(env: Env, reply: Mapping[str, Any]) -> Any:
    if "refused" in reply:
        raise ToolError(reply["refused"])
    for name, value in reply["states"].items():
        env.states[name].restore(_unpacked(value))
    return reply["result"]


def _as_tool_fault(tool: Tool, fault: EnvironmentFault) -> EnvironmentFault:
    died = "the worker was killed" in fault.detail or "the worker ended" in fault.detail
    kind = "process_died" if died else _FAULTS.get(fault.kind, fault.kind)
    return EnvironmentFault(kind, f"{tool.name}: {fault.detail}")
