"""RLOO (https://arxiv.org/abs/2402.14740): REINFORCE of whole rollouts with the mean of the others as baseline. No ratio, no clip: it is
for one update on fresh rollouts; with more, or with rollouts of older weights, [correction] weights them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor

from ..advantages import Baseline, Scale
from ..scoring import Average
from .bundle import GroupRelative

if TYPE_CHECKING:
    from ..learner import Streams


class RLOO(GroupRelative):
    """REINFORCE, leave one out."""

    name: Literal["rloo"] = "rloo"
    baseline: Baseline = "leave_one_out"
    scale: Scale = "none"
    max_tokens: float = Field(default=64.0, gt=0)
    """A rollout's sum over its tokens is divided by this, about their number, so that one learning rate suits all algorithms."""

    @property
    def averaged(self) -> Average:
        return "constant"

    @property
    def constant(self) -> float:
        return self.max_tokens

    def objective(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        return streams.advantages_T * logprobs_T
