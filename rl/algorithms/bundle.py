"""What an algorithm is: two hooks over one loss that knows none of them.

    score      the groups of a step  -> samples with advantages and weights
    objective  log-probabilities     -> what each token is to have more of

The loss is the same for all: minus the weighted sum of objectives over the step's mass, importance corrections and a divergence from the
reference included (learner.py). An algorithm is a section of the configuration: its settings are its fields.
"""

# Shapes: T trained tokens of a micro-batch.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from ..advantages import Baseline, Scale, relative
from ..batch import Sample
from ..losses import clipped_surrogate
from ..scoring import Average, informative, samples_of, shaped
from ..section import Section
from ..shaping import UNSHAPED, Shaping
from ..trajectory import Group

if TYPE_CHECKING:
    from ..learner import Streams


class Algorithm(Section):
    """The hooks, as group-relative algorithms with one advantage a rollout have them."""

    @property
    def label(self) -> str:
        return str(type(self).model_fields["name"].default)

    def score(self, groups: Sequence[Group], shaping: Shaping = UNSHAPED, limit: int = 0) -> list[list[Sample]]:
        """The samples of each group that says something. `limit` is the most tokens of a completion."""
        found = []
        for group in groups:
            if self.learns_from(group):
                found.append(self.score_group(group, shaped(group, shaping, limit), shaping.overlong_filter))
        return [samples for samples in found if samples]

    def learns_from(self, group: Group) -> bool:
        """Whether a group says something."""
        return informative(group)

    def score_group(self, group: Group, rewards_G: np.ndarray, overlong_filter: bool) -> list[Sample]:
        advantages_G = self.advantages(rewards_G)
        return samples_of(group, advantages_G, self.averaged, constant=self.constant, overlong_filter=overlong_filter)

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def objective(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        """What each token is to have more of [T]."""
        raise NotImplementedError

    @property
    def averaged(self) -> Average:
        """What the loss is a mean over."""
        return "token"

    @property
    def constant(self) -> float:
        """What a sequence's sum is divided by, where it is no mean."""
        return 1.0


class GroupRelative(Algorithm):
    """Rewards against those of the same prompt."""

    baseline: Baseline = "mean"
    scale: Scale = "group"
    """What advantages are divided by."""

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        return relative(rewards_G, self.baseline, self.scale)


class SummedSequences(Algorithm):
    """The loss is a mean over sequences of their sums over a constant: long ones weigh more, and no tensor's width moves the scale."""

    max_tokens: float = Field(default=64.0, gt=0)
    """The constant: about the tokens of a rollout, so that one learning rate suits all algorithms."""

    @property
    def averaged(self) -> Average:
        return "constant"

    @property
    def constant(self) -> float:
        return self.max_tokens


class Clipped(Algorithm):
    """With PPO's clipped ratios of tokens."""

    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.28, gt=0)
    dual_clip: float = Field(default=0.0, ge=0)
    """The most that a ratio counts where the advantage is negative, above 1; 0: without bound."""

    @model_validator(mode="after")
    def _dual_clip_above_one(self) -> Clipped:
        if 0 < self.dual_clip <= 1:
            raise ValueError(
                f"dual_clip bounds ratios above 1: 0 for none, or more than 1; got {self.dual_clip} (within 1 no token of a negative "
                f"advantage would have a gradient)"
            )
        return self

    def objective(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        return clipped_surrogate(
            logprobs_T,
            streams.old_logprobs_T,
            streams.advantages_T,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
