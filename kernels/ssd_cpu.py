"""The scan over a forest of chunks in C (cpu/scan.h): a chunk is one pass in the cache, forward and backward."""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups, N state size, S segments.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiled import Room, Structure, fields

_room = Room()


class _Scan(Structure):
    """`Scan` of scan.h."""

    _fields_ = fields(
        "num_chunks Q H P G N ldx ldb ldc", "",
        "parents parts goes_on x dt A B C initial y after grad grad_after grad_x grad_dt grad_decay grad_B grad_C",
    )  # fmt: skip


def ssd_chunks_cpu(
    x_CQHP: Tensor,
    dt_CQH: Tensor,
    A_H: Tensor,
    B_CQGN: Tensor,
    C_CQGN: Tensor,
    levels: Sequence[Tensor],
    initial_SHPN: Tensor | None,
    last_S: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """`ssd_chunks` of fp32 tensors on a CPU."""
    plan = _plan(levels, last_S, torch.get_num_threads())
    return _SSD.apply(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, plan, initial_SHPN, last_S)  # type: ignore[no-any-return]


def _plan(levels: Sequence[Tensor], last_S: Tensor | None, num_threads: int) -> dict[str, Tensor]:
    """Each chunk's parent among all, its thread, and whether its state is wanted. A tree of chunks is one thread's."""
    above, start, roots = -1 - levels[0].numpy(), 0, np.arange(len(levels[0]))
    parents, trees = [above], [roots]
    for level in levels[1:]:
        places = level.numpy()
        parents.append(places + start)
        trees.append(trees[-1][places])
        start += len(parents[-2])
    parent_C, tree_C = np.concatenate(parents), np.concatenate(trees)
    sizes = np.bincount(tree_C, minlength=len(roots))
    part_of_tree = (np.cumsum(sizes) - sizes) * num_threads // len(tree_C)
    goes_on_C = np.zeros(len(tree_C), np.int64)
    goes_on_C[parent_C[parent_C >= 0]] = 1
    if last_S is not None:
        goes_on_C[last_S.numpy()] = 1
    arrays = {"parents": parent_C, "parts": part_of_tree[tree_C], "goes_on": goes_on_C}
    return {name: torch.from_numpy(np.ascontiguousarray(array, np.int64)) for name, array in arrays.items()}


class _SSD(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        plan: dict[str, Tensor],
        initial: Tensor | None,
        last: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        x, B, C = (_in_rows(t) for t in (x, B, C))
        dt, A = dt.contiguous(), A.contiguous()
        initial = None if initial is None else initial.transpose(2, 3).contiguous()
        after = x.new_empty(len(x), x.shape[2], B.shape[3], x.shape[3])
        y = x.new_empty(x.shape)
        _run("forward", plan, x=x, dt=dt, A=A, B=B, C=C, initial=initial, y=y, after=after)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, dt, A, B, C, initial, y, after)
            ctx.plan = plan
        if last is None:
            return y, None
        last_states = after.index_select(0, last).transpose(2, 3)
        ctx.mark_non_differentiable(last_states)
        return y, last_states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dt, A, B, C, initial, y, after = ctx.saved_tensors
        grad_x, grad_dt, decay = x.new_empty(x.shape), torch.empty_like(dt), torch.empty_like(dt)
        grad_B, grad_C = B.new_empty(B.shape), C.new_empty(C.shape)
        _run(
            "backward", ctx.plan, x=x, dt=dt, A=A, B=B, C=C, initial=initial, y=y, after=after, grad=grad.contiguous(),
            grad_after=torch.zeros_like(after), grad_x=grad_x, grad_dt=grad_dt, grad_decay=decay, grad_B=grad_B, grad_C=grad_C,
        )  # fmt: skip
        log_CQH = decay.flip(1).cumsum(1).flip(1)
        return grad_x, grad_dt.addcmul_(log_CQH, A), (log_CQH * dt).sum((0, 1)), grad_B, grad_C, None, None, None


def _in_rows(t_CQab: Tensor) -> Tensor:
    """Itself where tokens are rows that are evenly apart, as parts of wider rows are; else a copy."""
    _, Q, a, b = t_CQab.shape
    strides = t_CQab.stride()
    return t_CQab if strides == (Q * strides[1], strides[1], b, 1) and strides[1] >= a * b else t_CQab.contiguous()


def _run(direction: str, plan: dict[str, Tensor], **tensors: Tensor | None) -> None:
    x, B, C = tensors["x"], tensors["B"], tensors["C"]
    assert x is not None and B is not None and C is not None
    later = dict.fromkeys(("grad", "grad_after", "grad_x", "grad_dt", "grad_decay", "grad_B", "grad_C"))
    (num_chunks, Q, H, P), (G, N) = x.shape, B.shape[2:]
    scan = _Scan(
        num_chunks=num_chunks, Q=Q, H=H, P=P, G=G, N=N, ldx=x.stride(1), ldb=B.stride(1), ldc=C.stride(1), **plan,
        **{**later, **tensors, "x": x.data_ptr(), "B": B.data_ptr(), "C": C.data_ptr()},
    )  # fmt: skip
    _room.each("scan", direction, scan, int(plan["parts"].max()) + 1)
