"""Rewards: small named methods of an environment, each with a weight, given at every turn or at the end.

@reward                                  def correct(self, turn) -> bool
@reward(weight=0.1, when="turn")         def useful(self, turn) -> float
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import numpy as np

from ..messages import EnvironmentFault

F = TypeVar("F", bound=Callable[..., Any])
When = Literal["turn", "episode"]


@dataclass(frozen=True)
class Reward:
    """A declared reward: its name, weight, when it is given, and whether it awaits."""

    name: str
    weight: float = 1.0
    when: When = "episode"
    is_async: bool = False


@overload
def reward(method: F) -> F: ...
@overload
def reward(*, weight: float = 1.0, when: When = "episode") -> Callable[[F], F]: ...
def reward(method: Any = None, *, weight: float = 1.0, when: When = "episode") -> Any:
    """Mark a method `(self, turn) -> number` as a reward; the environment's reward is the weighted sum."""
    if when not in ("turn", "episode"):
        raise ValueError(f"@reward: when is 'turn' or 'episode', got {when!r}")
    if not math.isfinite(weight):
        raise ValueError(f"@reward: the weight must be a finite number, got {weight!r}")

    def mark(function: F) -> F:
        function.__swannery_reward__ = Reward(  # type: ignore[attr-defined]
            function.__name__, float(weight), when, inspect.iscoroutinefunction(function)
        )
        return function

    return mark if method is None else mark(method)


def rewards_of(cls: type) -> tuple[Reward, ...]:
    """The rewards that a class declares or inherits, in order of definition."""
    found: dict[str, Reward] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if isinstance(declared := getattr(member, "__swannery_reward__", None), Reward):
                found[name] = declared
    return tuple(found.values())


def checked(name: str, value: Any) -> float:
    """A reward is a finite number. Anything else is a fault of the grader, never a zero."""
    if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    raise EnvironmentFault("bad_reward", f"reward {name!r} returned {value!r}; it must return a finite number")
