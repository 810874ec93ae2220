"""experts.py in Triton: tokens sorted by expert, and products of each expert's rows with its own weights, tile by tile.

    pre = x[token] W_up^T        out = relu(pre)^2 W_down^T        y = sum over a token's choices of gate * out

Rows are tokens' choices in the order of their experts. A tile's rows belong to one expert; how many tiles there are is known on the device
alone, so their upper bound is launched, and those beyond exit. Rows are gathered as they are read, relu squared is taken as it is read,
and what is kept for the backward is `pre`. A row's sums are taken by one program in a fixed order, and a token's rows are added in that of
its choices: two runs give the same bits. The kernels are in grouped_rows_triton.py.
"""

# Shapes: N tokens, E experts, K chosen experts of a token, M = N K rows, d model, f expert width, T tiles.

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .grouped_rows_triton import outer_kernel, rows_kernel, sum_kernel

BLOCK_N, BLOCK_K, BLOCK_SUM = 128, 32, 1024


class Rows(NamedTuple):
    """Tokens' choices sorted by expert, and their tiles."""

    order_M: Tensor
    """The choice (token K + its number) that each row is."""
    inverse_M: Tensor
    """The row of each choice."""
    ends_E: Tensor
    """Where each expert's rows end."""
    expert_T: Tensor
    """The expert of each tile; E beyond the last."""
    first_T: Tensor
    block: int
    K: int

    @staticmethod
    def of(chosen_NK: Tensor, num_experts: int) -> Rows:
        flat, device = chosen_NK.reshape(-1), chosen_NK.device
        M = len(flat)
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(M, device=device)
        ones = torch.ones(1, dtype=torch.int64, device=device).expand(M)
        counts_E = torch.zeros(num_experts, dtype=torch.int64, device=device).index_add_(0, flat, ones)
        ends_E = counts_E.cumsum(0)
        # Few rows an expert, as in a decode step, want low tiles.
        block = min(max(triton.next_power_of_2(max(M // num_experts, 1)), 16), 64)
        tile_ends_E = ((counts_E + block - 1) // block).cumsum(0)
        tile_T = torch.arange(triton.cdiv(M, block) + min(num_experts, M), device=device)
        expert_T = torch.searchsorted(tile_ends_E, tile_T, right=True)
        expert = expert_T.clamp(max=num_experts - 1)
        before = (tile_ends_E - (counts_E + block - 1) // block)[expert]
        first_T = (ends_E - counts_E)[expert] + (tile_T - before) * block
        return Rows(order, inverse, ends_E, expert_T, first_T, block, chosen_NK.shape[1])


def experts_triton(x_Nd: Tensor, gates_NK: Tensor, chosen_NK: Tensor, up_Efd: Tensor, down_Edf: Tensor) -> Tensor:
    """`experts`. Returns [N, d] in x's type."""
    rows = Rows.of(chosen_NK, up_Efd.shape[0])
    return _Experts.apply(x_Nd, gates_NK, up_Efd, down_Edf, rows)  # type: ignore[no-any-return]


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor, up: Tensor, down: Tensor, rows: Rows) -> Tensor:  # type: ignore[override]
        x, gates, up, down = (t.contiguous() for t in (x, gates, up, down))
        M, d, f = len(rows.order_M), x.shape[1], up.shape[1]
        pre_Mf, out_Md = x.new_empty(M, f), x.new_empty(M, d)
        _times(x, up, up.stride(), rows, pre_Mf, gathered=True)
        _times(pre_Mf, down, down.stride(), rows, out_Md, squared=True)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, gates, up, down, pre_Mf)
            ctx.rows = rows
        return _summed(out_Md, rows, gates)

    @staticmethod
    def backward(ctx: Any, grad_Nd: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gates, up, down, pre_Mf = ctx.saved_tensors
        rows, grad_Nd = ctx.rows, grad_Nd.contiguous()
        dpre_Mf = torch.empty_like(pre_Mf)
        along = _times(grad_Nd, down, _transposed(down), rows, dpre_Mf, gathered=True, pre=pre_Mf, gates=gates)
        dgates = along[rows.inverse_M].view_as(gates).to(gates.dtype)
        dx = dup = ddown = None
        if ctx.needs_input_grad[0]:
            dx_Md = x.new_empty(len(rows.order_M), x.shape[1])
            _times(dpre_Mf, up, _transposed(up), rows, dx_Md)
            dx = _summed(dx_Md, rows)
        if ctx.needs_input_grad[2]:
            dup = _outer(dpre_Mf, x, rows, torch.empty_like(up), right_gathered=True)
        if ctx.needs_input_grad[3]:
            ddown = _outer(grad_Nd, pre_Mf, rows, torch.empty_like(down), left_gathered=True, gates=gates)
        return dx, dgates, dup, ddown, None


def _dot(x: Tensor) -> Any:
    """The type of products. The interpreter is wrong about those of bf16."""
    return tl.bfloat16 if x.dtype is torch.bfloat16 and x.is_cuda else tl.float32


def _transposed(weight: Tensor) -> tuple[int, ...]:
    """Strides of expert, column of the result, and what is summed over, for rows times the weights as they lie."""
    return weight.stride(0), weight.stride(2), weight.stride(1)


def _times(
    a: Tensor,
    weight: Tensor,
    strides: tuple[int, ...],
    rows: Rows,
    out: Tensor,
    *,
    gathered: bool = False,
    squared: bool = False,
    pre: Tensor | None = None,
    gates: Tensor | None = None,
) -> Tensor:
    """Rows times their experts' weights, into `out`. With `pre` and `gates` it is the backward of relu squared, and returns the gradients
    of the gates, in the order of rows."""
    (M, wide), D_in = out.shape, a.shape[1]
    blocks = triton.cdiv(wide, BLOCK_N)
    along = out.new_empty(blocks if pre is not None else 0, M, dtype=torch.float32)
    rows_kernel[(len(rows.expert_T), blocks)](
        a, weight, out, rows.order_M, rows.ends_E, rows.expert_T, rows.first_T,
        out if pre is None else pre, out if gates is None else gates, along if pre is not None else out,
        len(rows.ends_E), D_in, wide, M, *strides,
        K=rows.K, GATHERED=gathered, SQUARED=squared, BACKWARD=pre is not None, DOT=_dot(a),
        BLOCK_M=rows.block, BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K, num_warps=8 if rows.block > 32 else 4,
    )  # fmt: skip
    return along.sum(0)


def _summed(rows_MD: Tensor, rows: Rows, gates: Tensor | None = None) -> Tensor:
    """Each token's rows, perhaps times their gates, added up [N, D]."""
    D = rows_MD.shape[1]
    out = rows_MD.new_empty(len(rows_MD) // rows.K, D)
    sum_kernel[(len(out), triton.cdiv(D, BLOCK_SUM))](
        rows_MD, rows.inverse_M, rows_MD if gates is None else gates, out, D, K=rows.K, GATED=gates is not None, BLOCK=BLOCK_SUM
    )  # fmt: skip
    return out


def _outer(
    left: Tensor,
    right: Tensor,
    rows: Rows,
    out: Tensor,
    *,
    left_gathered: bool = False,
    right_gathered: bool = False,
    gates: Tensor | None = None,
) -> Tensor:
    """left^T right over each expert's rows, into `out`; with `gates` of relu squared of the right side times them."""
    grid = (len(out), triton.cdiv(out.shape[1], 64), triton.cdiv(out.shape[2], BLOCK_N))
    outer_kernel[grid](
        left, right, out, rows.order_M, rows.ends_E, left if gates is None else gates, out.shape[1], out.shape[2], K=rows.K,
        LEFT_GATHERED=left_gathered, RIGHT_GATHERED=right_gathered, SQUARED=gates is not None, DOT=_dot(right),
        BLOCK_M=32, BLOCK_I=64, BLOCK_J=BLOCK_N, num_warps=8,
    )  # fmt: skip
    return out
