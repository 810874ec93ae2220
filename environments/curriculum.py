"""The Gaussian pass-rate curriculum of Nemotron 3 Nano (https://arxiv.org/abs/2512.20848, section on RL).

Domain shares stay fixed (see Mixture). Within an environment, tasks are drawn by how often they are passed: a Gaussian around
a target pass rate that moves from easy to hard over the run. Tasks that are always passed are dropped.

    target(step) = easy + (hard - easy) * step / steps;    weight(task) = exp(-(pass rate - target)^2 / (2 width^2))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Each environment has a pool of numbered tasks; a task that is solved leaves, and the next number takes its place."""

    pool_size: int = 256
    easy: float = 0.8
    hard: float = 0.2
    width: float = 0.2
    prior_strength: float = 4.0
    """A task's pass rate begins as its environment's mean, with the weight of so many tries."""
    min_tries: int = 12
    """A task that was always passed is dropped after this many tries, not before."""

    def __post_init__(self) -> None:
        if self.pool_size < 1 or self.min_tries < 1:
            raise ValueError(f"pool_size and min_tries are at least 1, got {self.pool_size} and {self.min_tries}")
        if not (0 <= self.hard <= 1 and 0 <= self.easy <= 1 and self.width > 0 and self.prior_strength > 0):
            raise ValueError(
                f"easy and hard are pass rates from 0 to 1, width and prior_strength positive; got {self.easy}, "
                f"{self.hard}, {self.width}, {self.prior_strength}"
            )


class Curriculum:
    """What is known of each environment's tasks, and the draw of the next one."""

    def __init__(self, env_ids: Iterable[str], num_steps: int, config: CurriculumConfig | None = None) -> None:
        self.config = config or CurriculumConfig()
        self.num_steps = max(num_steps, 1)
        size = self.config.pool_size
        self._tries = {env_id: dict.fromkeys(range(size), 0) for env_id in env_ids}
        self._passes = {env_id: dict.fromkeys(range(size), 0) for env_id in self._tries}
        self._next = dict.fromkeys(self._tries, size)
        self.dropped = dict.fromkeys(self._tries, 0)
        """Solved tasks, by environment."""

    def target(self, step: int) -> float:
        """The pass rate that is looked for at a step."""
        done = min(max(step / self.num_steps, 0.0), 1.0)
        return self.config.easy + (self.config.hard - self.config.easy) * done

    def pass_rates(self, env_id: str) -> dict[int, float]:
        """The estimated pass rate of each task of the pool."""
        tries, passes = self._tries[env_id], self._passes[env_id]
        strength = self.config.prior_strength
        mean = (sum(passes.values()) + 0.5 * strength) / (sum(tries.values()) + strength)
        return {n: (passes[n] + mean * strength) / (tries[n] + strength) for n in tries}

    def draw(self, env_id: str, step: int, count: int, rng: np.random.Generator) -> list[int]:
        """The numbers of `count` different tasks (as far as the pool has them) for a step."""
        rates = self.pass_rates(env_id)
        numbers, target = list(rates), self.target(step)
        weights = np.array([math.exp(-((rates[n] - target) ** 2) / (2 * self.config.width**2)) for n in numbers])
        weights = (weights + 1e-12) / (weights + 1e-12).sum()
        chosen: list[int] = []
        while len(chosen) < count:
            some = min(count - len(chosen), len(numbers))
            chosen += [numbers[i] for i in rng.choice(len(numbers), size=some, replace=False, p=weights)]
        return chosen

    def update(self, env_id: str, number: int, outcomes: Sequence[bool]) -> None:
        """What came of a task's rollouts; faulted ones are left out by the caller. Dropped tasks are ignored."""
        tries, passes = self._tries[env_id], self._passes[env_id]
        if number not in tries:
            return
        tries[number] += len(outcomes)
        passes[number] += sum(outcomes)
        if tries[number] >= self.config.min_tries and passes[number] == tries[number]:
            del tries[number], passes[number]
            self.dropped[env_id] += 1
            fresh, self._next[env_id] = self._next[env_id], self._next[env_id] + 1
            tries[fresh] = passes[fresh] = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON; `load_state_dict` goes on from it exactly."""
        return {
            env_id: {
                "numbers": list(self._tries[env_id]),
                "tries": list(self._tries[env_id].values()),
                "passes": list(self._passes[env_id].values()),
                "next": self._next[env_id],
                "dropped": self.dropped[env_id],
            }
            for env_id in self._tries
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave. ValueError where the environments differ."""
        if set(state) != set(self._tries):
            raise ValueError(f"this curriculum is of {sorted(self._tries)}, the saved one of {sorted(state)}")
        for env_id, found in state.items():
            self._tries[env_id] = dict(zip(found["numbers"], found["tries"], strict=True))
            self._passes[env_id] = dict(zip(found["numbers"], found["passes"], strict=True))
            self._next[env_id], self.dropped[env_id] = found["next"], found["dropped"]
