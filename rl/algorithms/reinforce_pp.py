"""REINFORCE++ (https://arxiv.org/abs/2501.03262): tokens' discounted rewards, whitened over the whole step instead of a prompt's few
rollouts, in PPO's clipped objective without a critic. With `baseline = "mean"` the group's mean goes first, the paper's variant for
verifiable rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from ..advantages import Baseline, Scale, discounted, relative, whiten
from ..batch import Sample
from ..scoring import samples_of, shaped
from ..shaping import UNSHAPED, Shaping
from ..trajectory import Group
from .bundle import Clipped, GroupRelative


class ReinforcePP(GroupRelative, Clipped):
    """REINFORCE with whitened returns."""

    name: Literal["reinforce_pp"] = "reinforce_pp"
    baseline: Baseline = "none"
    scale: Scale = "none"
    gamma: float = Field(default=1.0, gt=0, le=1)

    def score(self, groups: Sequence[Group], shaping: Shaping = UNSHAPED, limit: int = 0) -> list[list[Sample]]:
        """Groups that agree are of use too: they differ from the step's others."""
        scored = []
        for group in groups:
            if group.rollouts and (self.baseline != "leave_one_out" or len(group.rollouts) > 1):
                rewards_G = relative(shaped(group, shaping, limit), self.baseline, self.scale)
                samples = samples_of(group, rewards_G, self.averaged, overlong_filter=shaping.overlong_filter)
                scored.append([sample.with_advantage(self._returns(sample)) for sample in samples])
        flat = [sample for samples in scored for sample in samples]
        if not flat:
            return []
        returns = [np.asarray(sample.advantage) for sample in flat]
        weights = np.concatenate([np.full(len(r), s.weight) for r, s in zip(returns, flat, strict=True)])
        whitened = np.split(whiten(np.concatenate(returns), weights), np.cumsum([len(r) for r in returns])[:-1])
        if all(not part.any() for part in whitened):
            return []
        values = iter(whitened)
        return [[sample.with_advantage(next(values)) for sample in samples] for samples in scored if samples]

    def _returns(self, sample: Sample) -> np.ndarray:
        """The reward comes with the rollout's last token."""
        rewards_T = np.zeros(sample.trajectory.num_sampled)
        rewards_T[-1] = float(sample.advantage)  # type: ignore[arg-type]
        return discounted(rewards_T, self.gamma)
