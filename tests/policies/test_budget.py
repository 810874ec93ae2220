"""The reasoning budget by itself: what is counted, what is forced, in formats whose prompt opens reasoning and in others."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from swannery.policies import ReasoningBudget, ReasoningTokens
from swannery.policies.budget import BudgetRows

BEGIN, END, CALL, LINE, STOP = 1, 2, 3, 4, 5
ENDS_LINE, NOTHING = np.arange(10) == LINE, np.zeros(10, bool)
PROMPTED = ReasoningTokens(
    closing=np.array([LINE, END, LINE, LINE]),
    end_id=END,
    call_id=CALL,
    begin_id=None,
    ends_line=ENDS_LINE,
    ends_sentence=NOTHING,
)
SELF_OPENED = dataclasses.replace(PROMPTED, begin_id=BEGIN)


def take(tokens: ReasoningTokens, sampled: list[int], limit: int | None, **options: Any) -> tuple[str, BudgetRows]:
    """What is taken when a policy would say `sampled`, forced tokens in brackets."""
    rows, place, last, said = BudgetRows(3), np.array([1]), np.array([0]), ""
    rows.begin(1, True, None if limit is None else ReasoningBudget(limit=limit, **options), tokens)
    wanted = iter(sampled)
    for _ in range(4 * len(sampled)):
        token = next(wanted, None) if rows.closing_at[1] < 0 else 0
        if token is None:
            break
        taken, forced = rows.apply(place, np.array([token]), last, tokens)
        said += f"[{taken[0]}]" if forced[0] else str(taken[0])
        last = taken
    return said, rows


@pytest.mark.parametrize(
    ("tokens", "sampled", "limit", "grace", "said", "used"),
    [
        (PROMPTED, [6, 7, 8, 9, 6], 2, 0, "67[4][2][4][4]96", 2),
        (PROMPTED, [6, 4, 8, 9], 2, 0, "64[2][4][4]9", 2),  # a line had just ended
        (PROMPTED, [6, 7, 4, 8, 9], 2, 3, "674[2][4][4]9", 3),  # the grace waits for the line's end
        (PROMPTED, [6, 7, 8, 9, 6, 7], 2, 2, "6789[4][2][4][4]7", 4),
        (PROMPTED, [6, 2, 7, 8, 9, 9], 3, 0, "627899", 1),  # it ended by itself
        (PROMPTED, [6, 3, 7, 8, 9, 9], 3, 0, "637899", 1),  # a call ends it too
        (PROMPTED, [6, 7, 8], None, 0, "678", 3),
        (SELF_OPENED, [6, 7, 8, 9, 6], 2, 0, "67896", 0),  # it never began
        (SELF_OPENED, [1, 6, 7, 8, 9], 2, 0, "167[4][2][4][4]9", 2),
        (SELF_OPENED, [1, 6, 7, 8, 1, 8, 9], 2, 0, "167[4][2][4][4]1[4][2][4][4]9", 2),  # what is used up stays used up
    ],
)
def test_what_is_counted_and_forced(
    tokens: ReasoningTokens, sampled: list[int], limit: int | None, grace: int, said: str, used: int
) -> None:
    taken, rows = take(tokens, sampled, limit, **({"grace": grace} if limit is not None else {}))
    assert (taken, rows.used[1], rows.hit[1]) == (said, used, "[" in said)


def test_nothing_is_counted_where_reasoning_is_off_or_unknown() -> None:
    rows, place = BudgetRows(1), np.array([0])
    for reasoning, tokens in ((False, PROMPTED), (False, SELF_OPENED), (True, None)):
        rows.begin(0, reasoning, None, tokens)
        rows.apply(place, np.array([BEGIN]), np.array([0]), SELF_OPENED)
        assert not rows.used[0] and not rows.inside[0]
