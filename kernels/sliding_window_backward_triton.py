"""The gradient of sliding_window_triton.py: of the queries by blocks of queries, of keys and values by blocks of keys.

The weights are made anew from each query's log-sum-exp. A block of keys goes through the queries that see any of it, one after
another of its group's heads: every number is one sum in registers, taken in a fixed order.
"""

# Shapes: as in sliding_window_triton.py.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .sliding_window_triton import KINDS, LOG2E, MODEL, SIZES, STRIDES, Blocks, is_half, is_seen, load_rows, span_of

SCAN_BLOCK = tl.constexpr(1024)


@triton.jit
def window_backward_queries(
    q_p, k_p, v_p, last_p, y_p, lse_p, dy_p, dq_p, delta_p, H, Q, K, window, scale,
    q_segment, q_head, q_row, kv_segment, kv_head, kv_row, dy_segment, dy_head, dy_row,
    R: tl.constexpr, D: tl.constexpr, DOT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dq [s, q, H, D], and delta = dy . y [s, H, q], which the keys' gradient needs too."""
    blocks = tl.cdiv(Q, BLOCK_Q)
    lines = tl.num_programs(0) // blocks
    line, block = (tl.program_id(0) % lines).to(tl.int64), blocks - 1 - tl.program_id(0) // lines
    segment, head = line // H, line % H
    t = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    far = t.to(tl.int64)
    last = tl.load(last_p + segment * Q + far, t < Q, 0).to(tl.int32)
    queries = load_rows(q_p + segment * q_segment + head * q_head, far, q_row, t < Q, D, BLOCK_D).to(DOT)
    dy = load_rows(dy_p + segment * dy_segment + head * dy_head, far, dy_row, t < Q, D, BLOCK_D)
    own = (segment * Q * H + head) * D
    y = load_rows(y_p + own, far, H * D, t < Q, D, BLOCK_D).to(tl.float32)
    delta = tl.sum(dy.to(tl.float32) * y, 1)
    tl.store(delta_p + (segment * H + head) * Q + far, delta, t < Q)
    dy = dy.to(DOT)
    lse = tl.load(lse_p + (segment * H + head) * Q + far, t < Q, 0.0)
    k_p += segment * kv_segment + (head // R) * kv_head
    v_p += segment * kv_segment + (head // R) * kv_head
    total = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    first, end, _ = span_of(last, window, BLOCK_K)
    for start in range(first, end, BLOCK_K):
        lane = tl.arange(0, BLOCK_K)
        k, skipped = start + lane, tl.cast(start, tl.int64) * kv_row
        keys = load_rows(k_p + skipped, lane, kv_row, k < K, D, BLOCK_D).to(DOT)
        values = load_rows(v_p + skipped, lane, kv_row, k < K, D, BLOCK_D).to(DOT)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * (scale * LOG2E) - lse[:, None]
        weights = tl.exp2(tl.where(is_seen(k[None, :], last[:, None], window), scores, float("-inf")))
        slopes = weights * (tl.dot(dy, tl.trans(values), input_precision="ieee") - delta[:, None])
        total = tl.dot(slopes.to(DOT), keys, total, input_precision="ieee")
    d = tl.arange(0, BLOCK_D)
    dq_at = dq_p + own + far[:, None] * (H * D) + d[None, :]
    tl.store(dq_at, (total * scale).to(dq_p.dtype.element_ty), (t < Q)[:, None] & (d < D)[None, :])


@triton.jit
def window_backward_keys(
    q_p, k_p, v_p, last_p, lse_p, dy_p, delta_p, dk_p, dv_p, H, Q, K, window, scale,
    q_segment, q_head, q_row, kv_segment, kv_head, kv_row, dy_segment, dy_head, dy_row,
    R: tl.constexpr, D: tl.constexpr, DOT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dk and dv [s, k, J, D]. The first keys, which most queries see, go first."""
    J = H // R
    lines = tl.num_programs(0) // tl.cdiv(K, BLOCK_K)
    line, start_k = (tl.program_id(0) % lines).to(tl.int64), tl.program_id(0) // lines * BLOCK_K
    segment, group = line // J, line % J
    lane, row = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    k = start_k + row
    at = segment * kv_segment + group * kv_head + tl.cast(start_k, tl.int64) * kv_row
    keys = load_rows(k_p + at, row, kv_row, k < K, D, BLOCK_D).to(DOT)
    values = load_rows(v_p + at, row, kv_row, k < K, D, BLOCK_D).to(DOT)
    last_p += segment * Q
    # Real queries whose keys end before these, and those whose window does not begin after them: a segment's first ones, both.
    before, until = 0, 0
    for start in range(0, Q, SCAN_BLOCK):
        t = start + tl.arange(0, SCAN_BLOCK)
        last = tl.load(last_p + t, t < Q, 0).to(tl.int32)
        before += tl.sum(((last > 0) & (last <= start_k)).to(tl.int32))
        until += tl.sum(((last > 0) & (last - window < start_k + BLOCK_K)).to(tl.int32))
    dkeys, dvalues = tl.zeros([BLOCK_K, BLOCK_D], tl.float32), tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for r in range(R):
        head = group * R + r
        line_at = (segment * H + head) * Q
        for start in range(before // BLOCK_Q * BLOCK_Q, until, BLOCK_Q):
            t, far = start + lane, tl.cast(start, tl.int64)
            last = tl.load(last_p + t, t < Q, 0).to(tl.int32)
            lse = tl.load(lse_p + line_at + t, t < Q, 0.0)
            delta = tl.load(delta_p + line_at + t, t < Q, 0.0)
            q_at = q_p + segment * q_segment + head * q_head + far * q_row
            queries = load_rows(q_at, lane, q_row, t < Q, D, BLOCK_D).to(DOT)
            dy_at = dy_p + segment * dy_segment + head * dy_head + far * dy_row
            dy = load_rows(dy_at, lane, dy_row, t < Q, D, BLOCK_D).to(DOT)
            scores = tl.dot(keys, tl.trans(queries), input_precision="ieee") * (scale * LOG2E) - lse[None, :]
            weights = tl.exp2(tl.where(is_seen(k[:, None], last[None, :], window), scores, float("-inf")))
            dvalues = tl.dot(weights.to(DOT), dy, dvalues, input_precision="ieee")
            slopes = weights * (tl.dot(values, tl.trans(dy), input_precision="ieee") - delta[None, :])
            dkeys = tl.dot(slopes.to(DOT), queries, dkeys, input_precision="ieee")
    d = tl.arange(0, BLOCK_D)
    out = ((segment * K + k[:, None]) * J + group) * D + d[None, :]
    here = (k < K)[:, None] & (d < D)[None, :]
    tl.store(dk_p + out, (dkeys * scale).to(dk_p.dtype.element_ty), here)
    tl.store(dv_p + out, dvalues.to(dv_p.dtype.element_ty), here)


def window_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, last: Tensor, y: Tensor, lse: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, in their shapes."""
    (s, H, Q, D), (J, K) = q.shape, k.shape[1:3]
    dy = grad if grad.stride(3) == 1 else grad.contiguous()
    dq, delta = q.new_empty(s, Q, H, D), torch.empty_like(lse)
    dk, dv = (t.new_empty(s, K, J, D) for t in (k, v))
    half, shape = is_half(q), {"R": H // J, "D": D}
    sizes = (H, Q, K, window, D**-0.5, *q.stride()[:3], *k.stride()[:3], *dy.stride()[:3])
    cut = Blocks.of(D, half)
    window_backward_queries[(s * H * triton.cdiv(Q, cut.Q),)](
        q, k, v, last, y, lse, dy, dq, delta, *sizes, **shape, **cut.constants()
    )
    cut = Blocks.by_keys(D, half)
    window_backward_keys[(s * J * triton.cdiv(K, cut.K),)](
        q, k, v, last, lse, dy, delta, dk, dv, *sizes, **shape, **cut.constants()
    )
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)


_SIZES: dict[str, Any] = {
    "lse_p": "*fp32",
    "delta_p": "*fp32",
    "last_p": "*i64",
    **SIZES,
    **{name.replace("q_", "dy_"): kind for name, kind in STRIDES.items() if name[0] == "q"},
}
COMPILED = [
    (
        kernel,
        {**dict.fromkeys(f"q_p k_p v_p dy_p {inputs}".split(), kind), **_SIZES},
        {**MODEL, **cut(128, kind == "*bf16").constants()},
    )
    for kind in KINDS
    for kernel, inputs, cut in (
        (window_backward_queries, "y_p dq_p", Blocks.of),
        (window_backward_keys, "dk_p dv_p", Blocks.by_keys),
    )
]  # fmt: skip
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""
