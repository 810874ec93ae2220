"""AsyncioVectorEnv: many episodes on one event loop, what `gymnasium.make_vec` returns by default.

A row whose environment fails has reward NaN, `truncated`, and the fault in its info: a fault is never a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..messages import EnvironmentFault, Turn
from .env import Env, Observation

Row = tuple[Observation, float, bool, bool, dict[str, Any]]


class AsyncioVectorEnv(VectorEnv[tuple[Observation, ...], Sequence[Turn | str], np.ndarray]):
    """Steps its environments concurrently. Autoreset is Gymnasium's NEXT_STEP: the step after an end resets."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["ansi"], "render_fps": 1}

    def __init__(self, make_envs: Sequence[Callable[[], Env]]) -> None:
        if not make_envs:
            raise ValueError("a vector environment needs num_envs of at least 1, got 0")
        self.envs = [make_env() for make_env in make_envs]
        self.num_envs = len(self.envs)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.render_mode = self.envs[0].render_mode
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._runner: asyncio.Runner | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[Observation, ...], dict[str, Any]]:
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
        rows = [env.reset(seed=s, options=options) for env, s in zip(self.envs, seeds, strict=True)]
        self._ended[:] = False
        return tuple(observation for observation, _ in rows), self._gather([info for _, info in rows])

    def step(self, actions: Sequence[Turn | str]) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if len(actions) != self.num_envs:
            raise ValueError(f"step needs one action for each of {self.num_envs} environments, got {len(actions)}")
        if any(env.awaits for env in self.envs):
            self._runner = self._runner or asyncio.Runner()
            rows = self._runner.run(self._step_all(actions))
        else:
            rows = [env._wait(self._step_one(i, actions[i])) for i, env in enumerate(self.envs)]
        observations, rewards, terminated, truncated, infos = zip(*rows, strict=True)
        self._ended = np.array(terminated) | np.array(truncated)
        return tuple(observations), np.array(rewards), np.array(terminated), np.array(truncated), self._gather(infos)

    def render(self) -> tuple[Any, ...] | None:
        return None if self.render_mode is None else tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    async def _step_all(self, actions: Sequence[Turn | str]) -> list[Row]:
        return await asyncio.gather(*(self._step_one(i, action) for i, action in enumerate(actions)))

    async def _step_one(self, index: int, action: Turn | str) -> Row:
        env = self.envs[index]
        if self._ended[index]:
            observation, info = env.reset()
            return observation, 0.0, False, False, info
        try:
            return await env.astep(action)
        except EnvironmentFault as fault:
            return (), float("nan"), False, True, {"fault": fault.kind, "outcome": env.outcome}

    def _gather(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        gathered: dict[str, Any] = {}
        for index, info in enumerate(infos):
            gathered = self._add_info(gathered, info, index)
        return gathered
