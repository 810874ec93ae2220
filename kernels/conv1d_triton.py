"""conv1d.py in Triton, for packed rows: a program takes some tokens and channels of a chunk, forward and backward, and channels of a
row in the decode step. Taps never cross a chunk's row: its K - 1 inputs before it are its first ones. The backward makes the sums before
SiLU once more, K times over, out of the cache: memory is read and written once."""

# Shapes: C chunks, Q tokens of a chunk, K kernel, X = K - 1 + Q, D channels, B sequences.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_Q, BLOCK_D = 32, 64
STEP_BLOCK = 128


@triton.jit
def taps_sum(x_p, weight_p, bias_p, q, d, here, D, stride_x, K: tl.constexpr):
    """Before SiLU, of tokens q [q, 1] and channels d [1, d]."""
    total = tl.load(bias_p + d, d < D, 0.0).to(tl.float32)
    for k in tl.static_range(K):
        x = tl.load(x_p + (q + k) * stride_x + d, here, 0.0).to(tl.float32)
        total += x * tl.load(weight_p + d * K + k, d < D, 0.0).to(tl.float32)
    return total


@triton.jit
def conv_forward(
    x_p, weight_p, bias_p, y_p, Q, D, stride_c, stride_x, K: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK: tl.constexpr
):
    chunk = tl.program_id(0).to(tl.int64)
    q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)[:, None]
    d = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)[None, :]
    here = (q < Q) & (d < D)
    total = taps_sum(x_p + chunk * stride_c, weight_p, bias_p, q, d, here, D, stride_x, K)
    tl.store(y_p + (chunk * Q + q) * D + d, (total * tl.sigmoid(total)).to(y_p.dtype.element_ty), here)


@triton.jit
def conv_backward(
    x_p, weight_p, bias_p, grad_p, dx_p, dweight_p, Q, D, stride_c, stride_x,
    K: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """An input's gradient comes from the K outputs that it feeds. `dweight` [C, T, K + 1, D] holds each program's part, the bias last."""
    chunk = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)[:, None]
    lane = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    d = lane[None, :]
    x_p += chunk * stride_c
    dweight_p += (chunk * tl.num_programs(1) + tl.program_id(1)) * (K + 1) * D + lane
    dx = tl.zeros([BLOCK_Q, BLOCK], tl.float32)
    for k in tl.static_range(K):
        q = t - k
        here = (q >= 0) & (q < Q) & (d < D)
        total = taps_sum(x_p, weight_p, bias_p, q, d, here, D, stride_x, K)
        sigmoid = tl.sigmoid(total)
        grad = tl.load(grad_p + (chunk * Q + q) * D + d, here, 0.0).to(tl.float32)
        grad = grad * sigmoid * (1 + total * (1 - sigmoid))
        dx += grad * tl.load(weight_p + d * K + k, d < D, 0.0).to(tl.float32)
        if k == 0:
            for tap in tl.static_range(K):
                x = tl.load(x_p + (q + tap) * stride_x + d, here, 0.0).to(tl.float32)
                tl.store(dweight_p + tap * D, tl.sum(grad * x, 0), lane < D)
            tl.store(dweight_p + K * D, tl.sum(grad, 0), lane < D)
    here = (t < Q + K - 1) & (d < D)
    tl.store(dx_p + (chunk * (Q + K - 1) + t) * D + d, dx.to(dx_p.dtype.element_ty), here)


