"""What one rollout leaves behind: segments of tokens, turns with rewards, one outcome. And the group it is scored in.

A trajectory is plain arrays and frozen data: it crosses processes and is written to disk as it is. Where a template changed
what was said, the rollout has several trajectories (branches): each names its parent and the length of their common prefix,
and weighs 1 / branches.
"""

# Shapes: L tokens of a segment or trajectory, S ids of the widest support, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..messages import Message, Outcome, Turn

SCHEMA_VERSION = 1


GROUP_REWARD = "group"
"""The name of the reward that a rollout has from comparing its group (comparing.py)."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of tokens from one source: context that was given (`sampled` False), or one completion."""

    token_ids: np.ndarray
    sampled: bool
    turn: int
    forced: np.ndarray
    """Tokens of a completion that the reasoning budget forced: the environment's, never in a loss."""
    logprobs: np.ndarray
    policy_versions: np.ndarray
    temperature: float = 1.0
    support: np.ndarray | None = None
    """[L, S]: the ids that could be sampled at each token, -1 behind them; None: all."""

    @staticmethod
    def without_logprobs(token_ids: list[int], turn: int, *, sampled: bool) -> Segment:
        """Tokens that no engine sampled: given context, or a demonstrator's words, which are imitated as if sampled."""
        n = len(token_ids)
        return Segment(
            token_ids=np.array(token_ids, np.int64),
            sampled=sampled,
            turn=turn,
            forced=np.zeros(n, bool),
            logprobs=np.zeros(n, np.float32),
            policy_versions=np.full(n, -1, np.int32),
        )

    @staticmethod
    def given(token_ids: list[int], turn: int) -> Segment:
        return Segment.without_logprobs(token_ids, turn, sampled=False)


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """One turn: its token span through the closing token, its named rewards, and what its reasoning cost."""

    start: int
    end: int
    rewards: Mapping[str, float]
    budget: int | None
    num_reasoning_tokens: int
    budget_hit: bool
    num_tool_calls: int = 0
    malformed: str | None = None
    grace: int = 0
    """What the budget may be exceeded by, to end with a line or sentence."""
    action: Turn = Turn()
    """The turn as the environment got it: with the task's seed, what `replay` needs."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One branch of one rollout."""

    env_id: str
    task_seed: int
    group: int
    rollout: int
    segments: tuple[Segment, ...]
    turns: tuple[TurnRecord, ...]
    outcome: Outcome
    routes: np.ndarray
    """[L - 1, E, K]: the experts chosen at each position that predicts a token."""
    branch: int = 0
    branch_of: int | None = None
    branch_offset: int = 0
    num_branches: int = 1
    step: int = 0
    """The training step that admitted it."""
    effort: str = "full"
    """`low` where little reasoning was asked for."""
    messages: tuple[Message, ...] = field(default=(), repr=False)
    schema_version: int = SCHEMA_VERSION

    @property
    def reward(self) -> float:
        """The episode's reward: the sum of all turns' named rewards, which the runner has checked against the environment's."""
        if self.outcome.kind == "fault":
            raise ValueError("a fault has no reward")
        return float(sum(sum(turn.rewards.values()) for turn in self.turns))

    @property
    def token_ids(self) -> np.ndarray:
        return np.concatenate([segment.token_ids for segment in self.segments])

    @property
    def trained(self) -> np.ndarray:
        """[L] bool: tokens that the policy wrote, of its own will, beyond what a parent branch already trains."""
        mask = np.concatenate([np.full(len(s.token_ids), s.sampled) & ~s.forced for s in self.segments])
        mask[: self.branch_offset] = False
        return mask

    @property
    def logprobs(self) -> np.ndarray:
        return np.concatenate([segment.logprobs for segment in self.segments])

    @property
    def policy_versions(self) -> np.ndarray:
        return np.concatenate([segment.policy_versions for segment in self.segments])

    @property
    def temperatures(self) -> np.ndarray:
        return np.concatenate([np.full(len(s.token_ids), s.temperature, np.float32) for s in self.segments])

    @property
    def support(self) -> np.ndarray | None:
        """[L, S] over all segments, rows of -1 where everything could be sampled; None where that is so everywhere."""
        widest = max((s.support.shape[1] for s in self.segments if s.support is not None), default=0)
        if not widest:
            return None
        rows = [np.full((len(s.token_ids), widest), -1, np.int64) for s in self.segments]
        for row, segment in zip(rows, self.segments, strict=True):
            if segment.support is not None:
                row[:, : segment.support.shape[1]] = segment.support
        return np.concatenate(rows)

    @property
    def num_sampled(self) -> int:
        return int(self.trained.sum())

    @property
    def num_tool_calls(self) -> int:
        return sum(turn.num_tool_calls for turn in self.turns)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The rollouts of one prompt: the unit of scoring. Faulted rollouts are already left out and counted."""

    env_id: str
    task_seed: int
    number: int
    rollouts: tuple[tuple[Trajectory, ...], ...]
    """One tuple of branches a rollout."""
    faults: tuple[str, ...] = ()

    @staticmethod
    def of(env_id: str, task_seed: int, number: int, played: Sequence[tuple[Trajectory, ...]]) -> Group:
        """The group of what was played: faulted rollouts are left out of it and counted by kind."""
        faulted = [branches[0].outcome.kind == "fault" for branches in played]
        return Group(
            env_id=env_id,
            task_seed=task_seed,
            number=number,
            rollouts=tuple(b for b, fault in zip(played, faulted, strict=True) if not fault),
            faults=tuple(b[0].outcome.reason for b, fault in zip(played, faulted, strict=True) if fault),
        )

    @property
    def rewards(self) -> np.ndarray:
        return np.array([branches[-1].reward for branches in self.rollouts])
