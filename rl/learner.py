"""The learner: logprobs of packed tokens, one optimizer step, its state. It knows no algorithm beyond the loss it is given.

Routes recorded by the engine are replayed, so the learner scores the very distribution that was sampled (mismatch.py watches).
"""

# Shapes: N packed tokens, T trained tokens, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..kernels.router import balance_loss
from ..policies.trainable import Trainable
from .batch import TrainBatch
from .faults import fault
from .muon import Muon
from .optimizer import load_optimizer_state, optimizer_state
from .policy_loss import Loss, Streams, negative_log_likelihood


@dataclass(frozen=True)
class RouterTraining:
    """What an optimizer step does to the routers. Reinforcement learning leaves them as they are, by default."""

    weights: bool = False
    """Whether their weights are trained."""
    bias_rate: float = 0.0
    """How far their selection biases move towards even loads."""
    aux_loss: float = 0.0
    """Of the loss that draws scores towards even loads (kernels/router.py); 1e-4 in pretraining. It is each micro-batch's own, at
    the share of its tokens."""


@dataclass
class StepMetrics:
    """What one optimizer step says of itself."""

    loss: float = 0.0
    grad_norm: float = 0.0
    entropy: float = 0.0
    num_trained_tokens: int = 0
    num_packed_tokens: int = 0
    drift: float = 0.0
    """How far the weights moved trained tokens' log-probabilities from their rollout's, in the mean."""
    max_violation: float = 0.0
    """MaxVio, how uneven the experts' loads are (policies/balance.py)."""
    idle_experts: float = 0.0
    """The share of experts that were given no token."""
    skipped: bool = False
    suspects: tuple[int, ...] = ()
    """The batches whose loss is not finite, or all where a gradient alone is not. Empty but for a skipped step."""
    model_s: float = 0.0
    """Seconds of forward and backward passes."""
    figures: dict[str, float] = field(default_factory=dict)
    """What its loss did with its tokens (loss_figures.py)."""


