"""Wrappers: limits, recording, retries and reward shaping around any environment, for `step` and `astep` alike.

    env = Record(TimeLimit(make("shop/Refund-v0"), seconds=60), "episodes.jsonl")

They are `gymnasium.Wrapper`s that also forward `astep` and `areset`, and whatever else an Env has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from ..messages import EnvironmentFault, Outcome, Turn
from .env import Env, Observation, Step
from .record import EpisodeRecord
from .wire import read_action


class Wrapper(gymnasium.Wrapper[Observation, Turn, Observation, Turn]):
    """Forwards everything. Subclasses override `before` (a step), `after` (one), or `began`."""

    def __init__(self, env: Any) -> None:
        if not isinstance(env.unwrapped, Env):
            raise TypeError(f"{type(self).__name__} wraps a swannery Env, got {type(env).__name__}")
        super().__init__(env)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.env, name)

    def began(self, observation: Observation, info: dict[str, Any], seed: int | None) -> None:
        """An episode began."""

    def before(self, turn: Turn) -> None:
        """A turn is about to be taken."""

    def after(self, turn: Turn, step: Step) -> Step:
        """A turn was taken; what the caller gets of it."""
        return step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        self.began(observation, info, seed)
        return observation, info

    async def areset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = await self.env.areset(seed=seed, options=options)  # type: ignore[attr-defined]
        self.began(observation, info, seed)
        return observation, info

    def step(self, action: Any) -> Any:
        turn = read_action(action, self.core.limits.max_turn_chars)
        self.before(turn)
        return self.after(turn, self.env.step(turn))  # type: ignore[arg-type]

    async def astep(self, action: Any) -> Step:
        turn = read_action(action, self.core.limits.max_turn_chars)
        self.before(turn)
        return self.after(turn, await self.env.astep(turn))  # type: ignore[attr-defined]

    @property
    def core(self) -> Env:
        """The Env inside."""
        env = self.unwrapped
        assert isinstance(env, Env)
        return env


class TurnLimit(Wrapper):
    """Ends an episode after so many turns: truncated(max_turns)."""

    def __init__(self, env: Any, max_turns: int) -> None:
        super().__init__(env)
        self.core.limits = self.core.limits.replace(max_turns=min(max_turns, self.core.limits.max_turns))


class TimeLimit(Wrapper):
    """The turn in which the time runs out is the last, and is graded: truncated(time_limit). A monotonic clock."""

    def __init__(self, env: Any, seconds: float) -> None:
        super().__init__(env)
        if not 0 < seconds < float("inf"):
            raise ValueError(f"TimeLimit needs a positive number of seconds, got {seconds!r}")
        self.seconds = seconds
        self._end = 0.0

    def began(self, observation: Observation, info: dict[str, Any], seed: int | None) -> None:
        self._end = time.monotonic() + self.seconds

    def before(self, turn: Turn) -> None:
        if time.monotonic() > self._end:
            self.core.last_turn = "time_limit"


class TokenLimit(Wrapper):
    """The turn that goes over so many tokens of the policy's own is the last: truncated(token_limit).

    Environments never tokenize, so the caller brings `count_tokens`.
    """

    def __init__(self, env: Any, max_tokens: int, count_tokens: Callable[[str], int]) -> None:
        super().__init__(env)
        self.max_tokens, self.count_tokens = max_tokens, count_tokens
        self.num_tokens = 0

    def began(self, observation: Observation, info: dict[str, Any], seed: int | None) -> None:
        self.num_tokens = 0

    def before(self, turn: Turn) -> None:
        self.num_tokens += self.count_tokens((turn.reasoning or "") + turn.answer)
        if turn.tool_calls:
            self.num_tokens += sum(self.count_tokens(f"{call.name} {dict(call.arguments)}") for call in turn.tool_calls)
        if self.num_tokens > self.max_tokens:
            self.core.last_turn = "token_limit"


class ShapeReward(Wrapper):
    """Gives other rewards: `shape(parts)` gets a turn's named parts and returns those that count."""

    def __init__(self, env: Any, shape: Callable[[Mapping[str, float]], Mapping[str, float]]) -> None:
        super().__init__(env)
        self.shape = shape

    def after(self, turn: Turn, step: Step) -> Step:
        said, _, terminated, truncated, info = step
        parts = dict(self.shape(dict(info["rewards"])))
        total = float(sum(parts.values()))
        if total != total or abs(total) == float("inf"):
            raise EnvironmentFault("bad_reward", f"shaping gave {parts}")
        self.core.parts[-1] = parts
        info = {**info, "rewards": parts, "unshaped": info["rewards"]}
        if "episode" in info:
            info["episode"] = self.core.total_rewards()
        return said, total, terminated, truncated, info


class Retry(Wrapper):
    """Takes a turn again, from the state before it, when the environment failed in it; at most `times` times."""

    def __init__(self, env: Any, times: int = 2) -> None:
        super().__init__(env)
        self.times = times
        self.num_retries = 0

    def step(self, action: Any) -> Any:
        taken = self.core.snapshot()
        for left in reversed(range(self.times + 1)):
            try:
                return super().step(action)
            except EnvironmentFault:
                if not left:
                    raise
                self._back_to(taken)
        raise AssertionError("unreachable")

    async def astep(self, action: Any) -> Step:
        taken = self.core.snapshot()
        for left in reversed(range(self.times + 1)):
            try:
                return await super().astep(action)
            except EnvironmentFault:
                if not left:
                    raise
                self._back_to(taken)
        raise AssertionError("unreachable")

    def _back_to(self, taken: Any) -> None:
        self.num_retries += 1
        self.core.restore(taken)


class Record(Wrapper):
    """Keeps every finished episode as a line of JSON, from which `replay` plays it again byte for byte."""

    def __init__(self, env: Any, path: str | Path | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(env)
        self.path = Path(path) if path is not None else None
        self.options = dict(options or {})
        self.records: list[EpisodeRecord] = []
        """The finished episodes, where there is no path."""
        self._now: EpisodeRecord | None = None

    def began(self, observation: Observation, info: dict[str, Any], seed: int | None) -> None:
        self._now = EpisodeRecord.begin(self.core, self.options, seed, observation)

    def after(self, turn: Turn, step: Step) -> Step:
        assert self._now is not None
        self._now.add(turn, step)
        outcome = step[4].get("outcome")
        if isinstance(outcome, Outcome):
            self._keep(self._now)
        return step

    def _keep(self, record: EpisodeRecord) -> None:
        if self.path is None:
            self.records.append(record)
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_dict(), ensure_ascii=False) + "\n")
