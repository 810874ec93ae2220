"""PPO (https://arxiv.org/abs/1707.06347) with a critic and generalised advantage estimation over tokens and turns.

A turn's rewards come with its last token; what the environment says between turns takes no time. A rollout that terminated is worth
nothing more, one that was cut short is worth what the critic says of where it was cut.
"""

# Shapes: T trained tokens, S samples of a micro-batch.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from ..advantages import generalized, whiten
from ..batch import Sample, TrainBatch
from ..scoring import samples_of, shaped, turns_of_tokens
from ..shaping import UNSHAPED, Shaping
from ..trajectory import Group, Trajectory
from .bundle import Clipped


class PPO(Clipped):
    """Proximal policy optimization."""

    name: Literal["ppo"] = "ppo"
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    critic_learning_rate: float = Field(default=1e-3, gt=0)
    critic_updates: int = Field(default=2, ge=1)
    """Steps of the critic on each step's rollouts."""
    value_clip: float = Field(default=0.2, ge=0)
    """How far a value may move at once before its loss stops pulling; 0: without bound."""

    def score(self, groups: Sequence[Group], shaping: Shaping = UNSHAPED, limit: int = 0) -> list[list[Sample]]:
        """Rewards of tokens; advantages are the critic's (`estimate`)."""
        scored = []
        for group in groups:
            if not group.rollouts:
                continue
            extra_G = shaped(group, shaping, limit) - group.rewards
            samples = samples_of(group, extra_G, self.averaged, overlong_filter=shaping.overlong_filter)
            scored.append([self._with_rewards(sample) for sample in samples])
        return [samples for samples in scored if samples]

    def _with_rewards(self, sample: Sample) -> Sample:
        trajectory = sample.trajectory
        turns_T = turns_of_tokens(trajectory)
        rewards_T = np.zeros(len(turns_T))
        for number, rewards in own_turns(trajectory):
            before = np.flatnonzero(turns_T <= number)  # a turn whose every token was forced pays the one before
            rewards_T[before[-1] if len(before) else 0] += sum(rewards.values())
        if trajectory.branch + 1 == trajectory.num_branches:
            rewards_T[-1] += float(sample.advantage)  # type: ignore[arg-type]
        return replace(sample, advantage=0.0, rewards=rewards_T)

    def estimate(
        self, batches: Sequence[TrainBatch], values: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[TrainBatch]:
        """Advantages and returns of a step's batches. `values`: of each batch's tokens [T], and of where its samples end [S]."""
        estimated = []
        for batch, (values_T, ends_S) in zip(batches, values, strict=True):
            assert batch.rewards_T is not None and batch.goes_on_S is not None
            advantages_T = np.zeros(len(values_T))
            for sample, (end, goes_on) in enumerate(zip(ends_S, batch.goes_on_S, strict=True)):
                here = np.flatnonzero(batch.sample_T == sample)
                last = end if goes_on else 0.0
                values_T1 = np.append(values_T[here], last)
                advantages_T[here] = generalized(batch.rewards_T[here], values_T1, self.gamma, self.lam)
            returns_T = advantages_T + values_T
            estimated.append(replace(batch, advantages_T=advantages_T, returns_T=returns_T, values_T=values_T))
        if not estimated:
            return []
        whole = whiten(
            np.concatenate([batch.advantages_T for batch in estimated]),
            np.concatenate([batch.weights_T for batch in estimated]),
        )
        cuts = np.cumsum([len(batch.advantages_T) for batch in estimated])[:-1]
        parts = np.split(whole, cuts)
        return [replace(batch, advantages_T=part) for batch, part in zip(estimated, parts, strict=True)]


def own_turns(trajectory: Trajectory) -> list[tuple[int, Mapping[str, float]]]:
    """The turns that a branch holds, by number, with their rewards. The last branch carries the records of all."""
    first = min((segment.turn for segment in trajectory.segments if segment.sampled), default=0)
    last = trajectory.branch + 1 == trajectory.num_branches
    return [(first + n, turn.rewards) for n, turn in enumerate(trajectory.turns[first if last else 0 :])]
