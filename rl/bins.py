"""Rows into micro-batches, and micro-batches onto ranks.

Best fit, longest first: each row goes where least room is left over. Then ranks are balanced by what their rows cost: attention's share
grows with the square of a row, that of Mamba, experts and the head with its length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ..policies.calculator import flops_per_token
from ..policies.config import HybridConfig


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """The indices of each bin, so that no bin's sizes pass `capacity`; one that is larger by itself has a bin of its own. Best fit
    decreasing takes at most 11/9 of the fewest bins, and with many small rows hardly more than the fewest."""
    bins: list[list[int]] = []
    rooms: list[int] = []  # sorted: what is left in each open bin
    owners: list[int] = []  # and which that is
    for index in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        size = sizes[index]
        place = bisect_left(rooms, size)
        if place == len(rooms):
            owner, room = len(bins), max(capacity - size, 0)
            bins.append([index])
        else:
            owner, room = owners.pop(place), rooms.pop(place) - size
            bins[owner].append(index)
        if room:
            place = bisect_left(rooms, room)
            rooms.insert(place, room)
            owners.insert(place, owner)
    return bins


def balanced(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """The indices of each rank. Ranks move in step, so all get the same number within one: in rounds of one each, dearest first, the rank
    that has least so far gets the dearest of the round."""
    ranks: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0.0] * num_ranks
    order = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)
    for start in range(0, len(order), num_ranks):
        least_first = sorted(range(num_ranks), key=loads.__getitem__)
        for rank, index in zip(least_first, order[start : start + num_ranks], strict=False):
            ranks[rank].append(index)
            loads[rank] += costs[index]
    return ranks


@dataclass(frozen=True)
class RowCost:
    """FLOPs of a row's tokens by their place: what each costs, and what each key before it adds."""

    token: float
    key: float

    @staticmethod
    def of(config: HybridConfig) -> RowCost:
        near = flops_per_token(config, 0)
        return RowCost(near, flops_per_token(config, 1) - near)

    def __call__(self, length: int, start: int = 0) -> float:
        """Of `length` tokens that begin at place `start` of their path."""
        return self.token * length + self.key * (start * length + length * (length - 1) / 2)
