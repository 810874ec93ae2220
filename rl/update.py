"""From the groups of one step to optimizer steps.

    score -> order -> pack -> what must be known before the weights change -> steps

What crosses between the parts is plain arrays (TrainBatch); it holds no state of its own beyond the learner's, the critic's and the
reference's weights.
"""

# Shapes: T trained tokens of a micro-batch.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..policies.trainable import Trainable
from .algorithms.ppo import PPO
from .batch import Sample, TrainBatch, micro_batches, pack, total_weight
from .config import RunConfig
from .critic import Critic
from .learner import Learner, StepMetrics, score
from .loss_figures import LossFigures
from .policy_loss import PolicyLoss
from .trajectory import Group


class Scored(NamedTuple):
    """A group's samples, and the algorithm that made them."""

    algorithm: str
    samples: list[Sample]


@dataclass
class PolicyUpdate:
    """What a step's groups do to the weights."""

    config: RunConfig
    learner: Learner
    critic: Critic | None = None
    reference: Trainable | None = None
    """The policy that reinforcement began with, where drawing away from it costs."""

    def __call__(
        self,
        groups: Sequence[Group],
        *,
        seed: int,
        lr_scale: float = 1.0,
        observe: Callable[[int, TrainBatch, np.ndarray], None] | None = None,
        skipped: Callable[[int, list[TrainBatch]], None] | None = None,
    ) -> list[StepMetrics]:
        """The optimizer steps, in an order of groups that `seed` fixes. `observe` is told the number of each step and shown its batches
        with the learner's log-probabilities, `skipped` the number of one that was skipped and the batches that are to blame."""
        scored = self.score(groups)
        order = np.random.default_rng(seed).permutation(len(scored))
        chosen = [[scored[i] for i in part] for part in np.array_split(order, self.config.rl.updates_per_step)]
        parts = self.prepare([self.pack(part) for part in chosen if part])
        loss = PolicyLoss(self.config.algorithms, self.config.correction, self.config.kl, self.config.rl.old_policy)
        metrics = []
        for number, batches in enumerate(parts):
            figures = LossFigures(loss)

            def shown(
                batch: TrainBatch, logprobs_T: np.ndarray, n: int = number, figures: LossFigures = figures
            ) -> None:
                figures.observe(batch, logprobs_T)
                if observe is not None:
                    observe(n, batch, logprobs_T)

            metrics.append(self.learner.step(batches, loss, lr_scale=lr_scale, observe=shown))
            metrics[-1].figures = figures.means()
            if skipped is not None and metrics[-1].skipped:
                skipped(number, [batches[index] for index in metrics[-1].suspects])
        return metrics

    def score(self, groups: Sequence[Group]) -> list[Scored]:
        """By algorithm, then in the groups' order."""
        found = []
        for name, algorithm in self.config.algorithms.items():
            mine = [group for group in groups if self.config.algorithm_of(group.env_id) == name]
            scored = algorithm.score(mine, self.config.shaping, self.config.generation.max_new_tokens)
            found += [Scored(name, samples) for samples in scored]
        return found

    def pack(self, part: Sequence[Scored]) -> list[TrainBatch]:
        """The batches of one optimizer step. Each algorithm's mean is its own, and counts by its share of the groups."""
        batches = []
        for name in self.config.algorithms:
            mine = [scored.samples for scored in part if scored.algorithm == name]
            mass = total_weight(sample for samples in mine for sample in samples) * len(part) / max(len(mine), 1)
            for groups in micro_batches(mine, self.config.generation.micro_batch_tokens):
                batches.append(pack(groups, mass, with_routes=self.config.rl.replay_routes, algorithm=name))
        return batches

    def prepare(self, parts: list[list[TrainBatch]]) -> list[list[TrainBatch]]:
        """Batches with what scoring passes find before the step's first update: old and reference log-probabilities, values, and which
        tokens are uncertain enough to train."""
        rl = self.config.rl
        if self.critic is not None:
            parts = self._valued(parts)
        if (rl.old_policy == "learner" and rl.updates_per_step > 1) or rl.entropy_share < 1:
            found = [[self.learner.score(batch) for batch in batches] for batches in parts]
            if rl.old_policy == "learner":
                parts = [
                    [replace(batch, old_logprobs_T=old_T) for batch, (old_T, _) in zip(batches, scores, strict=True)]
                    for batches, scores in zip(parts, found, strict=True)
                ]
            if rl.entropy_share < 1:
                entropies = [[entropy_T for _, entropy_T in scores] for scores in found]
                parts = [
                    most_uncertain(batches, rows, rl.entropy_share)
                    for batches, rows in zip(parts, entropies, strict=True)
                ]
        if self.reference is not None:
            reference = self.reference
            parts = [
                [
                    replace(batch, reference_logprobs_T=score(reference, replace(batch, routes_NEK=None))[0])
                    for batch in batches
                ]
                for batches in parts
            ]
        return parts

    def _valued(self, parts: list[list[TrainBatch]]) -> list[list[TrainBatch]]:
        """With advantages and returns of the critic, which then takes its own steps towards the returns."""
        assert self.critic is not None
        names = {name: algorithm for name, algorithm in self.config.algorithms.items() if isinstance(algorithm, PPO)}
        whole = [batch for batches in parts for batch in batches]
        for name, algorithm in names.items():
            mine = [index for index, batch in enumerate(whole) if batch.algorithm == name]
            values = [self.critic.values(whole[index]) for index in mine]
            for index, batch in zip(mine, algorithm.estimate([whole[index] for index in mine], values), strict=True):
                whole[index] = batch
        valued = [batch for batch in whole if batch.returns_T is not None]
        mass = sum(_sum(batch.weights_T) for batch in valued)
        for _ in range(max((a.critic_updates for a in names.values()), default=0) if valued else 0):
            self.critic.step([replace(batch, num_trained_tokens=mass) for batch in valued])
        rest = iter(whole)
        return [[next(rest) for _ in batches] for batches in parts]


_TIE = 1e-5
"""Nats within which entropies are the same."""


def most_uncertain(batches: Sequence[TrainBatch], entropies: Sequence[np.ndarray], share: float) -> list[TrainBatch]:
    """Batches of one optimizer step in which only the tokens of the highest entropy count (https://arxiv.org/abs/2506.01939): those above
    the quantile 1 - share over the whole step, so that no micro-batch has a threshold of its own. The mass falls with the weight. Tokens of
    one context, as the first of a group's rollouts, tie but for rounding, and are kept or left together."""
    if not batches:
        return []
    threshold = np.quantile(np.concatenate(entropies), 1 - share) - _TIE
    kept = [
        np.where(entropy_T >= threshold, batch.weights_T, 0)
        for batch, entropy_T in zip(batches, entropies, strict=True)
    ]
    before = sum(_sum(batch.weights_T) for batch in batches)
    left = sum(_sum(weights_T) for weights_T in kept) / before
    return [
        replace(batch, weights_T=weights_T.astype(np.float32), num_trained_tokens=batch.num_trained_tokens * left)
        for batch, weights_T in zip(batches, kept, strict=True)
    ]


def _sum(weights_T: np.ndarray) -> float:
    """In float64, so that it hangs on no batching."""
    return float(weights_T.sum(dtype=np.float64))