class Learner:
    """Owns the weights and the optimizers. `version` counts optimizer steps taken in reinforcement learning."""

    def __init__(
        self,
        model: Trainable,
        *,
        optimizer: str,
        lr: float,
        grad_clip: float = 1.0,
        routers: RouterTraining = RouterTraining(),
    ) -> None:
        self.model, self.grad_clip, self.routers = model, grad_clip, routers
        for moe in model.routers():
            moe.gate.weight.requires_grad_(routers.weights)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        outer = ("embeddings.weight", "embed_tokens.weight", "lm_head.weight", "gate.weight")
        matrices = [p for n, p in trained.items() if p.dim() >= 2 and not n.endswith((*outer, "conv1d.weight"))]
        rest = [p for n, p in trained.items() if p.dim() < 2 or n.endswith((*outer, "conv1d.weight"))]
        self.optimizers: list[torch.optim.Optimizer] = []
        if optimizer == "muon":
            self.optimizers.append(Muon(matrices, lr=lr))
            self.optimizers.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True))
        elif optimizer == "adamw":
            adamw = torch.optim.AdamW([*matrices, *rest], lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
            self.optimizers.append(adamw)
        else:
            raise ValueError(f"optimizer is 'muon' or 'adamw', got {optimizer!r}")
        self.lr = lr

    def logprobs(self, batch: TrainBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability and entropy of each trained token [T], and the routes taken [N, E, K]."""
        return token_logprobs(self.model, batch)

    def _score(self, batch: TrainBatch, loss: Loss, share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss, log-probabilities and entropies of a batch with `share` of a step's tokens, and its routes."""
        scores: list[Tensor] | None = [] if self.routers.aux_loss else None
        hidden_Td, routes_NEK = hidden_states(self.model, batch, scores)
        targets, streams = _targets(batch, hidden_Td), Streams.of(batch, hidden_Td.dtype)
        if loss is negative_log_likelihood:
            coefficients_T = -streams.weights_T / streams.num_trained_tokens
            value, logprobs_T, entropy_T = self.model.weighted_logprobs(
                hidden_Td, targets[0], targets[1], coefficients_T, targets[2]
            )
        else:
            logprobs_T, entropy_T = self.model.logprobs(hidden_Td, *targets)
            value = loss(logprobs_T, streams)
        if scores:
            uneven = [balance_loss(scores_NE, routes_NEK[:, layer]) for layer, scores_NE in enumerate(scores)]
            value = value + self.routers.aux_loss * share * torch.stack(uneven).mean()
        return value, logprobs_T, entropy_T, routes_NEK

    def score(self, batch: TrainBatch) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability and entropy of each trained token [T] by the present weights, without gradient."""
        return score(self.model, batch)

    @torch.no_grad()
    def live_routes(self, batch: TrainBatch) -> np.ndarray:
        """The routes [N, E, K] that the present weights take of themselves."""
        return self.logprobs(dataclasses.replace(batch, routes_NEK=None))[2].numpy()

    def step(
        self,
        batches: Sequence[TrainBatch],
        loss: Loss,
        *,
        lr_scale: float = 1.0,
        observe: Callable[[TrainBatch, np.ndarray], None] | None = None,
    ) -> StepMetrics:
        """One optimizer step over micro-batches. `observe` is shown each one's log-probabilities before the weights change.

        A gradient that is not finite skips the step and is reported.
        """
        losses: list[float] = []
        metrics = StepMetrics(num_packed_tokens=sum(len(batch.token_ids_N) for batch in batches))
        loads = self.model.loads()
        for batch in batches:
            began = time.perf_counter()
            share = len(batch.token_ids_N) / metrics.num_packed_tokens
            value, logprobs_T, entropy_T, routes_NEK = self._score(batch, loss, share)
            value.backward()
            metrics.model_s += time.perf_counter() - began
            losses.append(float(value.detach()))
            metrics.entropy += float(entropy_T.sum())
            rollout_T = torch.from_numpy(batch.rollout_logprobs_T)
            metrics.drift += float((logprobs_T.detach() - rollout_T).abs().sum())
            metrics.num_trained_tokens += len(batch.targets_T)
            if observe is not None:
                observe(batch, logprobs_T.detach().numpy())
            loads.add(routes_NEK)
        metrics.max_violation, metrics.idle_experts = loads.max_violation, loads.idle_share
        metrics.entropy /= max(metrics.num_trained_tokens, 1)
        metrics.drift /= max(metrics.num_trained_tokens, 1)
        metrics.loss = sum(losses)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if parameters and fault("learner.gradient"):
            parameters[0].grad.fill_(math.nan)  # type: ignore[union-attr]
        metrics.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.grad_clip)) if parameters else 0.0
        metrics.skipped = not (math.isfinite(metrics.grad_norm) and math.isfinite(metrics.loss))
        if metrics.skipped:
            wrong = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
            metrics.suspects = tuple(wrong or range(len(batches)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * lr_scale
            if not metrics.skipped and parameters:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.routers.bias_rate and not metrics.skipped:
            self.model.balance(loads, self.routers.bias_rate)
        return metrics

    def state(self) -> dict[str, Tensor]:
        """The optimizers' state as named tensors; the weights are the model's own."""
        return optimizer_state(self.optimizers)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        load_optimizer_state(self.optimizers, tensors)


def _targets(batch: TrainBatch, hidden_Td: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Targets, temperatures and supports of the trained tokens."""
    support_TS = None if batch.support_TS is None else torch.from_numpy(batch.support_TS)
    return torch.from_numpy(batch.targets_T), torch.from_numpy(batch.temperatures_T).to(hidden_Td.dtype), support_TS


def hidden_states(model: Trainable, batch: TrainBatch, scores: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states of the tokens that predict [T, d], and the routes of all. `scores` takes the routers' scores."""
    packing = model.plan(batch.lengths, batch.parents)
    routes = None if batch.routes_NEK is None else torch.from_numpy(batch.routes_NEK)
    ids_N = torch.from_numpy(batch.token_ids_N)
    hidden_Nd, routes_NEK = model(ids_N, packing, routes_NEK=routes, scores=scores)
    return hidden_Nd.index_select(0, torch.from_numpy(batch.positions_T)), routes_NEK


def token_logprobs(model: Trainable, batch: TrainBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability and entropy of each trained token [T], and the routes taken [N, E, K]."""
    hidden_Td, routes_NEK = hidden_states(model, batch)
    return *model.logprobs(hidden_Td, *_targets(batch, hidden_Td)), routes_NEK


@torch.no_grad()
def score(model: Trainable, batch: TrainBatch) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability and entropy of each trained token [T], without gradient."""
    logprobs_T, entropy_T, _ = token_logprobs(model, batch)
    return logprobs_T.numpy(), entropy_T.numpy()
