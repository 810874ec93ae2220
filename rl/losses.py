"""Losses of packed tokens. Each token's objective first, then one weighted mean over the whole optimizer step."""

# Shapes: T trained tokens of a micro-batch.

from __future__ import annotations

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0
"""exp() is taken of log-ratios within this bound, so that one outlier token cannot make the step infinite."""


def clipped_surrogate(
    logprobs_T: Tensor, old_logprobs_T: Tensor, advantages_T: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's pessimistic objective of each token (https://arxiv.org/abs/1707.06347), clipped apart below and above."""
    ratio_T = torch.exp((logprobs_T - old_logprobs_T).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)


def token_mean_loss(objective_T: Tensor, weights_T: Tensor, *, num_trained_tokens: float) -> Tensor:
    """Minus the weighted sum over the tokens of the whole step, so that micro-batches simply add up."""
    return -(objective_T * weights_T).sum() / num_trained_tokens
