"""linear_logprobs.py in Triton: logits live in registers, a tile of rows x vocabulary at a time.

    ranges of the vocabulary: largest logit, mass, moment -> joined: log-sum-exp, log-probability, entropy

The vocabulary is cut into ranges whatever the number of rows, so few rows fill the machine too, and a row's bits do not depend
on the others. The gradient makes the logits once more (linear_logprobs_backward_triton.py). Logits, sums and the temperature
are fp32; products of bf16 inputs run on tensor cores, those of fp32 inputs in full fp32.
"""

# Shapes: N tokens, d model (D in kernels), V vocabulary, R ranges of it.

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_RANGES = 128
"""About a program for each multiprocessor, where one block of rows is all there is."""
JOIN_BLOCK = 32
NEVER = tl.constexpr(-1e30)
"""The logit of what lies behind the vocabulary's end. Finite: times a mass of 0 it is 0."""


@triton.jit
def place_of_program(num_rows, num_columns, GROUP: tl.constexpr):
    """(row, column) of this program's block. Groups of rows go through all columns: programs of one time share reads."""
    program = tl.program_id(0)
    group, inside = program // (GROUP * num_columns), program % (GROUP * num_columns)
    size = tl.minimum(num_rows - group * GROUP, GROUP)
    return group * GROUP + inside % size, inside // size


