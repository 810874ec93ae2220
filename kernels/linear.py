"""Products of matrices in fp32 on a CPU: ours in C (cpu/linear.h) where a tile of them fits into the processor's registers, else torch's.

The libraries that torch brings choose their kernels by the vendor of a processor: on one of another vendor they leave half of each vector
register unused, and at the widths of small models much of the rest. An element's sum goes over K in one fixed order, so a row's bits
are the same in whatever company and for any number of threads.
"""

# Shapes: M rows, K summed, N columns; d inputs and n outputs of a layer.

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backend import needs_gradient, setting
from .compiled import in_threads, library, uses_compiled

_LEAST = 1 << 20
"""Multiply-adds below which a call of torch's costs less."""
_ROWS_OF_A_TILE = 8
_LEAST_ROWS = 128
"""Of a layer's input, below which turning its weight round costs more than is won."""


def linear_ref(x_d: Tensor, weight_nd: Tensor) -> Tensor:
    """x W^T over the last dimension. Returns [..., n]."""
    return F.linear(x_d, weight_nd)


def linear(x_d: Tensor, weight_nd: Tensor) -> Tensor:
    """`linear_ref`, with gradients of its own."""
    n, d = weight_nd.shape
    M = x_d.numel() // d
    if not _in_c(x_d, weight_nd, M * n * d if M >= _LEAST_ROWS else 0):
        return F.linear(x_d, weight_nd)
    x_Md = x_d.reshape(M, d)
    if needs_gradient(x_Md, weight_nd):
        y_Mn = _Linear.apply(x_Md, weight_nd)
    else:
        y_Mn = times(x_Md, weight_nd.T.contiguous())
    return y_Mn.view(*x_d.shape[:-1], n)  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return times(x, weight.T.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad_x = times(grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = times(grad.T, x) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight


def times(a_MK: Tensor, b_KN: Tensor, out_MN: Tensor | None = None, *, add: bool = False) -> Tensor:
    """The product, or `out_MN` set to it, or with it added. It has no gradient of its own."""
    (M, K), N = a_MK.shape, b_KN.shape[1]
    if b_KN.stride(1) != 1 or not _in_c(a_MK, b_KN, M * K * N) or (out_MN is not None and out_MN.stride(1) != 1):
        if out_MN is None:
            return a_MK @ b_KN
        return out_MN.addmm_(a_MK, b_KN) if add else torch.mm(a_MK, b_KN, out=out_MN)
    out = a_MK.new_empty(M, N) if out_MN is None else out_MN
    tiles = -(-M // _ROWS_OF_A_TILE)
    num_threads = min(torch.get_num_threads(), tiles)
    edges = [min(tiles * part // num_threads * _ROWS_OF_A_TILE, M) for part in range(num_threads + 1)]
    a, y, (row, column), ldy = a_MK.data_ptr(), out.data_ptr(), a_MK.stride(), out.stride(0)

    def rows(thread: int) -> None:
        first, last = edges[thread : thread + 2]
        _product()(
            a + 4 * first * row, row, column, b_KN.data_ptr(), b_KN.stride(0), last - first, K, N, y + 4 * first * ldy, ldy, add
        )  # fmt: skip

    in_threads(rows, num_threads)
    return out


def _in_c(a: Tensor, b: Tensor, multiply_adds: int) -> bool:
    """Where it is faster, or wherever there is something to do if the setting asks for it."""
    if setting() == "c":
        return min(*a.shape, *b.shape) > 0 and uses_compiled(a, b)
    return multiply_adds >= _LEAST and uses_compiled(a, b) and is_wide()


@cache
def is_wide() -> bool:
    """Whether the processor has the registers that the form in C is made for."""
    loaded = library()
    return loaded is not None and bool(loaded.swannery_is_wide())


@cache
def _product() -> Any:
    loaded = library()
    assert loaded is not None
    call, number, address = loaded.swannery_product, ctypes.c_int64, ctypes.c_void_p
    call.restype = None
    call.argtypes = [address, number, number, address, number, number, number, number, address, number, number]
    return call
