"""Losses of packed tokens. Each token's objective first, then one weighted sum over the whole optimizer step's denominator."""

# Shapes: T trained tokens of a micro-batch.

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""exp() is taken of log-ratios within this bound, so that one outlier token cannot make the step infinite."""


def importance_ratio(logprobs_T: Tensor, old_logprobs_T: Tensor) -> Tensor:
    return torch.exp((logprobs_T - old_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def clipped_surrogate(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
) -> Tensor:
    """PPO's pessimistic objective of each token (https://arxiv.org/abs/1707.06347), clipped apart below and above.

    `dual_clip` c > 1 bounds it by c A where A < 0 (https://arxiv.org/abs/1912.09729), so that a token that became much more likely
    does not dominate; 0 leaves that out.
    """
    return clip_objective(importance_ratio(logprobs_T, old_logprobs_T), advantages_T, clip_low, clip_high, dual_clip)


def clip_objective(
    ratio_T: Tensor, advantages_T: Tensor, clip_low: float, clip_high: float, dual_clip: float = 0.0
) -> Tensor:
    """`clipped_surrogate` of given ratios."""
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    objective_T = torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
    if dual_clip:
        bounded_T = torch.maximum(objective_T, dual_clip * advantages_T)
        objective_T = torch.where(advantages_T < 0, bounded_T, objective_T)
    return objective_T


def token_mean_loss(objective_T: Tensor, weights_T: Tensor, *, num_trained_tokens: float) -> Tensor:
    """Minus the weighted sum over the denominator of the whole step, so that micro-batches simply add up."""
    return -(objective_T * weights_T).sum() / num_trained_tokens
