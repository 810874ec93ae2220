"""The decode step of sliding_window.py in Triton: a program takes the query heads of one key-value head through their row's
ring, which is read once. The rows of a step fill the machine, so no ring is split."""

# Shapes: B rows of a step, H query heads, J key-value heads (R = H/J heads each), D head size, w window.

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .sliding_window_triton import KINDS, LOG2E, MODEL, NEVER, is_half


@triton.jit
def ring_decode(
    q_p, key_p, value_p, length_p, y_p, J, w, scale,
    R: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The heads of a group over their row's ring, which is read once."""
    line = tl.program_id(0).to(tl.int64)  # of a row and key-value head
    r, d, lane = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_W)
    here_d, at = d < D, line * (R * D) + r[:, None] * D + d[None, :]
    here = (r < R)[:, None] & here_d[None, :]
    queries = tl.load(q_p + at, here, 0.0)
    queries = queries.to(tl.bfloat16 if HALF else tl.float32)
    end = tl.minimum(tl.maximum(tl.load(length_p + line // J), 1), w).to(tl.int32)
    total = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    mass = tl.zeros([BLOCK_R], tl.float32)
    largest = tl.full([BLOCK_R], NEVER, tl.float32)
    for start in range(0, end, BLOCK_W):
        place = start + lane
        key_at = key_p + line * D * w + d[:, None] * w + place[None, :]
        keys = tl.load(key_at, here_d[:, None] & (place < end)[None, :], 0.0)
        keys = keys.to(tl.bfloat16 if HALF else tl.float32)
        scores = tl.dot(queries, keys, input_precision="ieee") * (scale * LOG2E)
        scores = tl.where((place < end)[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shrink = tl.exp2(largest - larger)
        weights = tl.exp2(scores - larger[:, None])
        mass = mass * shrink + tl.sum(weights, 1)
        value_at = value_p + line * w * D + place[:, None] * D + d[None, :]
        values = tl.load(value_at, (place < end)[:, None] & here_d[None, :], 0.0)
        values = values.to(tl.bfloat16 if HALF else tl.float32)
        weights = weights.to(tl.bfloat16 if HALF else tl.float32)
        total = tl.dot(weights, values, total * shrink[:, None], input_precision="ieee")
        largest = larger
    tl.store(y_p + at, (total / mass[:, None]).to(y_p.dtype.element_ty), here)


def ring_decode_attention_triton(q_BHD: Tensor, keys_BJDw: Tensor, values_BJwD: Tensor, lengths_B: Tensor) -> Tensor:
    """`ring_decode_attention` of contiguous rings. Returns [B, H * D]."""
    (B, H, D), (J, w) = q_BHD.shape, keys_BJDw.shape[1::2]
    if not (keys_BJDw.is_contiguous() and values_BJwD.is_contiguous()):
        raise ValueError("the rings of a decode step are contiguous")
    y = q_BHD.new_empty(B, H * D)
    ring_decode[(B * J,)](
        q_BHD.contiguous(), keys_BJDw, values_BJwD, lengths_B.contiguous(), y, J, w, D**-0.5,
        **_constants(H // J, D, is_half(q_BHD)),
    )  # fmt: skip
    return y


def _constants(R: int, D: int, half: bool) -> dict[str, Any]:
    block_r, block_d = (max(triton.next_power_of_2(size), 16) for size in (R, D))
    wide = block_r > 16 or block_d > 128
    return {
        "R": R, "D": D, "HALF": half, "BLOCK_R": block_r, "BLOCK_D": block_d, "BLOCK_W": 64 if half else 32,
        "num_warps": 8 if wide else 4, "num_stages": 3 if half and not wide else 2,
    }  # fmt: skip


COMPILED = [
    (
        ring_decode,
        {**dict.fromkeys(("q_p", "key_p", "value_p", "y_p"), kind), "length_p": "*i64", "J": "i32", "w": "i32",
         "scale": "fp32"},
        _constants(MODEL["R"], MODEL["D"], kind == "*bf16"),
    )
    for kind in KINDS
]  # fmt: skip
"""Signatures and constants, by which it is compiled ahead of time in a test."""
