"""Attention over windows in Triton, of packed segments side by side (attention.py).

A program takes a block of one head's queries through the keys that any of them sees, block by block, with its softmax kept up
as it goes (https://arxiv.org/abs/2307.08691); blocks outside of the window are not read. Scores, softmax and sums are fp32;
products of bf16 inputs run on tensor cores, those of fp32 inputs in full fp32. The gradient is in
sliding_window_backward_triton.py.
"""

# Shapes: s segments, H query heads, J key-value heads (R = H/J heads each), q queries (Q in kernels), k keys (K), D head size.
# In kernels t are a program's queries.

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

NO_WINDOW = 1 << 30
NEVER = tl.constexpr(-1e30)
"""The largest score of a query that has seen nothing yet. Finite: the difference of two infinite ones is none."""
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_rows(at, lanes, stride, here, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[lane, d]."""
    d = tl.arange(0, BLOCK_D)
    return tl.load(at + lanes[:, None] * stride + d[None, :], here[:, None] & (d < D)[None, :], 0.0)


@triton.jit
def attend(
    total, mass, largest, queries, k_p, v_p, first, end, last, window, K, scale, kv_row, MASKED: tl.constexpr,
    D: tl.constexpr, DOT: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Keys `first` to `end`, in whole blocks, join a block of queries' sums. Exponents are of 2."""
    for start in range(first, end, BLOCK_K):
        lane = tl.arange(0, BLOCK_K)
        k, skipped = start + lane, tl.cast(start, tl.int64) * kv_row
        keys = load_rows(k_p + skipped, lane, kv_row, k < K, D, BLOCK_D).to(DOT)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * (scale * LOG2E)
        if MASKED:
            scores = tl.where(is_seen(k[None, :], last[:, None], window), scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shrink = tl.exp2(largest - larger)
        weights = tl.exp2(scores - larger[:, None])
        mass = mass * shrink + tl.sum(weights, 1)
        values = load_rows(v_p + skipped, lane, kv_row, k < K, D, BLOCK_D).to(DOT)
        total = tl.dot(weights.to(DOT), values, total * shrink[:, None], input_precision="ieee")
        largest = larger
    return total, mass, largest


@triton.jit
def is_seen(key, last, window):
    return (key < last) & (key >= last - window)


@triton.jit
def span_of(last, window, BLOCK_K: tl.constexpr):
    """Where the keys that a block of queries sees begin, in whole blocks, where they end, and a real query's smallest end."""
    end = tl.max(last)
    fewest = tl.min(tl.where(last > 0, last, end))
    return tl.maximum(fewest - window, 0) // BLOCK_K * BLOCK_K, end, fewest


@triton.jit
def window_forward(
    q_p, k_p, v_p, last_p, y_p, lse_p, H, Q, K, window, scale, q_segment, q_head, q_row, kv_segment, kv_head, kv_row,
    R: tl.constexpr, D: tl.constexpr, DOT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """y [s, q, H, D], and log2 of the sum of a query's exponentials [s, H, q]. The last queries, which see most, go first."""
    blocks = tl.cdiv(Q, BLOCK_Q)
    lines = tl.num_programs(0) // blocks  # of a segment and head
    line, block = (tl.program_id(0) % lines).to(tl.int64), blocks - 1 - tl.program_id(0) // lines
    segment, head = line // H, line % H
    t = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    far = t.to(tl.int64)
    last = tl.load(last_p + segment * Q + far, t < Q, 0).to(tl.int32)
    queries = load_rows(q_p + segment * q_segment + head * q_head, far, q_row, t < Q, D, BLOCK_D).to(DOT)
    k_p += segment * kv_segment + (head // R) * kv_head
    v_p += segment * kv_segment + (head // R) * kv_head
    total = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    mass = tl.zeros([BLOCK_Q], tl.float32)
    largest = tl.full([BLOCK_Q], NEVER, tl.float32)
    first, end, fewest = span_of(last, window, BLOCK_K)
    # Between the edges all real queries see all keys.
    full = tl.cdiv(tl.maximum(end - window, 0), BLOCK_K) * BLOCK_K
    edge = fewest // BLOCK_K * BLOCK_K
    full, edge = tl.where(full < edge, full, first), tl.where(full < edge, edge, first)
    total, mass, largest = attend(
        total, mass, largest, queries, k_p, v_p, first, full, last, window, K, scale, kv_row, True, D, DOT, BLOCK_K, BLOCK_D
    )  # fmt: skip
    total, mass, largest = attend(
        total, mass, largest, queries, k_p, v_p, full, edge, last, window, K, scale, kv_row, False, D, DOT, BLOCK_K, BLOCK_D
    )  # fmt: skip
    total, mass, largest = attend(
        total, mass, largest, queries, k_p, v_p, edge, end, last, window, K, scale, kv_row, True, D, DOT, BLOCK_K, BLOCK_D
    )  # fmt: skip
    real = last > 0
    mass = tl.where(real, mass, 1.0)
    y = tl.where(real[:, None], total / mass[:, None], 0.0)
    d = tl.arange(0, BLOCK_D)
    y_at = y_p + ((segment * Q + far[:, None]) * H + head) * D + d[None, :]
    tl.store(y_at, y.to(y_p.dtype.element_ty), (t < Q)[:, None] & (d < D)[None, :])
    tl.store(lse_p + (segment * H + head) * Q + far, tl.where(real, largest + tl.log2(mass), 0.0), t < Q)


class Blocks(NamedTuple):
    """How many queries and keys a program holds at a time, as Hopper's registers and shared memory allow, and the type of its
    products."""

    Q: int
    K: int
    D: int
    DOT: Any
    stages: int = 2

    @staticmethod
    def of(D: int, half: bool) -> Blocks:
        D = max(triton.next_power_of_2(D), 16)
        if not half:
            return Blocks(32, 32, D, tl.float32)
        return Blocks(128, 64, D, tl.bfloat16, 3) if D <= 128 else Blocks(64, 64, D, tl.bfloat16)

    @staticmethod
    def by_keys(D: int, half: bool) -> Blocks:
        """For the gradient of keys and values, of which a program holds the sums."""
        cut = Blocks.of(D, half)
        return cut._replace(Q=32, K=128 if cut.D <= 128 else 64, stages=2) if half else cut

    def constants(self) -> dict[str, Any]:
        return {
            "DOT": self.DOT, "BLOCK_Q": self.Q, "BLOCK_K": self.K, "BLOCK_D": self.D, "num_warps": 8, "num_stages": self.stages,
        }  # fmt: skip


def is_half(t: Tensor) -> bool:
    """The interpreter is wrong about products of bf16."""
    return t.is_cuda and t.dtype is torch.bfloat16


def window_attention_triton(
    q_sHqD: Tensor, k_sJkD: Tensor, v_sJkD: Tensor, last_sq: Tensor, window: int | None
) -> Tensor:
    """Each query over the last `window` of the first `last` keys. `last` rises along a segment's queries and is 0 for the
    padding behind them, whose output is 0. Returns [s, H, q, D]."""
    window = NO_WINDOW if window is None else window
    return _Window.apply(q_sHqD, k_sJkD, v_sJkD, last_sq, window)  # type: ignore[no-any-return]


class _Window(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, last: Tensor, window: int) -> Tensor:  # type: ignore[override]
        (s, H, Q, D), (J, K) = q.shape, k.shape[1:3]
        q, last = q if q.stride(3) == 1 else q.contiguous(), last.contiguous()
        if k.stride() != v.stride() or k.stride(3) != 1:
            k, v = k.contiguous(), v.contiguous()
        y, lse = q.new_empty(s, Q, H, D), q.new_empty(s, H, Q, dtype=torch.float32)
        cut = Blocks.of(D, is_half(q))
        window_forward[(s * H * triton.cdiv(Q, cut.Q),)](
            q,
            k,
            v,
            last,
            y,
            lse,
            H,
            Q,
            K,
            window,
            D**-0.5,
            *q.stride()[:3],
            *k.stride()[:3],
            R=H // J,
            D=D,
            **cut.constants(),
        )
        ctx.save_for_backward(q, k, v, last, y, lse)
        ctx.window = window
        return y.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from .sliding_window_backward_triton import window_backward

        return *window_backward(grad, *ctx.saved_tensors, ctx.window), None, None


STRIDES = dict.fromkeys((f"{name}_{axis}" for name in ("q", "kv") for axis in ("segment", "head", "row")), "i32")
SIZES = {**dict.fromkeys(("H", "Q", "K", "window"), "i32"), "scale": "fp32", **STRIDES}
MODEL = {"R": 16, "D": 128}
"""Of Nemotron 3 Nano."""
KINDS = ("*bf16", "*fp32")
COMPILED = [
    (
        window_forward,
        {**dict.fromkeys(("q_p", "k_p", "v_p", "y_p"), kind), "lse_p": "*fp32", "last_p": "*i64", **SIZES},
        {**MODEL, **Blocks.of(128, kind == "*bf16").constants()},
    )
    for kind in KINDS
]
"""Signatures and constants, by which it is compiled ahead of time in a test."""
