"""Operations in which a token's bits do not depend on how many there are.

A library chooses its kernel of a product by the number of rows, and with it the order in which a sum is taken: a token's projection in
a decode step of four rows and in a prefill of thousands differ in their last bits. Here every product has one shape, a tile of TILE
rows, filled up with zeros. Elementwise functions differ too: torch computes the numbers that fill vectors by one formula of the
sigmoid and those left over by another. Here they are put together from operations that have one result (exp, log, division).
"""

# Shapes: N rows, d inputs, x outputs.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 32
_FAR = 80.0
"""exp(80) is finite in fp32, and 1 + exp(-80) is 1."""


def exact_linear(x_Nd: Tensor, weight_xd: Tensor) -> Tensor:
    """`F.linear(x, weight)`, each row of which is the same bits in whatever company. Its gradients are the usual ones."""
    return _ExactLinear.apply(x_Nd, weight_xd)  # type: ignore[no-any-return]


def exact_sigmoid(x: Tensor) -> Tensor:
    return (1 + torch.exp(-x.clamp(min=-_FAR))).reciprocal()


def exact_silu(x: Tensor) -> Tensor:
    return x * exact_sigmoid(x)


def exact_softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), which is max(x, 0) + log1p(exp(-|x|)); log1p(u) = u log(1 + u) / ((1 + u) - 1) keeps small u's digits."""
    u = torch.exp(-x.abs())
    above = 1 + u
    # Where 1 + u is 1 in this precision, log1p(u) is u.
    log1p = torch.where(above == 1, u, u * torch.log(above) / torch.where(above == 1, 1, above - 1))
    return x.clamp(min=0) + log1p


class _ExactLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        tiles = F.pad(x, (0, 0, 0, -len(x) % TILE)).split(TILE)
        return torch.cat([F.linear(tile, weight) for tile in tiles])[: len(x)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        return (
            grad @ weight if ctx.needs_input_grad[0] else None,
            grad.T @ x if ctx.needs_input_grad[1] else None,
        )
