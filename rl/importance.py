"""Importance corrections: where the sampling policy is not the one that the loss is of, tokens are weighted by how far apart they are.

    weight = pi_old / pi_rollout

`truncate` bounds the weight from above (TIS, https://fengyao.notion.site/off-policy-rl), `mask` leaves out what is outside of bounds
(IcePop, https://arxiv.org/abs/2510.18855). The unit that is judged is a token, or a whole sequence by the product, the geometric mean
or the outermost of its ratios (https://arxiv.org/abs/2507.18071, section 4 for the geometric mean).
"""

# Shapes: T trained tokens, S sequences (branches of rollouts).

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from .losses import MAX_LOG_RATIO
from .section import Section

Unit = Literal["token", "sequence", "geometric", "outermost"]


class Correction(Section):
    """How tokens are weighted whose sampler differs from the learner's policy."""

    kind: Literal["off", "truncate", "mask"] = "off"
    unit: Unit = "token"
    low: float = Field(default=0.5, ge=0)
    """Of what is kept by `mask`."""
    high: float = Field(default=2.0, gt=0)
    max_error: float = Field(default=0.0, ge=0)
    """Sequences whose mean of exp(|difference of log-probabilities|) is above this are left out; 0: none. Nano's RL took 2."""

    @model_validator(mode="after")
    def _bounds(self) -> Correction:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not be above high ({self.high})")
        if 0 < self.max_error <= 1:
            raise ValueError(f"max_error is a mean of ratios above 1: 0 for none, or more than 1; got {self.max_error}")
        return self

    @torch.no_grad()
    def weights(self, old_logprobs_T: Tensor, rollout_logprobs_T: Tensor, sequence_T: Tensor) -> Tensor:
        """Of each token; 0 where it is left out."""
        log_ratio_T = (old_logprobs_T - rollout_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        weight_T = torch.ones_like(log_ratio_T)
        if self.kind != "off":
            judged_T = judged(log_ratio_T, sequence_T, self.unit).exp()
            if self.kind == "truncate":
                weight_T = judged_T.clamp(max=self.high)
            else:
                kept_T = (judged_T >= self.low) & (judged_T <= self.high)
                weight_T = torch.where(kept_T, log_ratio_T.exp(), 0.0)
        if self.max_error:
            error_T = sequence_mean(log_ratio_T.abs().exp(), sequence_T)
            weight_T = torch.where(error_T <= self.max_error, weight_T, 0.0)
        return weight_T


def judged(log_ratio_T: Tensor, sequence_T: Tensor, unit: Unit) -> Tensor:
    """Each token's log-ratio, or that of its sequence."""
    if unit == "token":
        return log_ratio_T
    if unit == "geometric":
        return sequence_mean(log_ratio_T, sequence_T)
    if unit == "sequence":
        return sequence_sum(log_ratio_T, sequence_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)[sequence_T]
    count = int(sequence_T.max()) + 1 if len(sequence_T) else 0
    furthest_S = log_ratio_T.new_zeros(count).scatter_reduce(0, sequence_T, log_ratio_T.abs(), "amax")
    largest_S = log_ratio_T.new_full((count,), -MAX_LOG_RATIO).scatter_reduce(0, sequence_T, log_ratio_T, "amax")
    return torch.where(largest_S >= furthest_S, furthest_S, -furthest_S)[sequence_T]


def sequence_sum(values_T: Tensor, sequence_T: Tensor) -> Tensor:
    """[S]."""
    count = int(sequence_T.max()) + 1 if len(sequence_T) else 0
    return values_T.new_zeros(count).index_add(0, sequence_T, values_T)


def sequence_mean(values_T: Tensor, sequence_T: Tensor) -> Tensor:
    """The mean over each token's sequence, at each token [T]."""
    counts_S = sequence_sum(torch.ones_like(values_T), sequence_T).clamp(min=1)
    return (sequence_sum(values_T, sequence_T) / counts_S)[sequence_T]
