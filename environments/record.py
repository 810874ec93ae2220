"""Records: an episode as plain JSON, and its replay, which must give the same bytes.

record = EpisodeRecord.from_dict(json.loads(line));  replay(record)      # EnvironmentFault("replay_differs") otherwise
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..messages import EnvironmentFault, Turn
from . import wire
from .env import Env, Observation, Step
from .registry import make

SCHEMA_VERSION = 1


@dataclass
class EpisodeRecord:
    """What is needed to play an episode again, and what came of it. `said` and `rewards` have an entry a turn."""

    env_id: str
    options: dict[str, Any]
    seed: int | None
    prompt: str
    turns: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    rewards: list[dict[str, float]] = field(default_factory=list)
    outcome: str = ""
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def begin(env: Env, options: Mapping[str, Any], seed: int | None, observation: Observation) -> EpisodeRecord:
        env_id = env.spec.id if env.spec is not None else type(env).__name__
        return EpisodeRecord(env_id, dict(options), seed, _bytes(observation))

    def add(self, turn: Turn, step: Step) -> None:
        said, _, _, _, info = step
        self.turns.append(wire.turn_to_dict(turn))
        self.said.append(_bytes(said))
        self.rewards.append(dict(info["rewards"]))
        self.outcome = str(info.get("outcome", ""))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> EpisodeRecord:
        known = {f.name for f in dataclasses.fields(EpisodeRecord)}
        if found.get("schema_version") != SCHEMA_VERSION or not known >= set(found):
            raise ValueError(f"a record has schema_version {SCHEMA_VERSION}, got {str(dict(found))[:120]}")
        return EpisodeRecord(**found)


def play_turns(
    env: Env, seed: int | None, turns: Sequence[Turn], options: Mapping[str, Any] | None = None
) -> EpisodeRecord:
    """Play these turns on the task of `seed` and keep what came of it."""
    observation, _ = env.reset(seed=seed)
    record = EpisodeRecord.begin(env, options or {}, seed, observation)
    for turn in turns:
        record.add(turn, env.step(turn))
    return record


def replay(record: EpisodeRecord) -> EpisodeRecord:
    """Play a record again in a fresh environment. EnvironmentFault("replay_differs") says where it went another way."""
    if record.seed is None:
        raise ValueError("this record has no seed: reset with one where episodes are to be replayed")
    env = make(record.env_id, **record.options)
    try:
        again = play_turns(env, record.seed, [wire.read_turn(turn) for turn in record.turns], record.options)
    finally:
        env.close()
    if again.prompt != record.prompt:
        raise EnvironmentFault("replay_differs", f"{record.env_id}, seed {record.seed}: another prompt")
    for number, (now, then) in enumerate(zip(again.said, record.said, strict=True)):
        if now != then or again.rewards[number] != record.rewards[number]:
            raise EnvironmentFault(
                "replay_differs", f"{record.env_id}, seed {record.seed}: turn {number} went another way"
            )
    return again


def _bytes(observation: Observation) -> str:
    return json.dumps([wire.message_to_dict(message) for message in observation], ensure_ascii=False, sort_keys=True)
