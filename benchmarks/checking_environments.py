"""Environments whose demonstrators check their work by doing it again, up to four times: reasoning that is longer than it needs to be.

What a length control may cut is then known: every pass but the first.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from swannery.environments import Turn, register
from swannery.environments.chat import Guess
from swannery.environments.math import Arithmetic
from swannery.environments.reasoning_gym.adapter import ReasoningGym

MOST_CHECKS = 4


class Checking:
    """A demonstrator's turn, with its reasoning written down one to five times."""

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        turn: Turn = super().demonstrate(rng)  # type: ignore[misc]
        passes = 1 + int(rng.integers(MOST_CHECKS + 1))
        return replace(turn, reasoning="\n".join([turn.reasoning or ""] * passes))


@register("checking/Arithmetic-v0", reasoning_budgets=(None,))
class CheckingArithmetic(Checking, Arithmetic):
    """Sums of two numbers."""


@register("checking/Guess-v0", max_turns=4, reasoning_budgets=(None,))
class CheckingGuess(Checking, Guess):
    """A number from hints."""


@register("checking/ChainSum-v0", reasoning_budgets=(None,))
class CheckingChainSum(Checking, ReasoningGym):
    """reasoning-gym's chains of sums."""

    def __new__(cls, **_: Any) -> "CheckingChainSum":
        return object.__new__(cls)

    def __init__(self, **options: Any) -> None:
        super().__init__("chain_sum", **options)
