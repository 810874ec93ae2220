"""Draws: choices from a generator, made in blocks. One number at a time would cost more than all the rest of a reset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 512


class Draws:
    """Everything random in a task, in the order in which it is asked for."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._left: list[int] = []

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        if not self._left:
            self._left = self.rng.integers(0, 1 << 53, size=_BLOCK).tolist()
        return self._left.pop() % n

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        return self.below(1 << 20) < share * (1 << 20)

    def one(self, of: Sequence[T]) -> T:
        return of[self.below(len(of))]

    def some(self, of: Sequence[T], count: int) -> list[T]:
        """Up to `count` different ones, in a drawn order."""
        left = list(of)
        for i in range(min(count, len(left))):
            j = i + self.below(len(left) - i)
            left[i], left[j] = left[j], left[i]
        return left[:count]


class Numbers:
    """Numbers of four digits that are unlike each other: what ids are made of."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws
        self._taken: dict[int, None] = {}

    def next(self, prefix: str) -> str:
        number = self.draws.between(1000, 9999)
        while number in self._taken:
            number = self.draws.between(1000, 9999)
        self._taken[number] = None
        return f"{prefix}{number}"
