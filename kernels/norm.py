"""RMSNorm, and Mamba-2's gated form: the gate comes before the norm, which is taken over groups of channels."""

# Shapes: ... any leading dimensions, D channels in g groups.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .exact import exact_silu


def rms_norm_ref(x_D: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension."""
    return x_D * torch.rsqrt(x_D.pow(2).mean(dim=-1, keepdim=True) + eps) * weight_D


def rms_norm(x_D: Tensor, weight_D: Tensor, eps: float, *, exact: bool = False) -> Tensor:
    """`rms_norm_ref` with a backward of its own that keeps one number a row. Its sums are fp32 at least. `exact`: the same bits with
    gradients or without."""
    precise = torch.promote_types(x_D.dtype, torch.float32)
    if x_D.dtype is not precise:
        return rms_norm(x_D.to(precise), weight_D.to(precise), eps, exact=exact).to(x_D.dtype)
    if exact or (torch.is_grad_enabled() and (x_D.requires_grad or weight_D.requires_grad)):
        return _RMSNorm.apply(x_D, weight_D, eps)  # type: ignore[no-any-return]
    return F.rms_norm(x_D, (x_D.shape[-1],), weight_D, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        scale = torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) / x.shape[-1] + eps)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        grad_weight = (grad * normed).reshape(-1, x.shape[-1]).sum(0)
        grad_normed = grad * weight
        along = torch.linalg.vecdot(grad_normed, normed).unsqueeze(-1) / x.shape[-1]
        return torch.addcmul(grad_normed, normed, along, value=-1).mul_(scale), grad_weight, None


def gated_rms_norm(
    x_D: Tensor, gate_D: Tensor, weight_D: Tensor, eps: float, num_groups: int = 1, *, exact: bool = False
) -> Tensor:
    """RMSNorm of x * SiLU(gate), over each of `num_groups` groups of channels. `exact`: a row's bits are the same in whatever company
    and with gradients or without (exact.py)."""
    gated = x_D * (exact_silu(gate_D) if exact else F.silu(gate_D))
    if num_groups == 1:
        return rms_norm(gated, weight_D.to(gated.dtype), eps, exact=exact)
    grouped = gated.unflatten(-1, (num_groups, -1))
    ones = grouped.new_ones(grouped.shape[-1])
    return rms_norm(grouped, ones, eps, exact=exact).flatten(-2) * weight_D
