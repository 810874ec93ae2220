"""The short causal depthwise convolution in front of Mamba-2's scan, with its bias and SiLU.

The chunked form reads each chunk with its K - 1 inputs before it (packing.py finds them, across chunks and parents).
"""

# Shapes: C chunks, Q tokens of a chunk, K kernel, D channels, B sequences, L tokens.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .exact import exact_silu


def causal_conv1d_ref(x_LD: Tensor, weight_DK: Tensor, bias_D: Tensor | None) -> Tensor:
    """Over one sequence from its start. Returns [L, D]."""
    K = weight_DK.shape[1]
    y = F.conv1d(F.pad(x_LD.T.unsqueeze(0), (K - 1, 0)), weight_DK.unsqueeze(1), bias_D, groups=x_LD.shape[1])
    return F.silu(y.squeeze(0).T)


def causal_conv1d_chunks(x_CXD: Tensor, weight_DK: Tensor, bias_D: Tensor, *, exact: bool = False) -> Tensor:
    """Over chunks read with their K - 1 inputs before (X = K - 1 + Q). Returns [C, Q, D]. `exact`: a chunk's bits are the same in
    whatever company (exact.py)."""
    return _ConvChunks.apply(x_CXD, weight_DK, bias_D, exact)  # type: ignore[no-any-return]


class _ConvChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:  # type: ignore[override]
        K = weight.shape[1]
        Q = x.shape[1] - K + 1
        weight_KD = weight.T.contiguous()  # a strided factor takes twice the time
        pre = torch.addcmul(bias, x[:, :Q], weight_KD[0])
        for k in range(1, K):
            pre.addcmul_(x[:, k : k + Q], weight_KD[k])
        ctx.save_for_backward(x, weight_KD, pre)
        return exact_silu(pre) if exact else F.silu(pre)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight_KD, pre = ctx.saved_tensors
        K, Q = len(weight_KD), pre.shape[1]
        grad = torch.ops.aten.silu_backward(grad.contiguous(), pre)
        grad_x = torch.zeros_like(x)
        for k in range(K):
            grad_x[:, k : k + Q].addcmul_(grad, weight_KD[k])
        ones, product = grad.new_ones(grad[..., 0].numel()), torch.empty_like(grad)
        sums = lambda t: ones @ t.view(-1, t.shape[-1])  # noqa: E731
        grad_weight = torch.stack([sums(torch.mul(grad, x[:, k : k + Q], out=product)) for k in range(K)], dim=1)
        return grad_x, grad_weight, sums(grad), None


def causal_conv1d_step(x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, inputs_BXD: Tensor) -> Tensor:
    """One token for each of B sequences; the last K - 1 inputs are moved on in place. Returns [B, D]."""
    X = inputs_BXD.shape[1]
    y = x_BD * weight_DK[:, X]
    for k in range(X):
        y.addcmul_(inputs_BXD[:, k], weight_DK[:, k])
    for k in range(X - 1):
        inputs_BXD[:, k] = inputs_BXD[:, k + 1]
    inputs_BXD[:, X - 1] = x_BD
    return F.silu(y if bias_D is None else y.add_(bias_D), inplace=True)
