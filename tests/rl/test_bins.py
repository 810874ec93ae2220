"""Packing of rows into bins and of bins onto ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.policies import preset
from swannery.policies.calculator import flops_per_token
from swannery.rl.bins import RowCost, balanced, best_fit


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 120), max_size=60), capacity=st.integers(1, 100))
def test_every_row_is_in_one_bin_and_no_bin_is_overfull(sizes: list[int], capacity: int) -> None:
    bins = best_fit(sizes, capacity)
    assert sorted(index for one in bins for index in one) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in one) <= capacity or len(one) == 1 for one in bins)
    assert bins == best_fit(sizes, capacity)


@settings(max_examples=60, deadline=None)
@given(costs=st.lists(st.floats(0.1, 100), max_size=50), num_ranks=st.integers(1, 9))
def test_ranks_share_everything_in_like_numbers(costs: list[float], num_ranks: int) -> None:
    ranks = balanced(costs, num_ranks)
    assert sorted(index for one in ranks for index in one) == list(range(len(costs)))
    counts = [len(one) for one in ranks]
    assert len(ranks) == num_ranks and max(counts) - min(counts) <= 1


def test_many_rows_fill_their_bins_and_ranks_are_even() -> None:
    rng, cost = np.random.default_rng(0), RowCost.of(preset("nano3"))
    lengths = np.minimum(rng.lognormal(np.log(3000), 0.9, 2048), 16_384).astype(int).tolist()
    bins = best_fit(lengths, 16_384)
    assert len(bins) <= -(-sum(lengths) // 16_384) * 1.005
    costs = [sum(cost(lengths[i]) for i in one) for one in bins]
    loads = [sum(costs[i] for i in one) for one in balanced(costs, 8)]
    assert max(loads) / np.mean(loads) <= 1.03


def test_a_row_costs_what_its_tokens_do() -> None:
    config = preset("tiny-1m")
    cost = RowCost.of(config)
    assert cost(30) == pytest.approx(sum(flops_per_token(config, place) for place in range(30)))
    assert cost(10) + cost(20, start=10) == pytest.approx(cost(30))
