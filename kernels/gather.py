"""Rows by index, where -1 gives a row of zeros; the gradient adds up where a row was taken more than once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gather_rows_ref(x_ND: Tensor, index: Tensor) -> Tensor:
    """Plain indexing: `x[index]`, with zeros at -1."""
    rows = x_ND[index.clamp(min=0)]
    return torch.where((index >= 0).unsqueeze(-1), rows, torch.zeros_like(rows))


def gather_rows(x_ND: Tensor, index: Tensor) -> Tensor:
    """`gather_rows_ref` with one copy each way. index [...] of int64; returns [..., D]."""
    return _GatherRows.apply(x_ND, index)  # type: ignore[no-any-return]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        flat = index.reshape(-1)
        ctx.save_for_backward(flat)
        ctx.num_rows = x_ND.shape[0]
        rows = x_ND.index_select(0, flat.clamp(min=0))
        rows[flat < 0] = 0
        return rows.view(*index.shape, x_ND.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (flat,) = ctx.saved_tensors
        grad = grad.reshape(flat.shape[0], -1)
        out = grad.new_zeros(ctx.num_rows + 1, grad.shape[1])
        # Padding is added to a row of its own, so that whatever lies in its gradient (NaN too) goes nowhere.
        out.index_add_(0, torch.where(flat < 0, ctx.num_rows, flat), grad)
        return out[:-1], None
