"""Rewards: small named methods of an environment, each with a weight, given at every turn or at the end.

    @reward                                  def correct(self, turn) -> bool
    @reward(weight=0.1, when="turn")         def useful(self, turn) -> float
    @reward(gate=True)                       def no_harm(self) -> bool           multiplies the episode's rewards
    @reward                                  def parts(self) -> {"f1": 0.5}      parts with names of their own

A reward's value lies in `low..high` (0 to 1; for turns -1 to 1). Anything else, NaN, None, text, an exception, is a fault of
the grader and never a number.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, overload

import numpy as np

from ..messages import EnvironmentFault
from .declaration import DeclarationError, parameters_of

F = TypeVar("F", bound=Callable[..., Any])
When = Literal["turn", "episode"]
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


@dataclass(frozen=True)
class Reward:
    """A declared reward: its method, weight, when it is given, and the range of its values."""

    name: str
    method: Callable[..., Any]
    weight: float = 1.0
    when: When = "episode"
    gate: bool = False
    low: float = 0.0
    high: float = 1.0
    own_deadline: bool = False
    """The method keeps the time itself, from when its work begins: to wait for a free worker is not the answer's fault."""

    @cached_property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.method)

    @cached_property
    def takes_turn(self) -> bool:
        return bool(parameters_of(self.method))

    def check(self, value: Any) -> dict[str, float]:
        """The weighted parts of a value, by name. EnvironmentFault("bad_reward") unless it is a number in range."""
        if isinstance(value, Mapping) and not self.gate:
            return {f"{self.name}/{part}": self.weight * self._number(found, part) for part, found in value.items()}
        return {self.name: self.weight * self._number(value)}

    def _number(self, value: Any, part: str = "") -> float:
        if isinstance(value, _NUMBERS) and self.low <= value <= self.high:  # NaN is in no range
            return float(value)
        name = f"{self.name}/{part}" if part else self.name
        raise EnvironmentFault(
            "bad_reward",
            f"reward {name!r} returned {str(value)[:80]!r} ({type(value).__name__}); it must return a number from {self.low:g} to "
            f"{self.high:g}",
        )


@overload
def reward(method: F) -> F: ...
@overload
def reward(
    *,
    weight: float = 1.0,
    when: When = "episode",
    gate: bool = False,
    low: float | None = None,
    high: float = 1.0,
    own_deadline: bool = False,
) -> Callable[[F], F]: ...
def reward(method: Any = None, **options: Any) -> Any:
    """Mark a method `(self)` or `(self, turn)` as a reward; the environment's reward is the weighted sum.

    A gate is 0 or 1 (or a factor between), given at the end: it multiplies the episode's rewards. What was given at
    earlier turns stays given.
    """
    if method is None:
        return lambda function: _marked(function, **options)
    return _marked(method)


def _marked(
    method: F,
    weight: float = 1.0,
    when: When = "episode",
    gate: bool = False,
    low: float | None = None,
    high: float = 1.0,
    own_deadline: bool = False,
) -> F:
    name = method.__name__
    if when not in ("turn", "episode"):
        raise DeclarationError(method, f"reward {name!r} has when={when!r}", "when is 'turn' or 'episode'")
    if not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise DeclarationError(method, f"reward {name!r} has weight={weight!r}", "the weight must be a finite number")
    if gate and (when == "turn" or weight != 1.0):
        raise DeclarationError(method, f"reward {name!r} is a gate with a weight or at turns", "a gate has neither")
    low = (-1.0 if when == "turn" else 0.0) if low is None else low
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DeclarationError(method, f"reward {name!r} has the range {low!r} to {high!r}", "give low < high, finite")
    parameters = list(inspect.signature(method).parameters)
    if not parameters or parameters[0] != "self" or len(parameters) > 2:
        raise DeclarationError(method, f"reward {name!r} takes {parameters}", "write (self) or (self, turn)")
    returns = method.__annotations__.get("return")
    if returns in (str, "str", None.__class__, "None") and "return" in method.__annotations__:
        raise DeclarationError(method, f"reward {name!r} returns {returns!r}", "return a number or a bool")
    method.__swannery_reward__ = Reward(  # type: ignore[attr-defined]
        name, method, float(weight), when, gate, float(low), float(high), own_deadline
    )
    return method


def rewards_of(cls: type) -> tuple[Reward, ...]:
    """The rewards that a class declares or inherits, in order of definition."""
    found: dict[str, Reward] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            declared = getattr(member, "__swannery_reward__", None)
            if isinstance(declared, Reward):
                found[name] = declared
            else:
                found.pop(name, None)
    return tuple(found.values())
