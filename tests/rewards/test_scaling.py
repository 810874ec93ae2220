"""Rewards onto one scale."""

import math

import pytest

from swannery.rewards import rescaled


def test_golden_rewards_are_clipped_and_scaled() -> None:
    scaled = [rescaled(reward, -2, 2, -1, 1) for reward in (-2.8, -0.25, 1.5, 0.5, 2, 2.5)]
    assert scaled == pytest.approx([-1, -0.125, 0.75, 0.25, 1, 1])


def test_the_ends_are_exact_and_may_be_turned_around() -> None:
    assert [rescaled(reward, 0.1, 0.7, 0.1, 0.3) for reward in (-9, 0.1, 0.7, math.inf)] == [0.1, 0.1, 0.3, 0.3]
    assert [rescaled(cost, 0, 50, 1, 0) for cost in (0, 10, 60)] == pytest.approx([1, 0.8, 0])
    assert rescaled(3, 0, 4) == 0.75


def test_no_number_stays_none() -> None:
    assert math.isnan(rescaled(math.nan, 0, 1))


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, -2), (math.nan, 1), (0, math.inf)])
def test_a_range_without_width_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"low must be below high, both finite; got {low} and {high}"):
        rescaled(0.5, low, high)
