"""relu(x)^2, the activation of MLPs and experts (https://arxiv.org/abs/2109.08668), keeping its input alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backend import needs_gradient
from .blocks import blocks


def relu_squared_ref(x_Nf: Tensor) -> Tensor:
    """Operation by operation."""
    return torch.relu(x_Nf).square()


def relu_squared(x_Nf: Tensor) -> Tensor:
    """`relu_squared_ref`, block by block."""
    return _ReluSquared.apply(x_Nf) if needs_gradient(x_Nf) else torch.relu(x_Nf).square_()  # type: ignore[no-any-return]


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        for block in blocks(x, x[0].numel() if len(x) else 1):
            torch.clamp(x[block], min=0, out=y[block]).square_()
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        for block in blocks(x, x[0].numel() if len(x) else 1):
            torch.clamp(x[block], min=0, out=grad_x[block]).mul_(grad[block]).mul_(2)
        return grad_x
