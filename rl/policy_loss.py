"""The loss that knows no algorithm: of the log-probabilities of a batch's trained tokens and the streams beside them."""

# Shapes: T trained tokens of a micro-batch.

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .algorithms import Algorithm
from .batch import TrainBatch
from .importance import Correction
from .kl import KLPenalty
from .losses import token_mean_loss

Loss = Callable[[Tensor, "Streams"], Tensor]
"""Of the log-probabilities [T] of trained tokens."""


@dataclass(frozen=True)
class Streams:
    """A TrainBatch's per-token streams as tensors."""

    advantages_T: Tensor
    rollout_logprobs_T: Tensor
    old_logprobs_T: Tensor
    """Of the policy that the ratio is against: the rollout's own, or the learner's before this step's first update."""
    reference_logprobs_T: Tensor | None
    weights_T: Tensor
    sequence_T: Tensor
    """The sample that each token belongs to."""
    num_trained_tokens: float
    algorithm: str = ""
    has_old: bool = False
    """Whether `old_logprobs_T` are the learner's."""

    @staticmethod
    def of(batch: TrainBatch, dtype: torch.dtype) -> Streams:
        to = lambda array: torch.from_numpy(array).to(dtype)  # noqa: E731
        rollout_T, old_T, reference_T = batch.rollout_logprobs_T, batch.old_logprobs_T, batch.reference_logprobs_T
        return Streams(
            advantages_T=to(batch.advantages_T),
            rollout_logprobs_T=to(rollout_T),
            old_logprobs_T=to(rollout_T if old_T is None else old_T),
            reference_logprobs_T=None if reference_T is None else to(reference_T),
            weights_T=to(batch.weights_T),
            sequence_T=torch.from_numpy(batch.sample_T),
            num_trained_tokens=batch.num_trained_tokens,
            algorithm=batch.algorithm,
            has_old=old_T is not None,
        )


def negative_log_likelihood(logprobs_T: Tensor, streams: Streams) -> Tensor:
    """The loss of supervised fine-tuning. Each token's coefficient is known beforehand, so the head takes one pass."""
    return token_mean_loss(logprobs_T, streams.weights_T, num_trained_tokens=streams.num_trained_tokens)


@dataclass(frozen=True)
class PolicyLoss:
    """The one loss of all algorithms: each token's objective, corrected for who sampled it, less what the reference costs."""

    algorithms: Mapping[str, Algorithm]
    """By name, as batches say."""
    correction: Correction = Correction()
    kl: KLPenalty = KLPenalty()
    old_policy: Literal["rollout", "learner"] = "rollout"

    def __call__(self, logprobs_T: Tensor, streams: Streams) -> Tensor:
        if self.old_policy == "learner" and not streams.has_old:  # nothing was updated yet: these are the old ones
            streams = dataclasses.replace(streams, old_logprobs_T=logprobs_T.detach())
        logprobs_T, streams = harmless(logprobs_T, streams)
        objective_T = self.algorithms[streams.algorithm].objective(logprobs_T, streams)
        if self.kl.coefficient and streams.reference_logprobs_T is not None:
            cost_T = self.kl.penalty(logprobs_T, streams.old_logprobs_T, streams.reference_logprobs_T)
            objective_T = objective_T - self.kl.coefficient * cost_T
        old_T, counts_T = streams.old_logprobs_T, streams.weights_T > 0
        rollout_T = torch.where(counts_T, streams.rollout_logprobs_T, old_T.detach())
        weights_T = streams.weights_T * self.correction.weights(old_T, rollout_T, streams.sequence_T)
        kept_T = torch.where(weights_T > 0, objective_T, torch.zeros_like(objective_T))
        return token_mean_loss(kept_T, weights_T, num_trained_tokens=streams.num_trained_tokens)


def harmless(logprobs_T: Tensor, streams: Streams) -> tuple[Tensor, Streams]:
    """Tokens that are left out stay out whatever their numbers are: 0 times NaN is NaN, forward and backward. What is not finite of them
    becomes what would change nothing: no advantage, and the learner's own probability everywhere."""
    counts_T = streams.weights_T > 0
    logprobs_T = torch.where(counts_T | logprobs_T.isfinite(), logprobs_T, torch.zeros_like(logprobs_T))
    own_T = logprobs_T.detach()

    def kept(values_T: Tensor, otherwise_T: Tensor) -> Tensor:
        return torch.where(counts_T | values_T.isfinite(), values_T, otherwise_T)

    reference_T = streams.reference_logprobs_T
    return logprobs_T, dataclasses.replace(
        streams,
        advantages_T=kept(streams.advantages_T, torch.zeros_like(streams.advantages_T)),
        rollout_logprobs_T=kept(streams.rollout_logprobs_T, own_T),
        old_logprobs_T=kept(streams.old_logprobs_T, own_T),
        reference_logprobs_T=None if reference_T is None else kept(reference_T, own_T),
    )
