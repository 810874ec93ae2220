"""Admission: which prompts a run takes next, and with what each of their rollouts is told to go.

It owns the cursors, the exact mixture and the curriculum: what a snapshot must hold of data. Every number is a hash of (run, task, step,
group, rollout), so the same cursor admits the same rollouts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..environments import Curriculum, CurriculumConfig, Env, Mixture
from ..policies.sampling import stream_seed
from .config import RunConfig
from .runner import Budget, RolloutSpec, effort_of, limit_of
from .tasks import task_seed
from .trajectory import Group


class Prompt(NamedTuple):
    """A task that a group is rolled out on."""

    env_id: str
    task_number: int
    """In the curriculum; -1 without."""
    task_seed: int
    step: int
    """The step that admitted it."""
    number: int
    """Among the prompts of that step."""


class Admission:
    """Draws tasks of the training split."""

    def __init__(self, config: RunConfig, envs: Mapping[str, Env]) -> None:
        self.config, self.envs = config, envs
        self.cursor = {env_id: 0 for env_id in envs}
        """How many training tasks of each environment were drawn."""
        self.mixture = Mixture({env.id: env.weight for env in config.environments}, at_least=1)
        self.curriculum: Curriculum | None = None
        if config.curriculum.enabled:
            values = config.curriculum.model_dump(exclude={"enabled"})
            self.curriculum = Curriculum(list(envs), config.rl.steps, CurriculumConfig(**values))

    def state(self) -> dict[str, Any]:
        curriculum = self.curriculum.state_dict() if self.curriculum else {}
        return {"cursor": dict(self.cursor), "mixture": self.mixture.state_dict(), "curriculum": curriculum}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.cursor = {**self.cursor, **state["cursor"]}
        if set(state.get("mixture", ())) == set(self.envs):  # a mixture of other environments begins anew
            self.mixture.load_state_dict(state["mixture"])
        if self.curriculum is not None and state.get("curriculum"):
            self.curriculum.load_state_dict(state["curriculum"])

    def prompts(self, step: int, count: int, first: int = 0, among: Collection[str] = ()) -> list[Prompt]:
        """The next prompts, `count` shared among environments by their weights, or among some of them. `first` numbers them behind those
        that the step has."""
        found: list[tuple[str, int, int]] = []
        mixture = self.mixture
        if among and set(among) != set(self.envs):  # others are owed nothing for it
            mixture = Mixture({env.id: env.weight for env in self.config.environments if env.id in among})
        for env_id, share in mixture.allot(count, at_least=0 if first else None).items():
            if self.curriculum is None:
                found += [(env_id, -1, self.next_task(env_id)) for _ in range(share)]
                continue
            drawn = stream_seed(self.config.seed, "curriculum", env_id, step, *([first] if first else []))
            numbers = self.curriculum.draw(env_id, step, share, np.random.default_rng(drawn))
            found += [(env_id, number, self._seed(env_id, number)) for number in numbers]
        return [Prompt(*prompt, step, first + number) for number, prompt in enumerate(found)]

    def specs(self, prompt: Prompt) -> list[RolloutSpec]:
        """The rollouts of a prompt's group: one budget for all, so that they can be compared."""
        rl, generation = self.config.rl, self.config.generation
        env_id, _, seed, step, number = prompt
        budgets = self.budgets(env_id)
        budget = budgets[stream_seed(self.config.seed, "budget", step, number) % len(budgets)]
        return [
            RolloutSpec(
                env_id=env_id,
                task_seed=seed,
                group=number,
                step=step,
                rollout=index,
                seed=stream_seed(self.config.seed, env_id, seed, step, number, index),
                temperature=rl.temperature,
                max_new_tokens=generation.max_new_tokens,
                budget=limit_of(budget),
                grace=generation.budget_grace,
                effort=effort_of(budget),
                top_k=rl.top_k,
                top_p=rl.top_p,
                generation_timeout_s=generation.timeout_s,
            )
            for index in range(rl.group_size)
        ]

    def observe(self, prompt: Prompt, group: Group) -> None:
        """Tell the curriculum how a prompt's group did."""
        if self.curriculum is not None:
            self.curriculum.update(prompt.env_id, prompt.task_number, [bool(r >= 0.5) for r in group.rewards])

    def next_task(self, env_id: str) -> int:
        """The seed of the next training task of an environment."""
        number = self.cursor[env_id]
        self.cursor[env_id] = number + 1
        return self._seed(env_id, number)

    def budgets(self, env_id: str) -> tuple[Budget, ...]:
        """The reasoning budgets that an environment's training samples from."""
        config = next(env for env in self.config.environments if env.id == env_id)
        declared: tuple[Budget, ...] = tuple(None if b == "unlimited" else b for b in config.reasoning_budgets)
        return declared or self.envs[env_id].limits.reasoning_budgets

    def _seed(self, env_id: str, number: int) -> int:
        return task_seed(self.envs[env_id], env_id, "train", number, self.config.seed)
