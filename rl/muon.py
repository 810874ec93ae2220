"""Muon: momentum whose matrices are orthogonalised before they are applied (https://kellerjordan.github.io/posts/muon).

torch.optim.Muon takes matrices one by one and refuses stacks of experts; here all matrices of one shape, an expert stack's
included, are orthogonalised in one batched Newton-Schulz iteration, which is what a small model on a CPU needs.
"""

# Shapes: B matrices of one shape, r rows, c columns.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The quintic of the reference: singular values come to lie between about 0.7 and 1.2 after five steps."""


def orthogonalize(matrices_Brc: Tensor, steps: int = 5) -> Tensor:
    """Approximately U V^T of each matrix's singular value decomposition."""
    a, b, c = _COEFFICIENTS
    tall = matrices_Brc.shape[1] > matrices_Brc.shape[2]
    x = matrices_Brc.mT if tall else matrices_Brc
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions, or three (a stack of matrices). The update's root mean square is about 0.2 lr
    times sqrt(max(r, c)), which matches AdamW's scale (https://arxiv.org/abs/2502.16982)."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape[-2:])].append(parameter)
            for parameters in by_shape.values():
                self._step_shape(parameters, group)

    def _step_shape(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        directions = []
        for parameter in parameters:
            state, grad = self.state[parameter], parameter.grad
            assert grad is not None
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(grad, 1 - group["momentum"])
            directions.append(torch.lerp(grad, momentum, group["momentum"]).reshape(-1, *parameter.shape[-2:]))
        updates = orthogonalize(torch.cat(directions)).split([len(d) for d in directions])
        scale = 0.2 * max(parameters[0].shape[-2:]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)
