"""RMSNorm, and Mamba-2's gated form: the gate comes before the norm, which is taken over groups of channels."""

# Shapes: ... any leading dimensions, D channels in g groups.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import external
from .backend import uses_external, uses_triton
from .blocks import blocks
from .exact import exact_silu

_WIDEST = 1 << 16
"""Channels of a group that a Triton program holds at once."""


def rms_norm_ref(x_D: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension."""
    return x_D * torch.rsqrt(x_D.pow(2).mean(dim=-1, keepdim=True) + eps) * weight_D


def rms_norm(x_D: Tensor, weight_D: Tensor, eps: float, *, exact: bool = False) -> Tensor:
    """`rms_norm_ref` with a backward of its own that keeps one number a row. Its sums are fp32 at least. `exact`: the same bits with
    gradients or without."""
    if not exact and uses_triton(x_D) and x_D.shape[-1] <= _WIDEST:
        from .norm_triton import gated_rms_norm_triton

        return gated_rms_norm_triton(x_D, None, weight_D, eps)
    precise = torch.promote_types(x_D.dtype, torch.float32)
    if x_D.dtype is not precise:
        return rms_norm(x_D.to(precise), weight_D.to(precise), eps, exact=exact).to(x_D.dtype)
    if exact or (torch.is_grad_enabled() and (x_D.requires_grad or weight_D.requires_grad)):
        return _RMSNorm.apply(x_D, weight_D, eps)  # type: ignore[no-any-return]
    return F.rms_norm(x_D, (x_D.shape[-1],), weight_D, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        x_MD = x.reshape(-1, x.shape[-1])
        y, scale = torch.empty_like(x_MD), _scale(x_MD, eps)
        for block in blocks(x_MD, x_MD.shape[1]):
            torch.mul(x_MD[block], scale[block], out=y[block]).mul_(weight)
        ctx.save_for_backward(x_MD, weight, scale)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        grad_MD = grad.reshape(x.shape)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        for block in blocks(x, x.shape[1]):
            _normed_backward(grad_MD[block], x[block], weight, scale[block], grad_x[block], grad_weight)
        return grad_x.view(grad.shape), grad_weight, None


def _scale(x_MD: Tensor, eps: float) -> Tensor:
    """1 / rms of each row [M, 1]."""
    return torch.linalg.vector_norm(x_MD, dim=1, keepdim=True).square_().div_(x_MD.shape[1]).add_(eps).rsqrt_()


def _normed_backward(
    grad: Tensor, x: Tensor, weight_D: Tensor, scale_M1: Tensor, grad_x: Tensor, grad_weight_D: Tensor
) -> None:
    """Of x * scale * weight with its scale: d x = scale (g w - x scale^2 (g w . x) / D). The weights' gradient is added up."""
    product = grad * x
    grad_weight_D += (scale_M1.T @ product).squeeze(0)
    along = (product @ weight_D).unsqueeze(1).mul_(scale_M1.pow(3)).div_(x.shape[1])
    torch.mul(grad, weight_D, out=grad_x).mul_(scale_M1).addcmul_(x, along, value=-1)


def gated_rms_norm(
    x_D: Tensor, gate_D: Tensor, weight_D: Tensor, eps: float, num_groups: int = 1, *, exact: bool = False
) -> Tensor:
    """RMSNorm of x * SiLU(gate), over each of `num_groups` groups of channels. `exact`: a row's bits are the same in whatever company
    and with gradients or without (exact.py)."""
    if not exact and uses_external("gated_rms_norm", x_D):
        return external.gated_rms_norm(x_D, gate_D, weight_D, eps, num_groups)
    if not exact and uses_triton(x_D, gate_D) and x_D.shape[-1] <= _WIDEST * num_groups:
        from .norm_triton import gated_rms_norm_triton

        return gated_rms_norm_triton(x_D, gate_D, weight_D, eps, num_groups)
    precise = torch.promote_types(x_D.dtype, torch.float32)
    x, gate, weight = (t.to(precise) for t in (x_D, gate_D, weight_D))
    return _GatedRMSNorm.apply(x, gate, weight, eps, num_groups, exact).to(x_D.dtype)  # type: ignore[no-any-return]


class _GatedRMSNorm(torch.autograd.Function):
    """Rows of one group lie side by side: [M, g, S] is normed as M * g rows, whose weights repeat every g."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, gate: Tensor, weight: Tensor, eps: float, num_groups: int, exact: bool
    ) -> Tensor:
        D = x.shape[-1]
        x_MD, gate_MD = x.reshape(-1, D), gate.reshape(-1, D)
        y, scale = torch.empty_like(x_MD, memory_format=torch.contiguous_format), x.new_empty(len(x_MD), num_groups, 1)
        for block in blocks(x_MD, D):
            silu = exact_silu(gate_MD[block]) if exact else F.silu(gate_MD[block])
            gated_mgS = silu.mul_(x_MD[block]).view(-1, num_groups, D // num_groups)
            scale[block] = _scale(gated_mgS.flatten(0, 1), eps).view(-1, num_groups, 1)
            torch.mul(gated_mgS.mul_(scale[block]).view(-1, D), weight, out=y[block])
        ctx.save_for_backward(x_MD, gate_MD, weight, scale)
        ctx.shape = x.shape
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gate, weight, scale = ctx.saved_tensors
        grad_MD, (M, D), g = grad.reshape(x.shape), x.shape, scale.shape[1]
        S = D // g
        grad_x, grad_gate = x.new_empty(M, D), x.new_empty(M, D)
        grad_weight = torch.zeros_like(weight)
        for block in blocks(x, D):
            silu = F.silu(gate[block])
            gated, part = silu * x[block], grad_MD[block]
            product_gmS = (part * gated).view(-1, g, S).transpose(0, 1)
            scale_gm1 = scale[block].transpose(0, 1)
            grad_weight += (scale_gm1.transpose(1, 2) @ product_gmS).view(D)
            along_gm1 = (product_gmS @ weight.view(g, S, 1)).mul_(scale_gm1.pow(3)).div_(S)
            grad_mgS = (part * weight).view(-1, g, S).mul_(scale[block])
            grad_gated = grad_mgS.addcmul_(gated.view(-1, g, S), along_gm1.transpose(0, 1), value=-1).view(-1, D)
            torch.mul(grad_gated, silu, out=grad_x[block])
            torch.ops.aten.silu_backward.grad_input(grad_gated.mul_(x[block]), gate[block], grad_input=grad_gate[block])
        return grad_x.view(ctx.shape), grad_gate.view(ctx.shape), grad_weight, None, None, None
