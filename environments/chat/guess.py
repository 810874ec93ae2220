"""chat/Guess-v0: guess the user's number from hints, in as few guesses as halving needs.

A number of 1 to 2**guesses - 1 is always found by halving. The demonstrator keeps track of the interval and then guesses
anyhow: the strategy is left to be learned.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...messages import Task, Turn
from ...rewards import same_number
from ..env import Env
from ..registry import register
from ..reward import reward

_GUESS = re.compile(r"\d{1,9}")


@register("chat/Guess-v0", max_turns=4, reasoning_budgets=(None,))
class Guess(Env):
    """The range is 1 to `largest`; the number of guesses is `limits.max_turns`."""

    careless = 0.4
    prompt_identifies_task = False

    def __init__(self, *, largest: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 2 <= largest < 2**self.limits.max_turns:
            raise ValueError(
                f"Guess: largest is from 2 to {2**self.limits.max_turns - 1} (what {self.limits.max_turns} guesses can "
                f"always find), got {largest}"
            )
        self.largest = largest

    def sample_task(self, rng: np.random.Generator) -> Task:
        number = int(rng.integers(1, self.largest + 1))
        return Task(f"Guess my number from 1 to {self.largest} in {self.limits.max_turns} turns.", str(number))

    def start(self) -> None:
        self.low, self.high = 1, self.largest

    def respond(self, turn: Turn) -> str | None:
        guess = _GUESS.fullmatch(turn.answer.strip())
        if guess is None or not turn.answer.isascii():
            return "Say one number."
        value, number = int(guess[0]), int(self.task.answer)
        if value == number:
            return None
        if value < number:
            self.low = max(self.low, value + 1)
            return "Higher."
        self.high = min(self.high, value - 1)
        return "Lower."

    @reward
    def found(self, turn: Turn) -> bool:
        return same_number(turn.answer, self.task.answer)

    def oracle(self) -> Turn:
        return self._guess((self.low + self.high) // 2)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        low, high = (1, self.largest) if rng.random() < self.careless else (self.low, self.high)
        return self._guess(int(rng.integers(low, high + 1)))

    def _guess(self, value: int) -> Turn:
        return Turn(str(value), reasoning=f"{self.low} to {self.high}")
