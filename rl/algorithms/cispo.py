"""CISPO (MiniMax-M1, https://arxiv.org/abs/2506.13585, section 3.1): the ratio is clipped as a weight, and no token loses its gradient,
least of all the rare ones at which reasoning turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator
from torch import Tensor

from ..losses import importance_ratio
from .bundle import GroupRelative

if TYPE_CHECKING:
    from ..learner import Streams


class CISPO(GroupRelative):
    """Clipped importance-sampling weights."""

    name: Literal["cispo"] = "cispo"
    weight_low: float = Field(default=0.0, ge=0)
    weight_high: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _bounds(self) -> CISPO:
        if self.weight_low > self.weight_high:
            raise ValueError(f"weight_low ({self.weight_low}) must not be above weight_high ({self.weight_high})")
        return self

    def objective(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        ratio_T = importance_ratio(logprobs_T, streams.old_logprobs_T).detach()
        return ratio_T.clamp(self.weight_low, self.weight_high) * streams.advantages_T * logprobs_T
