"""Attention of a packed forest in C (cpu/forest.h): no padding, no masks, log-sum-exps in place of scores for the backward."""

# Shapes: N packed tokens, H query heads, J key-value heads, D head size, S segments.

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiled import Room, Structure, fields
from .packing import Packing

_room = Room()


class _Forest(Structure):
    """`Forest` of forest.h."""

    _fields_ = fields(
        "H J D S window longest", "", "starts lengths parents pasts q k v out log_sums grad grad_q grad_k grad_v"
    )


def forest_attention(q_NHD: Tensor, k_NJD: Tensor, v_NJD: Tensor, packing: Packing, window: int | None) -> Tensor:
    """`packed_attention` of fp32 tensors on a CPU. Returns [N, H * D]."""
    return _ForestAttention.apply(q_NHD, k_NJD, v_NJD, packing, window)  # type: ignore[no-any-return]


class _ForestAttention(torch.autograd.Function):
    """Threads take key-value heads: what one writes no other touches, and the order of sums is always the same."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, packing: Packing, window: int | None
    ) -> Tensor:
        q, k, v = (t.contiguous() for t in (q, k, v))
        out, log_sums_NH = torch.empty_like(q), q.new_empty(q.shape[:2])
        _run("forward", packing, window, q=q, k=k, v=v, out=out, log_sums=log_sums_NH)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q, k, v, out, log_sums_NH)
            ctx.packing, ctx.window = packing, window
        return out.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, out, log_sums_NH = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        _run(
            "backward", ctx.packing, ctx.window, q=q, k=k, v=v, out=out, log_sums=log_sums_NH,
            grad=grad.contiguous(), grad_q=grad_q, grad_k=grad_k, grad_v=grad_v,
        )  # fmt: skip
        return grad_q, grad_k, grad_v, None, None


def _run(direction: str, packing: Packing, window: int | None, **tensors: Tensor) -> None:
    lengths, parents = np.array(packing.lengths), np.array(packing.parents)
    starts = np.cumsum(lengths) - lengths
    pasts = packing.positions_N.numpy()[starts]
    plan = {"starts": starts, "lengths": lengths, "parents": parents, "pasts": pasts}
    (_, H, D), J = tensors["q"].shape, tensors["k"].shape[1]
    forest = _Forest(
        H=H, J=J, D=D, S=len(lengths), window=window or 0, longest=int((pasts + lengths).max()),
        **{name: torch.from_numpy(np.ascontiguousarray(array, np.int64)) for name, array in plan.items()},
        **{name: tensors.get(name) for name in ("q", "k", "v", "out", "log_sums", "grad", "grad_q", "grad_k", "grad_v")},
    )  # fmt: skip
    _room.each("forest", direction, forest, J)