@triton.jit
def conv_step(x_p, weight_p, bias_p, inputs_p, y_p, D, K: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = d < D
    new = tl.load(x_p + row * D + d, here, 0.0).to(tl.float32)
    bias = tl.load(bias_p + d, here, 0.0).to(tl.float32)
    total = bias + new * tl.load(weight_p + d * K + K - 1, here, 0.0).to(tl.float32)
    for k in tl.static_range(K - 1):
        at = inputs_p + (row * (K - 1) + k) * D + d
        old = tl.load(at, here, 0.0).to(tl.float32)
        total += old * tl.load(weight_p + d * K + k, here, 0.0).to(tl.float32)
        if k > 0:  # one place nearer to the beginning
            tl.store(at - D, old.to(inputs_p.dtype.element_ty), here)
    tl.store(inputs_p + (row * (K - 1) + K - 2) * D + d, new.to(inputs_p.dtype.element_ty), here)
    tl.store(y_p + row * D + d, (total * tl.sigmoid(total)).to(y_p.dtype.element_ty), here)


_SIZES = {"Q": "i32", "D": "i32", "stride_c": "i32", "stride_x": "i32"}
_BLOCKS = {"K": 4, "BLOCK_Q": BLOCK_Q, "BLOCK": BLOCK_D, "num_warps": 8}
COMPILED = [
    case
    for kind in ("*fp32", "*bf16")
    for case in (
        (conv_forward, {**dict.fromkeys(("x_p", "weight_p", "bias_p", "y_p"), kind), **_SIZES}, _BLOCKS),
        (
            conv_backward,
            {**dict.fromkeys(("x_p", "weight_p", "bias_p", "grad_p", "dx_p"), kind), "dweight_p": "*fp32", **_SIZES},
            _BLOCKS,
        ),
        (
            conv_step,
            {**dict.fromkeys(("x_p", "weight_p", "bias_p", "inputs_p", "y_p"), kind), "D": "i32"},
            {"K": 4, "BLOCK": STEP_BLOCK},
        ),
    )
]
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""


def causal_conv1d_chunks_triton(x_CXD: Tensor, weight_DK: Tensor, bias_D: Tensor) -> Tensor:
    """`causal_conv1d_chunks`. Returns [C, Q, D]."""
    return _ConvChunks.apply(x_CXD, weight_DK, bias_D)  # type: ignore[no-any-return]


class _ConvChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        x = x if x.stride(2) == 1 else x.contiguous()
        weight, bias = weight.contiguous(), bias.contiguous()
        C, X, D = x.shape
        K = weight.shape[1]
        y = x.new_empty(C, X - K + 1, D)
        grid, blocks = _grid(C, X - K + 1, D), {"K": K, "BLOCK_Q": BLOCK_Q, "BLOCK": BLOCK_D, "num_warps": 8}
        conv_forward[grid](x, weight, bias, y, X - K + 1, D, x.stride(0), x.stride(1), **blocks)
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, weight, bias = ctx.saved_tensors
        C, X, D = x.shape
        K = weight.shape[1]
        dx, grid = torch.empty(C, X, D, dtype=x.dtype, device=x.device), _grid(C, X, D)
        dweight = torch.empty(C * grid[1], K + 1, D, dtype=torch.float32, device=x.device)
        conv_backward[grid](
            x, weight, bias, grad.contiguous(), dx, dweight, X - K + 1, D, x.stride(0), x.stride(1), K=K, BLOCK_Q=BLOCK_Q, BLOCK=BLOCK_D,
            num_warps=8,
        )  # fmt: skip
        sums = dweight.sum(0)
        return dx, sums[:K].T.to(weight.dtype), sums[K].to(bias.dtype)


def _grid(C: int, tokens: int, D: int) -> tuple[int, int, int]:
    return C, triton.cdiv(tokens, BLOCK_Q), triton.cdiv(D, BLOCK_D)


def causal_conv1d_step_triton(x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor, inputs_BXD: Tensor) -> Tensor:
    """`causal_conv1d_step`: the last K - 1 inputs are moved on in place. Returns [B, D]."""
    if not inputs_BXD.is_contiguous():
        raise ValueError("the inputs that a decode step moves on are contiguous")
    B, D = x_BD.shape
    y = torch.empty_like(x_BD, memory_format=torch.contiguous_format)
    conv_step[(B, triton.cdiv(D, STEP_BLOCK))](
        x_BD.contiguous(), weight_DK.contiguous(), bias_D.contiguous(), inputs_BXD, y, D, K=weight_DK.shape[1], BLOCK=STEP_BLOCK
    )  # fmt: skip
    return y
