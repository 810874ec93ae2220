"""Rewards onto one scale, so that graders of different ranges weigh alike."""

from __future__ import annotations

from math import inf


def rescaled(reward: float, low: float, high: float, to_low: float = 0.0, to_high: float = 1.0) -> float:
    """The reward's place between `low` and `high`, between `to_low` and `to_high`. What lies outside is clipped; NaN stays NaN.

    `to_low` above `to_high` turns a cost into a reward.
    """
    if not -inf < low < high < inf:
        raise ValueError(f"low must be below high, both finite; got {low} and {high}")
    share = (min(max(reward, low), high) - low) / (high - low)
    return to_low * (1 - share) + to_high * share
