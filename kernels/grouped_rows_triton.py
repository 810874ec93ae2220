"""Products of rows with the weights of their experts, for experts_triton.py and its backward: rows by tiles of one expert each, the sums
over a token's rows, and the outer products that are the weights' gradients."""

# Shapes: E experts, K choices of a token, M rows, d and f the widths of their two sides. In kernels m are rows, n columns of the result,
# k what is summed over.

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def rows_kernel(
    a_p, w_p, out_p, order_p, ends_p, expert_p, first_p, pre_p, gate_p, along_p, E, D_IN, D_OUT, M, stride_e, stride_n, stride_k,
    K: tl.constexpr, GATHERED: tl.constexpr, SQUARED: tl.constexpr, BACKWARD: tl.constexpr, DOT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of rows times its expert's weights [n, k]. `GATHERED`: a row is its token's; `SQUARED`: rows are relu squared as they are
    read. `BACKWARD`: what comes out is the gradient of relu squared; it is taken on to `pre`, with the gate, and its product with relu
    squared, a gate's gradient by way of these columns, goes to `along` [blocks of n, M]."""
    expert = tl.load(expert_p + tl.program_id(0))
    if expert >= E:
        return
    m = tl.load(first_p + tl.program_id(0)) + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here_m, here_n = m < tl.load(ends_p + expert), n < D_OUT
    source = m
    if GATHERED:
        source = tl.load(order_p + m, here_m, 0) // K
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    w_p += expert * stride_e
    for start in range(0, D_IN, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_p + source[:, None] * D_IN + k[None, :], here_m[:, None] & (k < D_IN)[None, :], 0.0)
        if SQUARED:
            relu = tl.maximum(a.to(tl.float32), 0.0)
            a = relu * relu
        w = tl.load(w_p + n[None, :] * stride_n + k[:, None] * stride_k, (k < D_IN)[:, None] & here_n[None, :], 0.0)
        total = tl.dot(a.to(DOT), w.to(DOT), total, input_precision="ieee")
    at, here = m[:, None] * D_OUT + n[None, :], here_m[:, None] & here_n[None, :]
    if BACKWARD:
        relu = tl.maximum(tl.load(pre_p + at, here, 0.0).to(tl.float32), 0.0)
        gate = tl.load(gate_p + tl.load(order_p + m, here_m, 0), here_m, 0.0).to(tl.float32)
        tl.store(along_p + tl.program_id(1).to(tl.int64) * M + m, tl.sum(total * relu * relu, 1), here_m)
        total *= 2 * relu * gate[:, None]
    tl.store(out_p + at, total.to(out_p.dtype.element_ty), here)


@triton.jit
def sum_kernel(rows_p, inverse_p, gate_p, out_p, D, K: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr):
    """A token's rows, perhaps times their gates, added in the order of its choices."""
    token, lane = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = lane < D
    total = tl.zeros([BLOCK], tl.float32)
    for k in range(K):
        row = tl.load(inverse_p + token * K + k)
        value = tl.load(rows_p + row * D + lane, here, 0.0).to(tl.float32)
        if GATED:
            value *= tl.load(gate_p + token * K + k).to(tl.float32)
        total += value
    tl.store(out_p + token * D + lane, total.to(out_p.dtype.element_ty), here)


@triton.jit
def outer_kernel(
    left_p, right_p, out_p, order_p, ends_p, gate_p, D_LEFT, D_RIGHT, K: tl.constexpr, LEFT_GATHERED: tl.constexpr,
    RIGHT_GATHERED: tl.constexpr, SQUARED: tl.constexpr, DOT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """left^T right over an expert's rows. `SQUARED`: the right side is relu squared times the gate."""
    expert = tl.program_id(0).to(tl.int64)
    i, j = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I), tl.program_id(2) * BLOCK_J + tl.arange(0, BLOCK_J)
    begin = tl.load(ends_p + expert - 1, expert > 0, 0)
    end = tl.load(ends_p + expert)
    total = tl.zeros([BLOCK_I, BLOCK_J], tl.float32)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        here = m < end
        choice = tl.load(order_p + m, here, 0)
        left_row, right_row = m, m
        if LEFT_GATHERED:
            left_row = choice // K
        if RIGHT_GATHERED:
            right_row = choice // K
        left = tl.load(left_p + left_row[None, :] * D_LEFT + i[:, None], here[None, :] & (i < D_LEFT)[:, None], 0.0)
        right = tl.load(
            right_p + right_row[:, None] * D_RIGHT + j[None, :], here[:, None] & (j < D_RIGHT)[None, :], 0.0
        )
        if SQUARED:
            relu = tl.maximum(right.to(tl.float32), 0.0)
            right = relu * relu * tl.load(gate_p + choice, here, 0.0).to(tl.float32)[:, None]
        total = tl.dot(left.to(DOT), right.to(DOT), total, input_precision="ieee")
    at = expert * D_LEFT * D_RIGHT + i[:, None] * D_RIGHT + j[None, :]
    tl.store(out_p + at, total.to(out_p.dtype.element_ty), (i < D_LEFT)[:, None] & (j < D_RIGHT)[None, :])


def _compiled() -> list[tuple[Any, dict[str, str], dict[str, Any]]]:
    cases: list[tuple[Any, dict[str, str], dict[str, Any]]] = []
    places = dict.fromkeys(("order_p", "ends_p", "expert_p", "first_p"), "*i64")
    for kind, dot in (("*bf16", tl.bfloat16), ("*fp32", tl.float32)):
        rows = {
            **dict.fromkeys(("a_p", "w_p", "out_p", "pre_p"), kind), **places, "gate_p": "*fp32", "along_p": "*fp32",
            **dict.fromkeys(("E", "D_IN", "D_OUT", "M", "stride_e", "stride_n", "stride_k"), "i32"),
        }  # fmt: skip
        tiles = {"K": 6, "DOT": dot, "BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 32, "num_warps": 8}
        for gathered, squared, backward in ((True, False, False), (False, True, False), (True, False, True)):
            flags = {"GATHERED": gathered, "SQUARED": squared, "BACKWARD": backward}
            cases.append((rows_kernel, rows, {**tiles, **flags}))
        outer = {
            **dict.fromkeys(("left_p", "right_p", "out_p"), kind), "order_p": "*i64", "ends_p": "*i64", "gate_p": "*fp32",
            "D_LEFT": "i32", "D_RIGHT": "i32",
        }  # fmt: skip
        sides = {"K": 6, "DOT": dot, "BLOCK_M": 32, "BLOCK_I": 64, "BLOCK_J": 128, "num_warps": 8}
        for squared in (False, True):
            flags = {"LEFT_GATHERED": squared, "RIGHT_GATHERED": not squared, "SQUARED": squared}
            cases.append((outer_kernel, outer, {**sides, **flags}))
        summed = {"rows_p": kind, "inverse_p": "*i64", "gate_p": "*fp32", "out_p": kind, "D": "i32"}
        cases.append((sum_kernel, summed, {"K": 6, "GATED": True, "BLOCK": 1024}))
    return cases


COMPILED = _compiled()
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""
