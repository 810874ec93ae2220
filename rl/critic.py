"""The critic: what the rest of a rollout is worth at each of its tokens. A model of the policy's shape with one number for a head.

It starts from the policy's weights and a head of zeros, and learns from returns (algorithms/ppo.py).
"""

# Shapes: N packed tokens, T trained tokens, S samples of a micro-batch, d model.

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..policies.trainable import Trainable
from .batch import TrainBatch
from .optimizer import load_optimizer_state, optimizer_state


class Critic:
    """Owns its weights and its optimizer."""

    def __init__(self, policy: Trainable, *, lr: float, value_clip: float = 0.0, grad_clip: float = 1.0) -> None:
        self.trunk, self.value_clip, self.grad_clip = copy.deepcopy(policy), value_clip, grad_clip
        self.head = nn.Linear(policy.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for moe in self.trunk.routers():
            moe.gate.weight.requires_grad_(False)
        self.trunk.head.requires_grad_(False)
        trained = [p for p in [*self.trunk.parameters(), *self.head.parameters()] if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def values(self, batch: TrainBatch) -> tuple[np.ndarray, np.ndarray]:
        """Of what is to come at each trained token before it is chosen [T], and of where each sample ends [S]."""
        assert batch.ends_S is not None
        values_N = self._values(batch)
        return values_N[batch.positions_T].numpy(), values_N[batch.ends_S].numpy()

    def step(self, batches: Sequence[TrainBatch]) -> float:
        """One step towards the returns. Returns the loss; a gradient that is not finite skips the step."""
        total = 0.0
        for batch in batches:
            assert batch.returns_T is not None and batch.values_T is not None
            values_T = self._values(batch)[torch.from_numpy(batch.positions_T)]
            to = lambda array: torch.from_numpy(array).to(values_T.dtype)  # noqa: B023, E731
            loss_T = value_loss(values_T, to(batch.values_T), to(batch.returns_T), self.value_clip)
            loss = (loss_T * to(batch.weights_T)).sum() / batch.num_trained_tokens
            loss.backward()
            total += float(loss.detach())
        trained = self.optimizer.param_groups[0]["params"]
        norm = float(nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], self.grad_clip))
        if math.isfinite(norm) and math.isfinite(total):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _values(self, batch: TrainBatch) -> Tensor:
        packing = self.trunk.plan(batch.lengths, batch.parents)
        hidden_Nd, _ = self.trunk(torch.from_numpy(batch.token_ids_N), packing)
        return self.head(hidden_Nd).squeeze(1)  # type: ignore[no-any-return]

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer as named tensors."""
        weights = {f"trunk.{name}": t for name, t in self.trunk.state_dict().items()}
        weights |= {f"head.{name}": t for name, t in self.head.state_dict().items()}
        return weights | {f"optimizer.{name}": t for name, t in optimizer_state([self.optimizer]).items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        part = lambda name: {k.removeprefix(name): t for k, t in tensors.items() if k.startswith(name)}  # noqa: E731
        self.trunk.load_state_dict(part("trunk."))
        self.head.load_state_dict(part("head."))
        load_optimizer_state([self.optimizer], part("optimizer."))


def value_loss(values_T: Tensor, old_values_T: Tensor, returns_T: Tensor, clip: float) -> Tensor:
    """Half the squared error of each value, of the worse of itself and itself within `clip` of what it was (0: of itself)."""
    error_T = (values_T - returns_T).square()
    if clip:
        near_T = old_values_T + (values_T - old_values_T).clamp(-clip, clip)
        error_T = torch.maximum(error_T, (near_T - returns_T).square())
    return error_T / 2
