"""What all mixers are made of: a projection, and a norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.linear import linear
from ..kernels.norm import rms_norm


class Linear(nn.Linear):
    """Without bias, by our product of matrices (kernels/linear.py)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return linear(x, self.weight)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.exact = eps, False

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, exact=self.exact)
