"""ssd.py in Triton: the scan over chunks (its kernels are in ssd_chunks_triton.py and ssd_chunks_backward_triton.py), and the decode
step, whose programs take a head of a row each, read its state once and write it once."""

# Shapes: B sequences, C chunks, Q tokens of a chunk, H heads, P head size, G groups, N state size, S segments.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .ssd_chunks_backward_triton import scan_backward
from .ssd_chunks_triton import decays_of, inner_contiguous, parents_of, scan_forward


@triton.jit
def ssd_step_kernel(
    x_p, dt_p, decay_p, b_p, c_p, state_p, y_p, H, R, P, N, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    p, n = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    here_p, here_n = p < P, n < N
    here = here_p[:, None] & here_n[None, :]
    head_at = row * H + head
    group_at = (row * (H // R) + head // R) * N + n
    dt = tl.load(dt_p + head_at).to(tl.float32)
    keep = tl.exp(dt * tl.load(decay_p + head).to(tl.float32))
    x = tl.load(x_p + head_at * P + p, here_p, 0.0).to(tl.float32) * dt
    b = tl.load(b_p + group_at, here_n, 0.0).to(tl.float32)
    c = tl.load(c_p + group_at, here_n, 0.0).to(tl.float32)
    at = head_at * P * N + p[:, None] * N + n[None, :]
    state = tl.load(state_p + at, here, 0.0) * keep + x[:, None] * b[None, :]
    tl.store(state_p + at, state, here)
    tl.store(y_p + head_at * P + p, tl.sum(state * c[None, :], 1).to(y_p.dtype.element_ty), here_p)


COMPILED = [
    (
        ssd_step_kernel,
        {**dict.fromkeys(("x_p", "b_p", "c_p", "y_p"), kind), **dict.fromkeys(("dt_p", "decay_p", "state_p"), "*fp32"),
         "H": "i32", "R": "i32", "P": "i32", "N": "i32"},
        {"BLOCK_P": 64, "BLOCK_N": 128},
    )
    for kind in ("*bf16", "*fp32")
]  # fmt: skip
"""Signatures and constants, by which it is compiled ahead of time in a test."""


def ssd_step_triton(
    x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor
) -> Tensor:
    """`ssd_step`: one token for each of B sequences; the fp32 state is updated in place. Returns y [B, H, P]."""
    batch, H, P = x_BHP.shape
    G, N = B_BGN.shape[1:]
    if not state_BHPN.is_contiguous() or state_BHPN.dtype is not torch.float32:
        raise ValueError("the state of a decode step is contiguous and fp32")
    y = torch.empty_like(x_BHP, memory_format=torch.contiguous_format)
    inputs = (t.contiguous() for t in (x_BHP, dt_BH, A_H, B_BGN, C_BGN))
    ssd_step_kernel[(batch, H)](
        *inputs, state_BHPN, y, H, H // G, P, N, BLOCK_P=triton.next_power_of_2(P), BLOCK_N=triton.next_power_of_2(N)
    )
    return y


def ssd_chunks_triton(
    x_CQHP: Tensor,
    dt_CQH: Tensor,
    A_H: Tensor,
    B_CQGN: Tensor,
    C_CQGN: Tensor,
    levels: Sequence[Tensor],
    initial_SHPN: Tensor | None = None,
    last_S: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`ssd_chunks`. Returns y [C, Q, H, P] in x's type and the fp32 states [S, H, P, N] after the chunks `last_S`, without gradient."""
    return _Scan.apply(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, tuple(levels), initial_SHPN, last_S)  # type: ignore[no-any-return]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        levels: tuple[Tensor, ...],
        initial: Tensor | None,
        last: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        x, B, C = (inner_contiguous(t) for t in (x, B, C))
        dt, A, parents = dt.contiguous(), A.contiguous(), parents_of(levels, initial is not None)
        if initial is not None:
            initial = initial.to(torch.float32).contiguous()
        step, decay = decays_of(dt, A)
        y, states = scan_forward(x, step, decay, B, C, parents, initial)
        ctx.save_for_backward(x, dt, A, B, C, step, decay, parents, initial, states)
        if last is None:
            return y, None
        after = states.index_select(0, last)
        ctx.mark_non_differentiable(after)
        return y, after

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *scan_backward(grad, *ctx.saved_tensors), None, None, None
