"""Scoring: from a group's rewards to samples with advantages. The group is the unit; a fault is never a number in it."""

from __future__ import annotations

import numpy as np

from .advantages import leave_one_out
from .batch import Sample
from .trajectory import Group


def score_group(group: Group) -> list[Sample]:
    """Samples with leave-one-out advantages. Empty where fewer than two rollouts are left or all rewards agree."""
    if len(group.rollouts) < 2:
        return []
    advantages = leave_one_out(group.rewards)
    if float(np.abs(advantages).max()) < 1e-9:
        return []
    return [
        Sample(branch, float(advantage))
        for branches, advantage in zip(group.rollouts, advantages, strict=True)
        for branch in branches
        if branch.num_sampled
    ]
