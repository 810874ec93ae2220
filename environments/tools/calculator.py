"""tools/Calculator-v0: a two-step sum with a calculator that does one step at a time.

The numbers are too large to work in the head of a small policy, so the task needs two calls, the second with the first
one's result. The demonstrator is lazy: it often guesses, stops after one call, or calls once too often.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...messages import Task, ToolCall, Turn
from ...rewards import same_number
from ..env import Env
from ..registry import register
from ..reward import reward
from ..tool import ToolError, tool

_STEP = re.compile(r"\s*(-?\d{1,18})\s*([-+*/])\s*(-?\d{1,18})\s*")


def one_step(expression: str) -> int:
    """The value of `a + b`, `a - b`, `a * b` or `a / b` (rounded down) on whole numbers. Nothing is ever evaluated."""
    match = _STEP.fullmatch(expression)
    if match is None or not expression.isascii():
        raise ToolError(f"one step on whole numbers, such as 12 * 34, got {expression[:60]!r}")
    a, sign, b = int(match[1]), match[2], int(match[3])
    if sign == "/" and b == 0:
        raise ToolError("division by zero")
    return {"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a // b


@register("tools/Calculator-v0", max_turns=5, max_tool_calls=4, reasoning_budgets=(0,))
class Calculator(Env):
    """`largest` bounds the numbers of a task."""

    quick_tools = True
    lazy, stops, redundant = 0.35, 0.15, 0.30

    def __init__(self, *, largest: int = 99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 10 <= largest < 10**6:
            raise ValueError(f"Calculator: largest is from 10 to 999999, got {largest}")
        self.largest = largest

    def sample_task(self, rng: np.random.Generator) -> Task:
        a, b, c = (int(n) for n in rng.integers(10, self.largest + 1, size=3))
        first, second = str(rng.choice(["*", "+"])), str(rng.choice(["+", "-"]))
        value = one_step(f"{one_step(f'{a} {first} {b}')} {second} {c}")
        return Task(f"What is {a} {first} {b} {second} {c}?", str(value), metadata={"terms": (a, first, b, second, c)})

    def start(self) -> None:
        self.results: list[str] = []
        self.plan: str | None = None

    @tool
    def calculate(self, expression: str) -> str:
        """One step, such as 12 * 34."""
        self.results.append(str(one_step(expression)))
        return self.results[-1]

    @reward
    def correct(self, turn: Turn) -> bool:
        return same_number(turn.answer, self.task.answer)

    def oracle(self) -> Turn:
        a, first, b, second, c = self.task.metadata["terms"]
        if not self.results:
            return _call(f"{a} {first} {b}")
        if len(self.results) == 1:
            return _call(f"{self.results[0]} {second} {c}")
        return Turn(self.results[-1])

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        if self.plan is None:
            plans, shares = ["lazy", "stops", "redundant"], [self.lazy, self.stops, self.redundant]
            self.plan = str(rng.choice([*plans, "sound"], p=[*shares, 1 - sum(shares)]))
        if self.plan == "lazy":
            return Turn(str(int(rng.integers(10, 10 ** int(rng.integers(2, 5))))))
        if self.plan == "stops" and self.results:
            return Turn(self.results[0])
        if self.plan == "redundant" and len(self.results) == 1 and self.num_tool_calls == 1:
            a, first, b, _, _ = self.task.metadata["terms"]
            return _call(f"{a} {first} {b}")
        if self.plan == "redundant" and len(self.results) == 2:
            _, _, _, second, c = self.task.metadata["terms"]
            return _call(f"{self.results[1]} {second} {c}")
        return Turn(self.results[-1]) if len(self.results) >= 2 else self.oracle()


def _call(expression: str) -> Turn:
    return Turn(tool_calls=(ToolCall("calculate", {"expression": expression}),))
