"""Mixture-of-experts: the chosen experts' grouped matrix products with relu squared. The choice is router.py's.

y = sum over chosen e of gate_e * W_down_e relu(W_up_e x)^2
"""

# Shapes: N tokens, E experts, K chosen experts of a token, d model, f expert width.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import uses_triton
from .compiled import uses_compiled
from .experts_cpu import experts_cpu


def experts_ref(x_Nd: Tensor, gates_NK: Tensor, chosen_NK: Tensor, up_Efd: Tensor, down_Edf: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    rows = []
    for x, gates, chosen in zip(x_Nd, gates_NK, chosen_NK, strict=True):
        outputs = [g * (down_Edf[e] @ torch.relu(up_Efd[e] @ x) ** 2) for g, e in zip(gates, chosen, strict=True)]
        rows.append(torch.stack(outputs).sum(0))
    return torch.stack(rows)


def experts(x_Nd: Tensor, gates_NK: Tensor, chosen_NK: Tensor, up_Efd: Tensor, down_Edf: Tensor) -> Tensor:
    """`experts_ref` as two grouped matrix products over the tokens sorted by expert."""
    if len(x_Nd) and uses_triton(x_Nd, up_Efd, down_Edf):
        from .experts_triton import experts_triton

        return experts_triton(x_Nd, gates_NK, chosen_NK, up_Efd, down_Edf)
    if len(x_Nd) and uses_compiled(x_Nd, gates_NK, up_Efd, down_Edf):
        return experts_cpu(x_Nd, gates_NK, chosen_NK, up_Efd, down_Edf)
    K = chosen_NK.shape[1]
    flat = chosen_NK.reshape(-1)
    order = flat.argsort(stable=True)
    ends_E = torch.bincount(flat, minlength=up_Efd.shape[0]).cumsum(0)
    y = _Experts.apply(x_Nd, gates_NK.reshape(-1, 1).to(x_Nd.dtype), up_Efd, down_Edf, order, ends_E, K)
    return y  # type: ignore[no-any-return]


def _grouped(x_Md: Tensor, weight_Edf: Tensor, ends_E: Tensor) -> Tensor:
    """x rows of expert e times weight[e], by torch's grouped product or a loop of products.

    On a CPU the grouped product wins for the few rows of a decode step and a transposed weight; with a plain one it is
    25 times slower than the loop (torch 2.13), and it has no float64. Rows of it begin at multiples of 16 bytes.
    """
    strides = (*x_Md.stride(), *weight_Edf.stride())
    even = all(stride == 1 or stride * x_Md.element_size() % 16 == 0 for stride in strides)
    few = x_Md.shape[0] < 2048 and weight_Edf.stride(2) != 1 and x_Md.dtype in (torch.float32, torch.bfloat16)
    if even and (x_Md.is_cuda or few):
        return F.grouped_mm(x_Md, weight_Edf, offs=ends_E.to(torch.int32))
    out = x_Md.new_empty(x_Md.shape[0], weight_Edf.shape[2])
    start = 0
    for e, end in enumerate(ends_E.tolist()):
        torch.mm(x_Md[start:end], weight_Edf[e], out=out[start:end])
        start = end
    return out


def _grouped_outer(a_Md: Tensor, b_Mf: Tensor, ends_E: Tensor) -> Tensor:
    """a^T b over the rows of each expert: the gradient of a grouped product's weights."""
    out = a_Md.new_empty(len(ends_E), a_Md.shape[1], b_Mf.shape[1])
    start = 0
    for e, end in enumerate(ends_E.tolist()):
        torch.mm(a_Md[start:end].T, b_Mf[start:end], out=out[e])
        start = end
    return out


class _Experts(torch.autograd.Function):
    """Rows are tokens' choices, sorted by expert. The backward keeps no outputs: a gate's gradient, grad . W_down act, is taken in the
    experts' width as W_down^T grad . act."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_Nd: Tensor, gates_M1: Tensor, up: Tensor, down: Tensor, order: Tensor, ends: Tensor, K: int
    ) -> Tensor:
        token_M = order.div(K, rounding_mode="floor")
        x_Md = x_Nd.index_select(0, token_M)
        pre_Mf = _grouped(x_Md, up.transpose(1, 2), ends)
        out_Md = _grouped(torch.relu(pre_Mf).square_(), down.transpose(1, 2), ends)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x_Md, gates_M1, up, down, order, ends, inverse, pre_Mf)
            ctx.K = K
        rows_NKd = out_Md.index_select(0, inverse).view(-1, K, x_Nd.shape[1])
        return (gates_M1.view(-1, 1, K) @ rows_NKd).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad_Nd: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_Md, gates_M1, up, down, order, ends, inverse, pre_Mf = ctx.saved_tensors
        grad_Md = grad_Nd.index_select(0, order.div(ctx.K, rounding_mode="floor"))
        relu_Mf = torch.relu(pre_Mf)
        act_Mf = relu_Mf.square()
        grad_act_Mf = _grouped(grad_Md, down, ends)
        grad_gates = (grad_act_Mf * act_Mf).sum(1).index_select(0, inverse).unsqueeze(1)
        gate_M1 = gates_M1.index_select(0, order)
        grad_down = _grouped_outer(grad_Md, act_Mf.mul_(gate_M1), ends) if ctx.needs_input_grad[3] else None
        grad_pre = grad_act_Mf.mul_(relu_Mf).mul_(2 * gate_M1)
        grad_up = _grouped_outer(grad_pre, x_Md, ends) if ctx.needs_input_grad[2] else None
        grad_x = _grouped(grad_pre, up, ends).index_select(0, inverse).view(-1, ctx.K, x_Md.shape[1]).sum(1)
        return grad_x, grad_gates, grad_up, grad_down, None, None, None
