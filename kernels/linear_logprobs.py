"""Linear layer -> log-probability of the chosen token and entropy, without keeping the logits.

Rows are taken in chunks and only each row's log-sum-exp is kept; the backward makes the chunk's logits once more.
Memory is chunk x vocabulary instead of tokens x vocabulary. The temperature is each token's own.
"""

# Shapes: N tokens, d model, V vocabulary, S ids of the widest support.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def linear_logprobs_ref(
    x_Nd: Tensor, weight_Vd: Tensor, targets_N: Tensor, temperature_N: Tensor, support_NS: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log p(target) [N] and entropy [N] through the full logits. With a support (ids, -1 behind them; a row of -1 keeps all)
    the probabilities are those within it."""
    logits_NV = (x_Nd @ weight_Vd.T) / temperature_N.unsqueeze(1)
    if support_NS is not None:
        logits_NV = logits_NV.masked_fill(_dropped(support_NS, weight_Vd.shape[0]), float("-inf"))
    logprobs_NV = logits_NV.log_softmax(-1)
    entropy_N = -torch.where(logprobs_NV > float("-inf"), logprobs_NV.exp() * logprobs_NV, 0).sum(-1)
    return logprobs_NV.gather(1, targets_N.unsqueeze(1)).squeeze(1), entropy_N


def linear_logprobs(
    x_Nd: Tensor,
    weight_Vd: Tensor,
    targets_N: Tensor,
    temperature_N: Tensor,
    support_NS: Tensor | None = None,
    *,
    chunk_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    """`linear_logprobs_ref` in chunks of rows. The entropy carries no gradient: it is a metric."""
    return _LinearLogprobs.apply(x_Nd, weight_Vd, targets_N, temperature_N, support_NS, chunk_size)  # type: ignore[no-any-return]


def _dropped(support_NS: Tensor, vocab_size: int) -> Tensor:
    """[N, V]: what lies outside of each row's support."""
    dropped = torch.ones(support_NS.shape[0], vocab_size + 1, dtype=torch.bool, device=support_NS.device)
    dropped.scatter_(1, support_NS + 1, False)  # -1 goes to a column of its own
    dropped = dropped[:, 1:]
    return dropped & (support_NS >= 0).any(1, keepdim=True)


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: Tensor,
        support: Tensor | None,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy, lse = (x.new_empty(x.shape[0]) for _ in range(3))
        for start in range(0, x.shape[0], chunk_size):
            rows = slice(start, start + chunk_size)
            logits = (x[rows] @ weight.T).div_(temperature[rows].unsqueeze(1))
            dropped = None if support is None else _dropped(support[rows], weight.shape[0])
            if dropped is not None:
                logits.masked_fill_(dropped, float("-inf"))
            lse[rows] = logits.logsumexp(-1)
            logprobs[rows] = logits.gather(1, targets[rows].unsqueeze(1)).squeeze(1) - lse[rows]
            probs = (logits - lse[rows].unsqueeze(1)).exp_()
            if dropped is not None:
                logits.masked_fill_(dropped, 0.0)  # their probability is 0, and 0 * inf is no number
            entropy[rows] = lse[rows] - torch.linalg.vecdot(probs, logits)
        ctx.save_for_backward(x, weight, targets, temperature, lse, support)
        ctx.chunk_size = chunk_size
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, targets, temperature, lse, support = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight)
        for start in range(0, x.shape[0], ctx.chunk_size):
            rows = slice(start, start + ctx.chunk_size)
            probs = (x[rows] @ weight.T).div_(temperature[rows].unsqueeze(1)).sub_(lse[rows].unsqueeze(1)).exp_()
            if support is not None:
                probs.masked_fill_(_dropped(support[rows], weight.shape[0]), 0.0)
            # d logp / d logits = onehot - p, scaled by the incoming gradient and the temperature
            coefficient = grad[rows] / temperature[rows]
            probs.mul_(-coefficient.unsqueeze(1))
            probs.scatter_add_(1, targets[rows].unsqueeze(1), coefficient.unsqueeze(1))
            grad_x[rows] = probs @ weight
            grad_weight.addmm_(probs.T, x[rows])
        return grad_x, grad_weight, None, None, None, None
