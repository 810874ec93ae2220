"""RLOO (https://arxiv.org/abs/2402.14740): REINFORCE of whole rollouts with the mean of the others as baseline. No ratio, no clip: it is
for fresh rollouts. [correction] weighs those of older weights; what the updates of one step before a group's own moved stays uncorrected
(`rl.updates_per_step = 1` has none)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ..advantages import Baseline, Scale
from .bundle import GroupRelative, SummedSequences

if TYPE_CHECKING:
    from ..learner import Streams


class RLOO(GroupRelative, SummedSequences):
    """REINFORCE, leave one out."""

    name: Literal["rloo"] = "rloo"
    baseline: Baseline = "leave_one_out"
    scale: Scale = "none"

    def objective(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        return streams.advantages_T * logprobs_T
