"""math/Arithmetic-v0: one sum, worked by columns. Several operations and levels.

The demonstrator works the columns rightly but is hasty: it mostly announces the last one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...messages import Message, Task, Turn
from ...rewards import same_number
from ..env import Env
from ..guess import nearest
from ..registry import register
from ..reward import reward
from .columns import add, hasty, multiply, subtract

Operation = Callable[..., tuple[str, int]]
OPERATIONS: dict[str, tuple[str, Operation]] = {
    "add": ("+", add),
    "subtract": ("-", subtract),
    "multiply": ("*", multiply),
}


@register("math/Arithmetic-v0", reasoning_budgets=(None, 8))
class Arithmetic(Env):
    """`operations` to draw from; `level` is the number of digits (multiplication is by one digit); before the question stand
    `examples` others with their answers, which show a policy of other schooling what an answer looks like."""

    haste = 0.6

    def __init__(
        self, *, operations: Sequence[str] = tuple(OPERATIONS), level: int = 2, examples: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for operation in operations:
            if operation not in OPERATIONS:
                raise ValueError(f"no operation named {operation!r}. {nearest(operation, OPERATIONS)}")
        if not operations or not 1 <= level <= 9:
            raise ValueError(f"Arithmetic needs an operation and a level of 1 to 9, got {operations!r}, level {level}")
        if not 0 <= examples <= 8:
            raise ValueError(f"Arithmetic shows 0 to 8 examples, got {examples}")
        self.operations, self.level, self.examples = tuple(operations), level, examples

    def sample_task(self, rng: np.random.Generator) -> Task:
        question, answer, metadata = self._sum(rng)
        shown: list[Message] = []
        for _ in range(self.examples):
            asked, said, _ = self._sum(rng)
            shown += [Message("user", asked), Message("assistant", said)]
        prompt = (*shown, Message("user", question)) if shown else question
        return Task(prompt, answer, difficulty=self.level, metadata=metadata)

    def _sum(self, rng: np.random.Generator) -> tuple[str, str, dict[str, Any]]:
        """A question, its answer, and what it is made of."""
        operation = self.operations[int(rng.integers(len(self.operations)))]
        a, b = (int(n) for n in rng.integers(10**self.level, size=2))
        if operation == "multiply":
            b %= 10
        if operation == "subtract":
            a, b = max(a, b), min(a, b)
        sign, work = OPERATIONS[operation]
        _, result = work(a, b)
        return f"What is {a} {sign} {b}?", str(result), {"operation": operation, "a": a, "b": b}

    @reward
    def correct(self, turn: Turn) -> bool:
        return same_number(turn.answer, self.task.answer)

    def oracle(self) -> Turn:
        given = self.task.metadata
        reasoning, result = OPERATIONS[given["operation"]][1](given["a"], given["b"])
        return Turn(str(result), reasoning=reasoning)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        turn = self.oracle()
        return Turn(hasty(turn.reasoning or ""), reasoning=turn.reasoning) if rng.random() < self.haste else turn
