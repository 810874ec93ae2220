"""GRPO (https://arxiv.org/abs/2402.03300), as Nemotron 3 runs it by default here: a baseline of the others, one mean over all tokens.

[algorithm]                      name = "grpo"                        the quickstart: advantages are not divided
[algorithm] scale = "leave_one_out"  and  [correction] kind = "mask"  Nemotron 3 Nano (https://arxiv.org/abs/2512.20848, section 3.2)
[algorithm] baseline = "mean", scale = "group", average = "sequence"  the paper's
"""

# Shapes: G rollouts of a group, K turns of the longest.

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import model_validator

from ..advantages import Baseline, Scale, relative, relative_apart, whiten
from ..batch import Sample
from ..scoring import Average, named_rewards, rewards_to_go, samples_of
from ..shaping import UNSHAPED, Shaping
from ..trajectory import Group
from .bundle import Clipped, GroupRelative


class GRPO(GroupRelative, Clipped):
    """Group-relative policy optimization."""

    name: Literal["grpo"] = "grpo"
    baseline: Baseline = "leave_one_out"
    scale: Scale = "none"
    average: Average = "token"
    credit: Literal["episode", "turn"] = "episode"
    """`turn`: a turn's tokens get the rewards from it on, against those of the other rollouts from their turn of that number on."""
    rewards: Literal["summed", "apart"] = "summed"
    """`apart`: each named reward is relative on its own, and sums are whitened over the step (GDPO, advantages.py)."""

    @model_validator(mode="after")
    def _rewards_apart(self) -> GRPO:
        if self.rewards == "apart" and self.scale == "none":
            raise ValueError(
                'rewards = "apart" wants a scale, as scale = "group": undivided, the parts\' advantages add up to the sum\'s'
            )
        if self.rewards == "apart" and self.credit == "turn":
            raise ValueError(
                'rewards = "apart" tells the parts of an episode\'s reward apart, credit = "turn" its turns: choose one'
            )
        return self

    @property
    def averaged(self) -> Average:
        return self.average

    def learns_from(self, group: Group) -> bool:
        """Apart, rewards of one sum may still differ in their parts."""
        if self.rewards == "apart" and len(group.rollouts) >= 2:
            return bool((np.ptp(named_rewards(group), axis=0) > 1e-9).any())
        return super().learns_from(group)

    def score(self, groups: Sequence[Group], shaping: Shaping = UNSHAPED, limit: int = 0) -> list[list[Sample]]:
        scored = super().score(groups, shaping, limit)
        if self.rewards == "apart" and scored:
            flat = [sample for samples in scored for sample in samples]
            masses = np.array([sample.mass for sample in flat])
            values = iter(whiten(np.array([sample.advantage for sample in flat]), masses))
            return [[sample.with_advantage(float(next(values))) for sample in samples] for samples in scored]
        return scored

    def score_group(self, group: Group, rewards_G: np.ndarray, overlong_filter: bool) -> list[Sample]:
        if self.credit == "turn":
            shaping_G1 = (rewards_G - group.rewards)[:, None]  # lengths are the whole rollout's
            to_go_GK = rewards_to_go(group) + shaping_G1
            rows = np.stack([relative(column_G, self.baseline, self.scale) for column_G in to_go_GK.T], axis=1)
            return samples_of(group, rows, self.average, by_turn=True, overlong_filter=overlong_filter)
        if self.rewards == "apart":
            parts_GR = np.column_stack([named_rewards(group), rewards_G - group.rewards])
            advantages_G = relative_apart(parts_GR, self.baseline, self.scale)
            return samples_of(group, advantages_G, self.average, overlong_filter=overlong_filter)
        return super().score_group(group, rewards_G, overlong_filter)
