"""What is checked: an id with options, and the episodes that several checks look at, played once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...messages import EnvironmentFault, Task
from ..env import Env
from ..importing import place_of
from ..registry import find, make
from . import players
from .findings import Finding
from .players import Played, Player

TOOL_TIMEOUT_S = 1.0
"""The checker does not wait as long for a tool as a trainer does."""
SECONDS_A_POLICY = 1.0
MOST_SEEDS = 48
SLOW_S = 0.1
"""Where an episode takes longer, by any clock, only a few are played."""


@dataclass
class Subject:
    """One environment with one choice of options."""

    env_id: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.env_id}({told})" if told else self.env_id

    def make(self) -> Env:
        env = make(self.env_id, **self.options)
        limit_s = min(env.limits.tool_timeout_s, TOOL_TIMEOUT_S)
        env.limits = env.limits.replace(tool_timeout_s=limit_s)
        return env

    @cached_property
    def cls(self) -> type[Env]:
        env = self.make()
        env.close()
        return type(env)

    @property
    def place(self) -> dict[str, str]:
        found = find(self.env_id)
        return place_of(found) if isinstance(found, type) else {}

    def finding(self, rule: str, cause: str) -> Finding:
        return Finding(rule, self.name, " ".join(cause.split())[:400])

    @cached_property
    def has_oracle(self) -> bool:
        env = self.make()
        try:
            env.reset(seed=0)
            env.oracle()
        except NotImplementedError:
            return False
        except Exception:
            return True
        finally:
            env.close()
        return True

    @cached_property
    def is_slow(self) -> bool:
        env, start = self.make(), time.monotonic()
        players.play(env, 0, players.random)
        if self.has_oracle:
            players.play(env, 0, players.oracle)
        env.close()
        return time.monotonic() - start > 2 * SLOW_S

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds whose episodes are compared with each other."""
        return tuple(range(2 if self.is_slow else 6))

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of many seeds, as many as a second allows."""
        env, found, end = self.make(), [], time.monotonic() + SECONDS_A_POLICY
        for seed in range(MOST_SEEDS):
            try:
                env.reset(seed=seed)
            except EnvironmentFault:
                continue
            found.append(env.task)
            if time.monotonic() > end and len(found) >= len(self.seeds):
                break
        env.close()
        return found

    @cached_property
    def by_oracle(self) -> list[Played]:
        return list(self.episodes(players.oracle)) if self.has_oracle else []

    @cached_property
    def by_random(self) -> list[Played]:
        return list(self.episodes(players.random))

    def episodes(self, player: Player) -> Iterator[Played]:
        """Episodes of one environment, seed after seed, as many as a second allows."""
        env, end = self.make(), time.monotonic() + SECONDS_A_POLICY
        for seed in range(MOST_SEEDS):
            yield players.play(env, seed, player)
            if time.monotonic() > end and seed + 1 >= len(self.seeds):
                break
        env.close()
