"""Loads of experts: who was given how many tokens, how uneven that is, and the selection bias that evens it out.

    b_e += rate * sign(mean load - load_e)          once an optimizer step, over the loads of all its tokens

Source: https://arxiv.org/abs/2408.15664. Loads of other processes are added before the bias moves, so that all take the same step.
A packed row holds no padding; where there is some, its tokens are not counted.
"""

# Shapes: N tokens, L mixture-of-experts layers, K experts of a token, E experts.

from __future__ import annotations

import torch
from torch import Tensor


class ExpertLoads:
    """Tokens that each expert of each layer was given."""

    def __init__(self, num_layers: int, num_experts: int) -> None:
        self.counts_LE = torch.zeros(num_layers, num_experts, dtype=torch.int64)

    def add(self, routes_NLK: Tensor, counted_N: Tensor | None = None) -> None:
        """Count the tokens of a pass, but for those where `counted_N` is False."""
        if counted_N is not None:
            routes_NLK = routes_NLK[counted_N]
        num_layers, num_experts = self.counts_LE.shape
        if num_layers and len(routes_NLK):
            place = routes_NLK + num_experts * torch.arange(num_layers, device=routes_NLK.device).unsqueeze(1)
            counts = torch.bincount(place.reshape(-1), minlength=num_layers * num_experts)
            self.counts_LE += counts.view(num_layers, num_experts).cpu()

    @property
    def max_violation(self) -> float:
        """MaxVio: the worst layer's largest load over its mean, less 1. 0 is even; E / K - 1 is the worst there can be."""
        loads_LE = self.counts_LE.double()
        return float((loads_LE.amax(1) / loads_LE.mean(1).clamp(min=1e-9)).max()) - 1 if self.counts_LE.any() else 0.0

    @property
    def idle_share(self) -> float:
        """Of the experts, those that were given no token."""
        return float((self.counts_LE == 0).double().mean()) if self.counts_LE.numel() else 0.0

    def bias_step(self, layer: int) -> Tensor:
        """The direction [E] in which a layer's selection bias moves: +1 towards experts with less than the mean load."""
        loads_E = self.counts_LE[layer].double()
        return torch.sign(loads_E.mean() - loads_E).float()
