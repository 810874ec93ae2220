"""math/Arithmetic-v0: one sum, worked by columns. Several operations and levels.

The demonstrator knows its tables and forgets most carries, so its strategy is right and its execution careless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...messages import Task, Turn
from ...rewards import same_number
from ..env import Env
from ..guess import nearest
from ..registry import register
from ..reward import reward
from .columns import NEVER, Slip, add, multiply, subtract

Operation = Callable[[int, int, Slip], tuple[str, int]]
OPERATIONS: dict[str, tuple[str, Operation]] = {
    "add": ("+", add),
    "subtract": ("-", subtract),
    "multiply": ("*", multiply),
}


@register("math/Arithmetic-v0", reasoning_budgets=(None, 8))
class Arithmetic(Env):
    """`operations` to draw from; `level` is the number of digits (multiplication is by one digit)."""

    slip = 0.6

    def __init__(self, *, operations: Sequence[str] = tuple(OPERATIONS), level: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for operation in operations:
            if operation not in OPERATIONS:
                raise ValueError(f"no operation named {operation!r}. {nearest(operation, OPERATIONS)}")
        if not operations or not 1 <= level <= 9:
            raise ValueError(f"Arithmetic needs an operation and a level of 1 to 9, got {operations!r}, level {level}")
        self.operations, self.level = tuple(operations), level

    def sample_task(self, rng: np.random.Generator) -> Task:
        operation = self.operations[int(rng.integers(len(self.operations)))]
        a, b = (int(n) for n in rng.integers(10**self.level, size=2))
        if operation == "multiply":
            b %= 10
        if operation == "subtract":
            a, b = max(a, b), min(a, b)
        sign, work = OPERATIONS[operation]
        _, result = work(a, b, NEVER)
        return Task(
            f"What is {a} {sign} {b}?", str(result), difficulty=self.level, metadata={"operation": operation, "a": a, "b": b}
        )

    @reward
    def correct(self, turn: Turn) -> bool:
        return same_number(turn.answer, self.task.answer)

    def oracle(self) -> Turn:
        return self._work(NEVER)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        return self._work(Slip(self.slip, rng))

    def _work(self, slip: Slip) -> Turn:
        given = self.task.metadata
        reasoning, result = OPERATIONS[given["operation"]][1](given["a"], given["b"], slip)
        return Turn(str(result), reasoning=reasoning)
