"""The short causal depthwise convolution in front of Mamba-2's scan, with its bias and SiLU.

The chunked form reads each chunk with its K - 1 inputs before it (packing.py finds them, across chunks and parents).
"""

# Shapes: C chunks, Q tokens of a chunk, K kernel, D channels, B sequences, L tokens.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import external
from .backend import needs_gradient, uses_external, uses_triton
from .blocks import blocks
from .exact import exact_silu


def causal_conv1d_ref(x_LD: Tensor, weight_DK: Tensor, bias_D: Tensor | None) -> Tensor:
    """Over one sequence from its start. Returns [L, D]."""
    K = weight_DK.shape[1]
    y = F.conv1d(F.pad(x_LD.T.unsqueeze(0), (K - 1, 0)), weight_DK.unsqueeze(1), bias_D, groups=x_LD.shape[1])
    return F.silu(y.squeeze(0).T)


def causal_conv1d_chunks(x_CXD: Tensor, weight_DK: Tensor, bias_D: Tensor, *, exact: bool = False) -> Tensor:
    """Over chunks read with their K - 1 inputs before (X = K - 1 + Q). Returns [C, Q, D]. `exact`: a chunk's bits are the same in
    whatever company (exact.py)."""
    if not exact and uses_external("causal_conv1d_chunks", x_CXD):
        return external.causal_conv1d_chunks(x_CXD, weight_DK, bias_D)
    if not exact and uses_triton(x_CXD, weight_DK, bias_D):
        from .conv1d_triton import causal_conv1d_chunks_triton

        return causal_conv1d_chunks_triton(x_CXD, weight_DK, bias_D)
    return _ConvChunks.apply(x_CXD, weight_DK, bias_D, exact)  # type: ignore[no-any-return]


class _ConvChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:  # type: ignore[override]
        C, X, D = x.shape
        K = weight.shape[1]
        Q = X - K + 1
        weight_KD = weight.T.contiguous()  # a strided factor takes twice the time
        pre, y = x.new_empty(C, Q, D), x.new_empty(C, Q, D)
        for block in blocks(x, X * D, share=2):
            part, sums = x[block], pre[block]
            torch.addcmul(bias, part[:, :Q], weight_KD[0], out=sums)
            for k in range(1, K):
                sums.addcmul_(part[:, k : k + Q], weight_KD[k])
            if exact:
                y[block] = exact_silu(sums)
            else:
                torch.ops.aten.silu.out(sums, out=y[block])
        ctx.save_for_backward(x, weight_KD, pre)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight_KD, pre = ctx.saved_tensors
        K, Q, D = len(weight_KD), pre.shape[1], x.shape[2]
        grad_x, sums_KD = torch.empty_like(x), x.new_zeros(K + 1, D)
        for block in blocks(x, x.shape[1] * D, share=2):
            part, grad_part = x[block], torch.ops.aten.silu_backward(grad[block].contiguous(), pre[block])
            grad_in, ones, product = grad_x[block].zero_(), part.new_ones(1, len(part) * Q), torch.empty_like(grad_part)
            for k in range(K):
                grad_in[:, k : k + Q].addcmul_(grad_part, weight_KD[k])
                torch.mul(grad_part, part[:, k : k + Q], out=product)
                sums_KD[k : k + 1].addmm_(ones, product.view(-1, D))
            sums_KD[K:].addmm_(ones, grad_part.view(-1, D))
        return grad_x, sums_KD[:K].T, sums_KD[K], None


def causal_conv1d_step(x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, inputs_BXD: Tensor) -> Tensor:
    """One token for each of B sequences; the last K - 1 inputs are moved on in place. Returns [B, D]."""
    X = inputs_BXD.shape[1]
    if (
        bias_D is not None
        and X
        and inputs_BXD.is_contiguous()
        and not needs_gradient(x_BD, weight_DK, bias_D, inputs_BXD)
    ):
        if uses_external("causal_conv1d_step", x_BD):
            return external.causal_conv1d_step(x_BD, weight_DK, bias_D, inputs_BXD)
        if uses_triton(x_BD, weight_DK, bias_D):
            from .conv1d_triton import causal_conv1d_step_triton

            return causal_conv1d_step_triton(x_BD, weight_DK, bias_D, inputs_BXD)
    y = x_BD * weight_DK[:, X]
    for k in range(X):
        y.addcmul_(inputs_BXD[:, k], weight_DK[:, k])
    for k in range(X - 1):
        inputs_BXD[:, k] = inputs_BXD[:, k + 1]
    if X:
        inputs_BXD[:, X - 1] = x_BD
    return F.silu(y if bias_D is None else y.add_(bias_D), inplace=True)
