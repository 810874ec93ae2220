"""What a class body declares, checked when the class is made: each mistake is told with its line and its cure."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import gymnasium


class DeclarationError(TypeError):
    """A mistake of an environment's author: where it is, what it is, and what would do."""

    def __init__(self, place: Any, problem: str, cure: str) -> None:
        super().__init__(f"{where(place)}{problem}; {cure}")
        self.problem, self.cure = problem, cure


def where(place: Any) -> str:
    """`file.py:12: ` of a function or class, as far as it is known."""
    code = getattr(inspect.unwrap(place) if callable(place) else place, "__code__", None)
    if isinstance(code, types.CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}: "
    try:
        return f"{inspect.getsourcefile(place)}:{inspect.getsourcelines(place)[1]}: "
    except (TypeError, OSError):
        return ""


def declared(member: Any) -> str | None:
    """Which kind of declaration a member of a class body is: tool, reward or cheat."""
    for kind in ("tool", "reward", "cheat"):
        if getattr(member, f"__swannery_{kind}__", None):
            return kind
    return None


RESERVED = frozenset(
    "states parts calls transcript outcome num_turns num_tool_calls in_loop last_turn tool_schemas responder "
    "_started _made _first _runner _advance _answer _call _set_up _draw _begun _started_up _wait".split()
)
"""What an instance or the class itself uses under these names."""


class _Body(dict[str, Any]):
    """A class body in which no declaration is silently replaced by a second one of the same name."""

    def __setitem__(self, name: str, member: Any) -> None:
        before, now = self.get(name), declared(member)
        if before is not None and (declared(before) or now) and callable(before):
            kind = declared(before) or now
            first = where(before).removesuffix(": ")
            raise DeclarationError(member, f"a second {kind} named {name!r} (the first is at {first})", "rename one")
        super().__setitem__(name, member)


class EnvMeta(type(gymnasium.Env)):  # type: ignore[misc]
    """The metaclass of Env: it only watches over the class body."""

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **keywords: Any) -> _Body:
        return _Body()

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], **keywords: Any) -> Any:
        for member in RESERVED & set(body) if bases and name != "Env" else ():
            raise DeclarationError(
                body[member], f"{name} defines {member!r}, which every environment needs for itself", "rename it"
            )
        return super().__new__(mcs, name, bases, dict(body), **keywords)


def parameters_of(method: Callable[..., Any]) -> list[inspect.Parameter]:
    """A method's parameters after self."""
    return list(inspect.signature(method).parameters.values())[1:]
