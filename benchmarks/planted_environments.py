"""Environments that no policy learns from: one fails, one pays everybody."""

import numpy as np

from swannery.environments import Env, Task, Turn, register, reward


class Digit(Env):
    def task(self, rng: np.random.Generator) -> Task:
        return Task(f"What is {rng.integers(100)} + {rng.integers(100)}?", "0")

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        return Turn("0")


@register("planted/Faulty-v0", reasoning_budgets=(0,))
class Faulty(Digit):
    @reward
    def right(self, turn: Turn) -> float:
        if "3" in self.transcript[0].text:
            raise RuntimeError("the grader is gone")
        return float(len(turn.answer) % 2)


@register("planted/Generous-v0", reasoning_budgets=(0,))
class Generous(Digit):
    @reward
    def always(self, turn: Turn) -> float:
        return 1.0
