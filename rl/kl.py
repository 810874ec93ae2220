"""The divergence from a reference policy: one estimator for its value, one for its gradient.

    k1 = d,  k2 = d^2 / 2,  k3 = exp(-d) - 1 + d        d = log pi - log pi_ref

All three have the divergence as their mean under pi (k2 nearly), and differ in variance (http://joschu.net/blog/kl-approx.html). As
losses they differ more: the gradient of k1's value is zero in the mean, that of k3's is one of the reverse divergence, and k2's is right
on-policy. `score` takes k1 as a cost of the policy gradient, which is right off-policy too with its ratio
(https://arxiv.org/abs/2506.09477).
"""

# Shapes: T trained tokens.

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from .losses import MAX_LOG_RATIO, importance_ratio
from .section import Section

Estimator = Literal["k1", "k2", "k3"]


class KLPenalty(Section):
    """What drawing away from the policy that reinforcement began with costs."""

    coefficient: float = Field(default=0.0, ge=0)
    value: Estimator = "k3"
    """What metrics and the loss's value show."""
    gradient: Literal["k1", "k2", "k3", "score"] = "k2"

    def penalty(self, logprobs_T: Tensor, old_logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
        """Of each token: its value is one estimator's, its gradient another's."""
        value_T = kl_estimate(logprobs_T, reference_logprobs_T, self.value).detach()
        if self.gradient == "score":
            cost_T = kl_estimate(logprobs_T, reference_logprobs_T, "k1").detach()
            pull_T = importance_ratio(logprobs_T, old_logprobs_T) * cost_T
        else:
            pull_T = kl_estimate(logprobs_T, reference_logprobs_T, self.gradient)
        return value_T + (pull_T - pull_T.detach())


def kl_estimate(logprobs_T: Tensor, reference_logprobs_T: Tensor, estimator: Estimator) -> Tensor:
    """Each token's contribution to KL(pi || reference)."""
    difference_T = (logprobs_T - reference_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        return difference_T
    if estimator == "k2":
        return difference_T.square() / 2
    return torch.expm1(-difference_T) + difference_T
