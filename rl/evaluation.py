"""Evaluation: held-out tasks, sampled and greedy, with what the numbers are worth.

Accuracy is the share of episodes whose reward is at least 1/2 of the maximum of 1; its 95 % interval is Wilson's. Episodes
left out for faults are counted beside it, never as failures.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..environments import Env
from ..policies.engine import Engine
from ..policies.rendering import Renderer
from ..policies.sampling import stream_seed
from .runner import Budget, EnvironmentPool, RolloutSpec, effort_of, limit_of, rollout
from .tasks import Split, task_seed
from .trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Score:
    """One environment's result at one temperature."""

    env_id: str
    temperature: float
    accuracy: float
    low: float
    high: float
    num_episodes: int
    num_left_out: int
    mean_reward: float
    mean_sampled_tokens: float
    mean_turns: float
    calls_when_right: float | None
    truncated: float
    budget_violations: int
    budget: int | str | None = None
    """What was asked for: reasoning tokens a turn, "low" for low effort, None for no limit."""
    mean_reasoning_tokens: float = 0.0
    budget_hit: float = 0.0
    """The share of turns whose reasoning was closed by force."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927). No trials: anything is possible."""
    if n == 0:
        return 0.0, 1.0
    p, square = successes / n, z * z
    center = (p + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, center - half), min(1.0, center + half)


async def evaluate(
    envs: Mapping[str, Env],
    pools: Mapping[str, EnvironmentPool],
    engine: Engine,
    renderer: Renderer,
    *,
    split: Split,
    num_tasks: int,
    temperature: float,
    max_new_tokens: int,
    budgets: Mapping[str, Budget],
    grace: int = 0,
    on_episode: Callable[[], None] = lambda: None,
) -> tuple[list[Score], list[Trajectory]]:
    """Play `num_tasks` held-out tasks of each environment. `budgets` is each one's reasoning budget."""

    async def play(spec: RolloutSpec) -> Trajectory:
        trajectory = (await rollout(pools[spec.env_id], engine, renderer, spec))[-1]
        on_episode()
        return trajectory

    specs = [
        RolloutSpec(
            env_id=env_id,
            task_seed=task_seed(env, env_id, split, number, 0),
            group=place,
            rollout=number,
            seed=stream_seed("evaluation", env_id, split, number),
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            budget=limit_of(budgets[env_id]),
            grace=grace,
            effort=effort_of(budgets[env_id]),
        )
        for place, (env_id, env) in enumerate(envs.items())
        for number in range(num_tasks)
    ]
    played = await asyncio.gather(*(play(spec) for spec in specs))
    of = lambda env_id: [t for t in played if t.env_id == env_id]  # noqa: E731
    return [score(env_id, temperature, of(env_id), budgets[env_id]) for env_id in envs], list(played)


def score(env_id: str, temperature: float, played: list[Trajectory], budget: Budget = None) -> Score:
    """The score of an environment's episodes."""
    counted = [t for t in played if t.outcome.kind != "fault"]
    right = [t for t in counted if t.reward >= 0.5]
    low, high = wilson(len(right), len(counted))
    turns = [turn for t in counted for turn in t.turns]
    mean = lambda values: float(np.mean(values)) if len(values) else 0.0  # noqa: E731
    return Score(
        env_id=env_id,
        temperature=temperature,
        accuracy=len(right) / max(len(counted), 1),
        low=low,
        high=high,
        num_episodes=len(counted),
        num_left_out=len(played) - len(counted),
        mean_reward=mean([t.reward for t in counted]),
        mean_sampled_tokens=mean([t.num_sampled for t in counted]),
        mean_turns=mean([len(t.turns) for t in counted]),
        calls_when_right=mean([t.num_tool_calls for t in right]) if any(t.num_tool_calls for t in right) else None,
        truncated=mean([t.outcome.kind == "truncated" for t in counted]),
        budget_violations=sum(map(budget_violations, counted)),
        budget=budget,
        mean_reasoning_tokens=mean([turn.num_reasoning_tokens for turn in turns]),
        budget_hit=mean([turn.budget_hit for turn in turns]),
    )


def budget_violations(trajectory: Trajectory) -> int:
    """Turns that reasoned beyond their budget: always 0, and counted all the same."""
    return sum(
        turn.budget is not None and turn.num_reasoning_tokens > turn.budget + turn.grace for turn in trajectory.turns
    )


def evaluation_budget(budgets: tuple[Budget, ...]) -> Budget:
    """Evaluation reasons as much as it is ever allowed to."""
    limits = [budget for budget in budgets if isinstance(budget, int)]
    return None if None in budgets else max(limits) if limits else "low"
