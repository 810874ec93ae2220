"""The reasoning budget, counted and forced by the engine alone, for all rows of a batch at once.

A conversation inside reasoning counts its sampled tokens. At the limit the reasoning is closed token by token: at once after
the end of a line or sentence, or else when the grace is used up. Forced tokens are flagged: they are the environment's, never in
a loss. The count lives beside the tokens, so it holds across pauses, moves and new weights.
"""

# Shapes: B conversations of a step.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .engine import ReasoningBudget

UNLIMITED = np.int64(2**40)


@dataclass(frozen=True)
class ReasoningTokens:
    """What the engine must know of a chat format: how reasoning begins and ends, and which tokens end a line."""

    closing: np.ndarray
    """The ids that are forced to end reasoning. Those before `end_id` end a line, and are left out after the end of one."""
    end_id: int
    call_id: int | None
    """A tool call ends reasoning too. None where the format has no token for it."""
    begin_id: int | None
    """The token by which the policy begins to reason; None where its prompt ends inside reasoning."""
    ends_line: np.ndarray
    """[vocabulary] bool: the tokens that end a line."""
    ends_sentence: np.ndarray
    """[vocabulary] bool: the tokens that end a sentence."""

    @property
    def closing_lead(self) -> int:
        """How many of the closing ids come before the one that ends reasoning."""
        return int(np.flatnonzero(self.closing == self.end_id)[0])


class BudgetRows:
    """The state of each conversation's budget, by its place in the engine's records."""

    def __init__(self, num_places: int) -> None:
        self.inside = np.zeros(num_places, bool)
        self.may_begin = np.zeros(num_places, bool)
        self.used = np.zeros(num_places, np.int64)
        self.limit = np.full(num_places, UNLIMITED)
        self.hard_limit = np.full(num_places, UNLIMITED)
        self.closing_at = np.full(num_places, -1)
        self.hit = np.zeros(num_places, bool)

    def begin(
        self, place: int, reasoning: bool, budget: ReasoningBudget | None, tokens: ReasoningTokens | None
    ) -> None:
        counted = reasoning and tokens is not None
        opened = tokens is None or tokens.begin_id is None
        self.may_begin[place], self.inside[place] = counted and not opened, counted and opened
        self.used[place], self.hit[place], self.closing_at[place] = 0, False, -1
        self.limit[place] = UNLIMITED if budget is None else budget.limit
        self.hard_limit[place] = UNLIMITED if budget is None else budget.limit + budget.grace

    def apply(
        self, places_B: np.ndarray, sampled_B: np.ndarray, last_B: np.ndarray, tokens: ReasoningTokens
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that are taken and which of them are forced, given the sampled ones and the last ones before."""
        inside_B, may_begin_B = self.inside[places_B], self.may_begin[places_B]
        if not (inside_B.any() or may_begin_B.any() or (self.closing_at[places_B] >= 0).any()):
            return sampled_B, np.zeros(len(places_B), bool)
        used_B, closing_B = self.used[places_B], self.closing_at[places_B]
        after_line_B = tokens.ends_line[last_B]
        pause_B = after_line_B | tokens.ends_sentence[last_B]
        over_B = (used_B >= self.limit[places_B]) & (pause_B | (used_B >= self.hard_limit[places_B]))
        due_B = inside_B & (closing_B < 0) & over_B
        closing_B[due_B] = after_line_B[due_B] * tokens.closing_lead
        self.hit[places_B] |= due_B
        forced_B = closing_B >= 0
        taken_B = np.where(forced_B, tokens.closing[closing_B], sampled_B)
        goes_on_B = inside_B & (taken_B != tokens.end_id)
        if tokens.call_id is not None:
            goes_on_B &= taken_B != tokens.call_id
        closing_B[forced_B] += 1
        closing_B[closing_B == len(tokens.closing)] = -1
        self.used[places_B] = used_B + (goes_on_B & ~forced_B)
        if tokens.begin_id is not None:
            goes_on_B |= may_begin_B & (taken_B == tokens.begin_id)
        self.inside[places_B] = goes_on_B
        self.closing_at[places_B] = closing_B
        return taken_B, forced_B