@triton.jit
def logits_tile(
    x_at, weight_at, here_n, here_v, temperature, D,
    DOT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """[n, v], from the beginnings of rows [n, 1] and of the weights' rows [1, v]."""
    total = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x = tl.load(x_at + d[None, :], here_n[:, None] & (d < D)[None, :], 0.0).to(DOT)
        weight = tl.load(weight_at + d[:, None], (d < D)[:, None] & here_v[None, :], 0.0).to(DOT)
        total = tl.dot(x, weight, total, input_precision="ieee")
    return total / temperature[:, None]


@triton.jit
def head_ranges(
    x_p, weight_p, target_p, temperature_p, part_p, chosen_p, N, D, V, width, x_row, weight_row,
    DOT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A block of rows over one range: `part` [3, R, N] becomes the largest logit, mass (sum of exp(l - largest)), the moment
    (that of l - largest, weighted so); `chosen` [N] the target's logit, by the one range where it lies."""
    num_ranges = tl.cdiv(V, width)
    block, part = place_of_program(tl.cdiv(N, BLOCK_N), num_ranges, GROUP)
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    here = n < N
    target = tl.load(target_p + n, here, -1).to(tl.int32)
    temperature = tl.load(temperature_p + n, here, 1.0).to(tl.float32)
    x_at = x_p + n.to(tl.int64)[:, None] * x_row
    largest = tl.full([BLOCK_N], NEVER, tl.float32)
    mass = tl.zeros([BLOCK_N], tl.float32)
    moment = tl.zeros([BLOCK_N], tl.float32)
    chosen = tl.zeros([BLOCK_N], tl.float32)
    first, end = part * width, tl.minimum((part + 1) * width, V)
    for start in range(first, end, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        weight_at = weight_p + v.to(tl.int64)[None, :] * weight_row
        logits = logits_tile(x_at, weight_at, here, v < V, temperature, D, DOT, BLOCK_N, BLOCK_V, BLOCK_D)
        chosen += tl.sum(tl.where(v[None, :] == target[:, None], logits, 0.0), 1)
        logits = tl.where((v < V)[None, :], logits, NEVER)
        larger = tl.maximum(largest, tl.max(logits, 1))
        shrink = tl.exp(largest - larger)
        moment = shrink * (moment + mass * (largest - larger))
        logits -= larger[:, None]
        weights = tl.exp(logits)
        mass = mass * shrink + tl.sum(weights, 1)
        moment += tl.sum(weights * logits, 1)
        largest = larger
    part_at, plane = part_p + part.to(tl.int64) * N + n, num_ranges.to(tl.int64) * N
    tl.store(part_at, largest, here)
    tl.store(part_at + plane, mass, here)
    tl.store(part_at + 2 * plane, moment, here)
    tl.store(chosen_p + n, chosen, here & (target >= first) & (target < end))


@triton.jit
def join_ranges(
    part_p, chosen_p, logprob_p, entropy_p, lse_p, N, R, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    r, lane = tl.arange(0, BLOCK_R)[:, None], tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    n = lane[None, :]
    here, at = (r < R) & (n < N), part_p + r.to(tl.int64) * N + n
    plane = tl.cast(R, tl.int64) * N
    largest = tl.load(at, here, NEVER)
    mass = tl.load(at + plane, here, 0.0)
    moment = tl.load(at + 2 * plane, here, 0.0)
    larger = tl.max(largest, 0)
    below = largest - larger[None, :]
    shrink = tl.exp(below)
    total = tl.where(lane < N, tl.sum(mass * shrink, 0), 1.0)
    moment = tl.sum(shrink * (moment + mass * below), 0)
    log_total = tl.log(total)
    tl.store(lse_p + lane, larger + log_total, lane < N)
    tl.store(entropy_p + lane, log_total - moment / total, lane < N)
    chosen = tl.load(chosen_p + lane, lane < N, 0.0)
    tl.store(logprob_p + lane, chosen - (larger + log_total), lane < N)


class Blocks(NamedTuple):
    """Rows, vocabulary entries and model dimensions that a program holds at a time, and the type of its products."""

    N: int
    V: int
    D: int
    DOT: Any

    @staticmethod
    def of(x: Tensor, weight: Tensor) -> Blocks:
        # The interpreter is wrong about products of bf16.
        if x.is_cuda and x.dtype is weight.dtype is torch.bfloat16:
            return Blocks(128, 256, 64, tl.bfloat16)
        return Blocks(64, 64, 32, tl.float32)

    def launch(self) -> dict[str, Any]:
        return {"DOT": self.DOT, "GROUP": 16, "num_warps": 8 if self.DOT is tl.bfloat16 else 4, "num_stages": 3}

    def constants(self) -> dict[str, Any]:
        return {"BLOCK_N": self.N, "BLOCK_V": self.V, "BLOCK_D": self.D, **self.launch()}


_HEAD = {
    "target_p": "*i64",
    "temperature_p": "*fp32",
    "N": "i32",
    "D": "i32",
    "V": "i32",
    "x_row": "i32",
    "weight_row": "i32",
}
BOTH = (("*bf16", Blocks(128, 256, 64, tl.bfloat16)), ("*fp32", Blocks(64, 64, 32, tl.float32)))
"""The types of inputs by which kernels are compiled ahead of time in a test, with their blocks."""
COMPILED = [
    *(
        (
            head_ranges,
            {"x_p": kind, "weight_p": kind, "part_p": "*fp32", "chosen_p": "*fp32", "width": "i32", **_HEAD},
            blocks.constants(),
        )
        for kind, blocks in BOTH
    ),
    (
        join_ranges,
        {**dict.fromkeys(("part_p", "chosen_p", "logprob_p", "entropy_p", "lse_p"), "*fp32"), "N": "i32", "R": "i32"},
        {"BLOCK_R": MAX_RANGES, "BLOCK_N": JOIN_BLOCK},
    ),
]
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""


def linear_logprobs_triton(
    x_Nd: Tensor, weight_Vd: Tensor, targets_N: Tensor, temperature_N: Tensor
) -> tuple[Tensor, Tensor]:
    """`linear_logprobs` of all tokens, over the whole vocabulary. Both are fp32; the entropy carries no gradient."""
    return _Head.apply(x_Nd, weight_Vd, targets_N, temperature_N)  # type: ignore[no-any-return]


def head_forward(x: Tensor, weight: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and log-sum-exps [N]."""
    (N, D), V, cut = x.shape, len(weight), Blocks.of(x, weight)
    width = triton.cdiv(triton.cdiv(V, cut.V), MAX_RANGES) * cut.V
    num_ranges = triton.cdiv(V, width)
    logprobs, entropy, lse, chosen = (x.new_empty(N, dtype=torch.float32) for _ in range(4))
    parts = x.new_empty(3, num_ranges, N, dtype=torch.float32)
    head_ranges[(triton.cdiv(N, cut.N) * num_ranges,)](
        x, weight, targets, temperature, parts, chosen, N, D, V, width, x.stride(0), weight.stride(0), **cut.constants()
    )
    join_ranges[(triton.cdiv(N, JOIN_BLOCK),)](
        parts, chosen, logprobs, entropy, lse, N, num_ranges, BLOCK_R=triton.next_power_of_2(num_ranges), BLOCK_N=JOIN_BLOCK
    )  # fmt: skip
    return logprobs, entropy, lse


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, weight = (t if t.stride(1) == 1 else t.contiguous() for t in (x, weight))
        targets, temperature = targets.contiguous(), temperature.contiguous()
        logprobs, entropy, lse = head_forward(x, weight, targets, temperature)
        ctx.save_for_backward(x, weight, targets, temperature, lse)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from .linear_logprobs_backward_triton import head_backward

        return *head_backward(grad, *ctx.saved_tensors, *ctx.needs_input_grad[:2]), None, None
