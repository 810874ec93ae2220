"""The chosen experts of many tokens in C (cpu/routed.h): nothing is gathered, squared or scattered in memory of its own."""

# Shapes: N tokens, E experts, K chosen experts of a token, d model, f expert width, M = N K choices.

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiled import Room, Structure, fields, in_threads, library

_room = Room()
_LEAST_TOKENS = 64
"""Of a thread."""


class _Routed(Structure):
    """`Routed` of routed.h."""

    _fields_ = fields(
        "N d f E K", "", "order places ends x gates up down before rows grad grad_gates grad_up grad_down"
    )  # fmt: skip


def experts_cpu(x_Nd: Tensor, gates_NK: Tensor, chosen_NK: Tensor, up_Efd: Tensor, down_Edf: Tensor) -> Tensor:
    """`experts` of fp32 tensors on a CPU."""
    return _Experts.apply(x_Nd, gates_NK, up_Efd, down_Edf, chosen_NK)  # type: ignore[no-any-return]


class _Experts(torch.autograd.Function):
    """Threads take experts, then tokens: what one writes no other touches, and the order of sums is always the same."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, gates: Tensor, up: Tensor, down: Tensor, chosen: Tensor
    ) -> Tensor:
        flat_M = chosen.reshape(-1)
        order_M = flat_M.argsort(stable=True)
        places_M = torch.empty_like(order_M)
        places_M[order_M] = torch.arange(len(order_M))
        ends_E = torch.bincount(flat_M, minlength=len(up)).cumsum(0)
        plan = {"order": order_M, "places": places_M, "ends": ends_E}
        given = {"x": x, "gates": gates, "up": up, "down": down}
        given = {name: tensor.contiguous() for name, tensor in given.items()}
        before_Mf, rows_Md = x.new_empty(len(flat_M), up.shape[1]), x.new_empty(len(flat_M), x.shape[1])
        routed = _routed(chosen.shape[1], **plan, **given, before=before_Mf, rows=rows_Md)
        _room.each("routed", "forward", routed, len(up))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*plan.values(), *given.values(), before_Mf)
            ctx.K = chosen.shape[1]
        return _sums(routed, given["gates"])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        order, places, ends, x, gates, up, down, before = ctx.saved_tensors
        grad_gates, grad_up, grad_down = (torch.empty_like(t) for t in (gates, up, down))
        routed = _routed(
            ctx.K, order=order, places=places, ends=ends, x=x, gates=gates, up=up, down=down, before=before, grad=grad.contiguous(),
            rows=x.new_empty(len(order), x.shape[1]), grad_gates=grad_gates, grad_up=grad_up, grad_down=grad_down,
        )  # fmt: skip
        _room.each("routed", "backward", routed, len(up))
        return _sums(routed, None), grad_gates, grad_up, grad_down, None


def _routed(K: int, **tensors: Tensor) -> _Routed:
    (N, d), (E, f, _) = tensors["x"].shape, tensors["up"].shape
    later = dict.fromkeys(("grad", "grad_gates", "grad_up", "grad_down"))
    return _Routed(N=N, d=d, f=f, E=E, K=K, **{**later, **tensors})


def _sums(routed: _Routed, gates: Tensor | None) -> Tensor:
    """Of each token's choices' rows [N, d]."""
    loaded, at = library(), ctypes.c_void_p(ctypes.addressof(routed))
    assert loaded is not None
    y_Nd, N = torch.empty(routed.N, routed.d, dtype=torch.float32, device="cpu"), routed.N
    num_threads = max(min(torch.get_num_threads(), N // _LEAST_TOKENS), 1)
    edges = [N * part // num_threads for part in range(num_threads + 1)]
    weights = ctypes.c_void_p(None if gates is None else gates.data_ptr())

    def tokens(thread: int) -> None:
        first, last = (ctypes.c_int64(edge) for edge in edges[thread : thread + 2])
        loaded.swannery_routed_sums(at, weights, first, last, ctypes.c_void_p(y_Nd.data_ptr()))

    in_threads(tokens, num_threads)
    return y_Nd
