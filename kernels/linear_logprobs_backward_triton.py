"""The gradient of linear_logprobs_triton.py. The vocabulary goes by in slices:

    slopes [N, U] of a slice's logits -> dx += slopes W, dW of the slice = slopes^T x

A row's gradient has d numbers, too many for a program's registers, and programs that each held a part of them would all make
the probabilities anew. So a slice's slopes wait in memory, in the type of the products and about as many as x has numbers, and
the logits are made once more in all. dx is added up in fp32, slice after slice; each number of dW is one sum in registers,
written once. No number is added to by two programs at a time: two runs give the same bits.
"""

# Shapes: N tokens, d model (D in kernels), V vocabulary, U entries of a slice of it. A product is [M, K] by [K, D].

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .linear_logprobs_triton import BOTH, Blocks, logits_tile, place_of_program

NARROWEST = 1 << 12
"""Entries of a slice at least: dx is read and written once for each slice, which must cost little beside its product."""
HELD = 1 << 26
"""Numbers of the slopes, where so wide a slice is wider than that: few rows take few slices."""


@triton.jit
def head_slopes(
    x_p, weight_p, target_p, temperature_p, lse_p, grad_p, slope_p, N, D, V, first, U, x_row, weight_row,
    DOT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Of the loss along the logits before the temperature: grad / temperature (onehot - p), [N, U] from entry `first` on."""
    block, part = place_of_program(tl.cdiv(N, BLOCK_N), tl.cdiv(U, BLOCK_V), GROUP)
    n, u = block * BLOCK_N + tl.arange(0, BLOCK_N), part * BLOCK_V + tl.arange(0, BLOCK_V)
    v = first + u
    here_n, here_u = n < N, (u < U) & (v < V)
    target = tl.load(target_p + n, here_n, -1).to(tl.int32)
    temperature = tl.load(temperature_p + n, here_n, 1.0).to(tl.float32)
    x_at = x_p + n.to(tl.int64)[:, None] * x_row
    weight_at = weight_p + v.to(tl.int64)[None, :] * weight_row
    logits = logits_tile(x_at, weight_at, here_n, here_u, temperature, D, DOT, BLOCK_N, BLOCK_V, BLOCK_D)
    probs = tl.exp(logits - tl.load(lse_p + n, here_n, 0.0)[:, None])
    scale = tl.load(grad_p + n, here_n, 0.0).to(tl.float32) / temperature
    slopes = scale[:, None] * (tl.where(v[None, :] == target[:, None], 1.0, 0.0) - probs)
    slope_at = slope_p + n.to(tl.int64)[:, None] * U + u[None, :]
    tl.store(slope_at, slopes.to(slope_p.dtype.element_ty), here_n[:, None] & here_u[None, :])


@triton.jit
def slopes_product(
    left_p, right_p, out_p, M, K, D, left_row, right_row, out_row, TURNED: tl.constexpr, ADD: tl.constexpr,
    DOT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """left [M, K], or [K, M] where it is TURNED, by right [K, D]; ADD: to what is there."""
    block, column = place_of_program(tl.cdiv(M, BLOCK_M), tl.cdiv(D, BLOCK_D), GROUP)
    m, d = block * BLOCK_M + tl.arange(0, BLOCK_M), column * BLOCK_D + tl.arange(0, BLOCK_D)
    here_m, here_d = m < M, d < D
    here, out_at = here_m[:, None] & here_d[None, :], out_p + m.to(tl.int64)[:, None] * out_row + d[None, :]
    if ADD:
        total = tl.load(out_at, here, 0.0)
    else:
        total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        here_k, far = k < K, k.to(tl.int64)
        if TURNED:
            left_at = left_p + far[:, None] * left_row + m[None, :]
            left = tl.trans(tl.load(left_at, here_k[:, None] & here_m[None, :], 0.0))
        else:
            left_at = left_p + m.to(tl.int64)[:, None] * left_row + k[None, :]
            left = tl.load(left_at, here_m[:, None] & here_k[None, :], 0.0)
        right_at = right_p + far[:, None] * right_row + d[None, :]
        right = tl.load(right_at, here_k[:, None] & here_d[None, :], 0.0).to(DOT)
        total = tl.dot(left.to(DOT), right, total, input_precision="ieee")
    tl.store(out_at, total.to(out_p.dtype.element_ty), here)


def head_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: Tensor,
    lse: Tensor,
    wants_x: bool = True,
    wants_weight: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and of the weights, those that are wanted."""
    (N, D), V, cut = x.shape, len(weight), Blocks.of(x, weight)
    U = min(triton.cdiv(max(NARROWEST, HELD // max(N, 1)), cut.V), triton.cdiv(V, cut.V)) * cut.V
    slopes = torch.empty(N, U, dtype=torch.bfloat16 if cut.DOT is tl.bfloat16 else torch.float32, device=x.device)
    dx = torch.empty(N, D, dtype=torch.float32, device=x.device) if wants_x else None
    dweight = torch.empty(V, D, dtype=weight.dtype, device=x.device) if wants_weight else None
    grad, blocks = grad.contiguous(), _product_blocks(cut)
    for first in range(0, V, U):
        part = weight[first : first + U]
        head_slopes[(triton.cdiv(N, cut.N) * triton.cdiv(len(part), cut.V),)](
            x, weight, targets, temperature, lse, grad, slopes, N, D, V, first, U, x.stride(0), weight.stride(0),
            **cut.constants(),
        )  # fmt: skip
        if dx is not None:
            slopes_product[(triton.cdiv(N, cut.N) * triton.cdiv(D, cut.V),)](
                slopes, part, dx, N, len(part), D, U, weight.stride(0), D, TURNED=False, ADD=first > 0, **blocks
            )
        if dweight is not None:
            slopes_product[(triton.cdiv(len(part), cut.N) * triton.cdiv(D, cut.V),)](
                slopes, x, dweight[first:], len(part), N, D, U, x.stride(0), D, TURNED=True, ADD=False, **blocks
            )
    return None if dx is None else dx.to(x.dtype), dweight


def _product_blocks(cut: Blocks) -> dict[str, Any]:
    return {"BLOCK_M": cut.N, "BLOCK_K": cut.D, "BLOCK_D": cut.V, **cut.launch()}


_SIZES = dict.fromkeys(("N", "D", "V", "first", "U", "x_row", "weight_row"), "i32")
_PRODUCT = dict.fromkeys(("M", "K", "D", "left_row", "right_row", "out_row"), "i32")
COMPILED = [
    case
    for kind, cut in BOTH
    for case in (
        (
            head_slopes,
            {**dict.fromkeys(("x_p", "weight_p", "slope_p"), kind), "target_p": "*i64", **_SIZES,
             **dict.fromkeys(("temperature_p", "lse_p", "grad_p"), "*fp32")},
            cut.constants(),
        ),
        (
            slopes_product,
            {"left_p": kind, "right_p": kind, "out_p": "*fp32", **_PRODUCT},
            {"TURNED": False, "ADD": True, **_product_blocks(cut)},
        ),
        (
            slopes_product,
            {"left_p": kind, "right_p": kind, "out_p": kind, **_PRODUCT},
            {"TURNED": True, "ADD": False, **_product_blocks(cut)},
        ),
    )
]  # fmt: skip
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""
