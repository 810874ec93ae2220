"""The reasoning budget, counted and forced by the engine alone, for all rows of a batch at once.

A row inside reasoning counts its sampled tokens. At the limit the reasoning is closed token by token, at once after a
newline or else when the grace is used up. Forced tokens are flagged: they are the environment's, never in a loss.
"""

# Shapes: B rows.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .engine import ReasoningBudget

UNLIMITED = np.int64(2**40)


@dataclass(frozen=True)
class ReasoningTokens:
    """What the engine must know of a renderer: the ids that close reasoning and those that end a line."""

    end_id: int
    call_id: int
    newline_id: int
    ends_line: np.ndarray
    """[vocabulary] bool: the tokens that end a line."""

    @property
    def closing(self) -> np.ndarray:
        return np.array([self.newline_id, self.end_id, self.newline_id])


class BudgetRows:
    """The state of each row's budget."""

    def __init__(self, num_rows: int) -> None:
        self.inside = np.zeros(num_rows, bool)
        self.used = np.zeros(num_rows, np.int64)
        self.limit = np.full(num_rows, UNLIMITED)
        self.hard_limit = np.full(num_rows, UNLIMITED)
        self.closing_at = np.full(num_rows, -1)
        self.hit = np.zeros(num_rows, bool)

    def begin(self, row: int | None, reasoning: bool, budget: ReasoningBudget | None) -> None:
        self.inside[row], self.used[row], self.hit[row], self.closing_at[row] = reasoning, 0, False, -1
        self.limit[row] = UNLIMITED if budget is None else budget.limit
        self.hard_limit[row] = UNLIMITED if budget is None else budget.limit + budget.grace

    def apply(
        self, sampled_B: np.ndarray, last_B: np.ndarray, tokens: ReasoningTokens
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that are taken and which of them are forced, given the sampled ones and the last ones before."""
        B = len(sampled_B)
        inside, used, closing_at = self.inside[:B], self.used[:B], self.closing_at[:B]
        after_line_B = tokens.ends_line[last_B]
        due_B = inside & (closing_at < 0) & (used >= self.limit[:B]) & (after_line_B | (used >= self.hard_limit[:B]))
        closing_at[due_B] = after_line_B[due_B]
        self.hit[:B] |= due_B
        forced_B = closing_at >= 0
        taken_B = np.where(forced_B, tokens.closing[closing_at], sampled_B)
        used += inside & ~forced_B & (taken_B != tokens.end_id) & (taken_B != tokens.call_id)
        inside &= (taken_B != tokens.end_id) & (taken_B != tokens.call_id)
        closing_at[forced_B] += 1
        closing_at[closing_at == len(tokens.closing)] = -1
        return taken_B, forced_B
