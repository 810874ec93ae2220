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
        self._on_loop = any(env.awaits or any(not t.is_async for t in env.tools.values()) for env in self.envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[Observation, ...], dict[str, Any]]:
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"reset needs one seed for each of {self.num_envs} environments, got {len(seeds)}")
        options = dict(options or {})
        chosen = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=bool)), dtype=bool)
        begun: list[int] = np.flatnonzero(chosen).tolist()
        rows = self._run([self._reset_one(i, seeds[i], options) for i in begun])
        found = dict(zip(begun, rows, strict=True))
        self._ended[chosen] = [bool("fault" in info) for _, info in rows]
        infos = [found[i][1] if i in found else {} for i in range(self.num_envs)]
        return tuple(found[i][0] if i in found else () for i in range(self.num_envs)), self._gather(infos)

    def step(self, actions: Sequence[Turn | str]) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if len(actions) != self.num_envs:
            raise ValueError(f"step needs one action for each of {self.num_envs} environments, got {len(actions)}")
        rows = self._run([self._step_one(i, action) for i, action in enumerate(actions)])
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

    def _run(self, pending: Sequence[Any]) -> list[Any]:
        """All at once on a loop of our own; by hand, one after the other, where nothing ever awaits."""
        if not self._on_loop:
            return [self.envs[0]._wait(one) for one in pending]

        async def together() -> list[Any]:
            return list(await asyncio.gather(*pending))

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner = self._runner or asyncio.Runner()
            return self._runner.run(together())
        for one in pending:
            one.close()
        raise RuntimeError(
            "a vector environment was stepped inside an event loop: gather env.astep of its envs instead"
        )

    async def _reset_one(self, index: int, seed: int | None, options: dict[str, Any] | None) -> Any:
        env = self.envs[index]
        try:
            if self._on_loop:
                return await env.areset(seed=seed, options=options)
            return env.reset(seed=seed, options=options)
        except EnvironmentFault as fault:
            return (), {"fault": fault.kind}

    async def _step_one(self, index: int, action: Turn | str) -> Row:
        env = self.envs[index]
        if self._ended[index]:
            observation, info = await self._reset_one(index, None, None)
            failed = "fault" in info
            return observation, float("nan") if failed else 0.0, False, failed, info
        try:
            return await env._advance(action, self._on_loop)
        except EnvironmentFault as fault:
            return (), float("nan"), False, True, {"fault": fault.kind, "outcome": env.outcome}

    def _gather(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        gathered: dict[str, Any] = {}
        for index, info in enumerate(infos):
            # Names of rewards differ from turn to turn, and Gymnasium's arrays want the same keys: kept as objects.
            flat = {key: _Whole(value) if isinstance(value, dict) else value for key, value in info.items()}
            gathered = self._add_info(gathered, flat, index)
        return {key: _opened(value) for key, value in gathered.items()}


class _Whole:
    """Keeps a dict of one row whole."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value


def _opened(column: Any) -> Any:
    if isinstance(column, np.ndarray) and column.dtype == object:
        for index, item in enumerate(column):
            if isinstance(item, _Whole):
                column[index] = item.value
    return column
