"""norm.py in Triton: one program takes rows of one group of channels, forward in one pass over memory, backward in one more.

All arithmetic is fp32. The weights' gradient is summed over a program's rows in registers, and over programs in torch, in a fixed
order: two runs give the same bits.
"""

# Shapes: M rows, D channels in g groups of S.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NUM_PROGRAMS = 1024


@triton.jit
def gated_norm_forward(x_p, gate_p, weight_p, y_p, scale_p, D, S, eps, GATED: tl.constexpr, BLOCK: tl.constexpr):
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    here = lane < S
    at = row * D + group * S + lane
    x = tl.load(x_p + at, here, 0.0).to(tl.float32)
    if GATED:
        gate = tl.load(gate_p + at, here, 0.0).to(tl.float32)
        x = x * gate * tl.sigmoid(gate)
    scale = 1.0 / tl.sqrt(tl.sum(x * x) / S + eps)
    weight = tl.load(weight_p + group * S + lane, here, 0.0).to(tl.float32)
    tl.store(y_p + at, (x * scale * weight).to(y_p.dtype.element_ty), here)
    tl.store(scale_p + row * tl.num_programs(1) + group, scale)


@triton.jit
def gated_norm_backward(
    x_p, gate_p, weight_p, scale_p, grad_p, dx_p, dgate_p, dweight_p, M, D, S, GATED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    program, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    here = lane < S
    weight = tl.load(weight_p + group * S + lane, here, 0.0).to(tl.float32)
    dweight = tl.zeros([BLOCK], tl.float32)
    for row in range(program, M, tl.num_programs(0)):
        at = row * D + group * S + lane
        x = tl.load(x_p + at, here, 0.0).to(tl.float32)
        grad = tl.load(grad_p + at, here, 0.0).to(tl.float32)
        scale = tl.load(scale_p + row * tl.num_programs(1) + group)
        gated = x
        if GATED:
            gate = tl.load(gate_p + at, here, 0.0).to(tl.float32)
            sigmoid = tl.sigmoid(gate)
            silu = gate * sigmoid
            gated = x * silu
        normed = gated * scale
        dweight += grad * normed
        dnormed = grad * weight
        along = tl.sum(dnormed * normed) / S
        dgated = (dnormed - normed * along) * scale
        if GATED:
            tl.store(dx_p + at, (dgated * silu).to(dx_p.dtype.element_ty), here)
            dsilu = sigmoid * (1 + gate * (1 - sigmoid))
            tl.store(dgate_p + at, (dgated * x * dsilu).to(dgate_p.dtype.element_ty), here)
        else:
            tl.store(dx_p + at, dgated.to(dx_p.dtype.element_ty), here)
    tl.store(dweight_p + program * D + group * S + lane, dweight, here)


_CONSTANTS = {"GATED": True, "BLOCK": 1024}
COMPILED = [
    case
    for kind in ("*bf16", "*fp32")
    for case in (
        (
            gated_norm_forward,
            {**dict.fromkeys(("x_p", "gate_p", "weight_p", "y_p"), kind), "scale_p": "*fp32", "D": "i32", "S": "i32", "eps": "fp32"},
            _CONSTANTS,
        ),
        (
            gated_norm_backward,
            {**dict.fromkeys(("x_p", "gate_p", "weight_p", "grad_p", "dx_p", "dgate_p"), kind), "scale_p": "*fp32", "dweight_p": "*fp32",
             "M": "i32", "D": "i32", "S": "i32"},
            _CONSTANTS,
        ),
    )
]  # fmt: skip
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""


def gated_rms_norm_triton(x: Tensor, gate: Tensor | None, weight: Tensor, eps: float, num_groups: int = 1) -> Tensor:
    """RMSNorm of x * SiLU(gate), or of x without a gate, over each group of channels."""
    return _GatedNorm.apply(x, gate, weight, eps, num_groups)  # type: ignore[no-any-return]


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, gate: Tensor | None, weight: Tensor, eps: float, num_groups: int
    ) -> Tensor:
        x_MD, gate_MD = (None if t is None else t.reshape(-1, t.shape[-1]).contiguous() for t in (x, gate))
        assert x_MD is not None
        M, D = x_MD.shape
        weight = weight.contiguous()
        S = D // num_groups
        y, scale = torch.empty_like(x_MD), x_MD.new_empty(M, num_groups, dtype=torch.float32)
        block = triton.next_power_of_2(S)
        gated_norm_forward[(M, num_groups)](
            x_MD, gate_MD if gate_MD is not None else x_MD, weight, y, scale, D, S, eps, GATED=gate_MD is not None, BLOCK=block
        )  # fmt: skip
        ctx.save_for_backward(x_MD, gate_MD, weight, scale)
        ctx.shape, ctx.num_groups = x.shape, num_groups
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gate, weight, scale = ctx.saved_tensors
        M, D = x.shape
        programs = min(M, NUM_PROGRAMS)
        dx, dgate = torch.empty_like(x), None if gate is None else torch.empty_like(gate)
        dweight = x.new_empty(programs, D, dtype=torch.float32)
        S = D // ctx.num_groups
        gated_norm_backward[(programs, ctx.num_groups)](
            x, gate if gate is not None else x, weight, scale, grad.reshape(M, D).contiguous(), dx, dgate if dgate is not None else dx,
            dweight, M, D, S, GATED=gate is not None, BLOCK=triton.next_power_of_2(S),
        )  # fmt: skip
        dgate = None if dgate is None else dgate.view(ctx.shape)
        return dx.view(ctx.shape), dgate, dweight.sum(0).to(weight.dtype), None, None
