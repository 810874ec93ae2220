"""Wishes: what can be asked for, each as words and as the calls that do it.

A wish is drawn for one database. Where nothing in the world fits, its method gives None and another is drawn.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...messages import ToolCall
from .references import Named, References
from .rules import Rules
from .world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Wish:
    """Something to be done: an imperative clause without a full stop, and the calls."""

    kind: str
    words: str
    writes: tuple[ToolCall, ...]
    lookups: tuple[ToolCall, ...] = ()


class Wishes(References):
    """The base of all wishes: references, rules, and the small choices that they share."""

    def __init__(self, world: World, closed: Sequence[str], rules: Rules) -> None:
        super().__init__(world, closed)
        self.rules = rules
        self.biting = world.draws.chance(0.7)
        """Whether objects are preferred that a rule in force is about."""

    def say(self, *ways: str) -> str:
        return self.draws.one(ways)

    def prefer(self, of: Sequence[T], bites: Callable[[T], bool]) -> list[T]:
        """Those that a rule is about, if that is wished and there are any."""
        bitten = [thing for thing in of if bites(thing)] if self.biting else []
        return bitten or list(of)

    def wish(
        self, kind: str, words: str, writes: Sequence[ToolCall], *named: Named[object], also: Sequence[ToolCall] = ()
    ) -> Wish:
        """A wish with the look-ups of all that it names."""
        lookups = [lookup for one in named for lookup in one.lookups]
        return Wish(kind, words, tuple(writes), (*lookups, *also))

    def time(self) -> dt.time:
        """A start on the half hour within the working day."""
        return dt.time(self.draws.between(9, 15), 30 * self.draws.below(2))

    def last_days(self, days: int) -> tuple[str, str]:
        """First and last day of "the last N days"."""
        return self.world.day(-days).isoformat(), self.world.day(-1).isoformat()
