"""GSPO (https://arxiv.org/abs/2507.18071): the ratio is the sequence's, the geometric mean of its tokens', and is clipped as one. The
reward is a sequence's, and so is its correction; with experts, tokens' own ratios are noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor

from ..importance import sequence_mean
from ..losses import MAX_LOG_RATIO, clip_objective
from ..scoring import Average
from .bundle import GroupRelative

if TYPE_CHECKING:
    from ..learner import Streams


class GSPO(GroupRelative):
    """Group sequence policy optimization."""

    name: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, gt=0, lt=1)
    """Sequence ratios stay much nearer to 1 than tokens' do."""
    clip_high: float = Field(default=4e-4, gt=0)

    @property
    def averaged(self) -> Average:
        return "sequence"

    def objective(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        log_ratio_T = (logprobs_T - streams.old_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        ratio_T = sequence_mean(log_ratio_T, streams.sequence_T).exp()
        return clip_objective(ratio_T, streams.advantages_T, self.clip_low, self.clip_high)
