"""TrainBatch: trajectories packed into one row, a group's common prompt computed once.

A group becomes a small tree: the prompt without its last token, and a segment for each rollout that begins with that last
token (it predicts the rollout's first). Only tokens that are trained carry streams; the denominators are those of the whole
optimizer step, so micro-batches simply add up.
"""

# Shapes: N packed tokens, T trained tokens, S ids of the widest support, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .bins import best_fit
from .trajectory import Trajectory


class Origin(NamedTuple):
    """Where a sample comes from."""

    env_id: str
    task_seed: int
    group: int
    rollout: int
    branch: int
    step: int = 0
    """The training step that admitted its prompt: with lookahead a step trains groups of several."""

    @staticmethod
    def of(trajectory: Trajectory) -> Origin:
        t = trajectory
        return Origin(t.env_id, t.task_seed, t.group, t.rollout, t.branch, t.step)


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """Plain arrays. `positions_T` are the packed tokens that predict `targets_T`."""

    token_ids_N: np.ndarray
    routes_NEK: np.ndarray | None
    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    positions_T: np.ndarray
    targets_T: np.ndarray
    advantages_T: np.ndarray
    rollout_logprobs_T: np.ndarray
    weights_T: np.ndarray
    temperatures_T: np.ndarray
    versions_T: np.ndarray
    num_trained_tokens: float
    """What the weighted sum is divided by: the mass of the whole optimizer step, not of this batch alone."""
    support_TS: np.ndarray | None
    """The ids that could be sampled at each trained token, -1 behind them (a row of -1: all). None: all everywhere."""
    # Where each trained token comes from, for whoever asks why it differs.
    origins: tuple[Origin, ...]
    """Of each sample."""
    sample_T: np.ndarray
    turn_T: np.ndarray
    place_T: np.ndarray
    """Its position in its trajectory."""
    oldest_T: np.ndarray
    """The oldest weights that sampled a token before it in its trajectory, or sampled itself."""
    algorithm: str = ""
    """The name of the one whose objective these tokens have."""
    # What scoring passes add before the weights change.
    old_logprobs_T: np.ndarray | None = None
    """Of the weights that the step began with; None: the rollout's."""
    reference_logprobs_T: np.ndarray | None = None
    # For a critic.
    rewards_T: np.ndarray | None = None
    ends_S: np.ndarray | None = None
    """The packed position of each sample's last token, after which nothing was predicted."""
    goes_on_S: np.ndarray | None = None
    """Whether a sample was cut there rather than ended, so that what it would still have earned counts."""
    returns_T: np.ndarray | None = None
    values_T: np.ndarray | None = None


@dataclass(frozen=True)
class Sample:
    """A trajectory, the advantage of its tokens (one for all, or each its own), and how they count: `weight` each in the step's sum,
    `mass` together in its denominator. By default tokens count alike, a branch's at 1 / branches."""

    trajectory: Trajectory
    advantage: float | np.ndarray
    weight: float = 0.0
    mass: float = 0.0
    rewards: np.ndarray | None = None
    """Of each token, where a critic makes advantages of them."""

    def __post_init__(self) -> None:
        if not self.weight:
            weight = 1 / self.trajectory.num_branches
            object.__setattr__(self, "weight", weight)
            object.__setattr__(self, "mass", weight * self.trajectory.num_sampled)

    def with_advantage(self, advantage: float | np.ndarray) -> Sample:
        return replace(self, advantage=advantage)


def total_weight(samples: Iterable[Sample]) -> float:
    """The denominator of an optimizer step: the mass of its samples."""
    return float(sum(sample.mass for sample in samples))


def pack(
    groups: Sequence[Sequence[Sample]], num_trained_tokens: float, *, with_routes: bool = True, algorithm: str = ""
) -> TrainBatch:
    """Pack groups of samples. Samples of a group that begin alike share their prompt."""
    packer = _Packer(with_routes)
    for samples in groups:
        packer.add_group(samples)
    return replace(packer.finish(num_trained_tokens), algorithm=algorithm)


def micro_batches(groups: Sequence[Sequence[Sample]], max_tokens: int) -> list[list[Sequence[Sample]]]:
    """Groups in as few batches of at most `max_tokens` packed tokens as best fit finds; a larger group is a batch of its own."""
    sizes = []
    for group in groups:
        sizes.append(sum(len(s.trajectory.token_ids) for s in group) - (len(group) - 1) * _shared(group))
    return [[groups[index] for index in sorted(one)] for one in best_fit(sizes, max_tokens)]


def _shared(samples: Sequence[Sample]) -> int:
    """How many tokens of a group's prompt are computed once: all but the last, which predicts each rollout's first."""
    prompts = [sample.trajectory.segments[0].token_ids for sample in samples]
    same = all(len(p) == len(prompts[0]) and np.array_equal(p, prompts[0]) for p in prompts[1:])
    return len(prompts[0]) - 1 if same and len(prompts) > 1 else 0


class _Packer:
    def __init__(self, with_routes: bool) -> None:
        self.with_routes = with_routes
        self.ids: list[np.ndarray] = []
        self.routes: list[np.ndarray] = []
        self.lengths: list[int] = []
        self.parents: list[int] = []
        self.streams: list[tuple[np.ndarray, ...]] = []
        self.supports: list[np.ndarray | None] = []
        self.origins: list[Origin] = []
        self.rewards: list[np.ndarray] = []
        self.ends: list[int] = []
        self.goes_on: list[bool] = []
        self.num_tokens = 0

    def add_group(self, samples: Sequence[Sample]) -> None:
        shared = _shared(samples)
        parent = -1
        if shared:
            first = samples[0].trajectory
            self._segment(first.token_ids[:shared], first.routes[:shared], -1)
            parent = len(self.lengths) - 1
        for sample in samples:
            self._sample(sample, shared, parent)

    def _segment(self, ids: np.ndarray, routes: np.ndarray, parent: int) -> None:
        self.ids.append(ids)
        self.routes.append(routes)
        self.lengths.append(len(ids))
        self.parents.append(parent)
        self.num_tokens += len(ids)

    def _sample(self, sample: Sample, shared: int, parent: int) -> None:
        trajectory = sample.trajectory
        ids, start = trajectory.token_ids, self.num_tokens
        if sample.rewards is None:
            self._segment(ids[shared:-1], trajectory.routes[shared:], parent)
        else:  # a critic values the last token too, whose route nobody recorded
            routes = trajectory.routes[shared:].astype(np.int64)
            self._segment(ids[shared:], np.concatenate([routes, np.full_like(routes[:1], -1)]), parent)
            self.rewards.append(sample.rewards)
            self.ends.append(self.num_tokens - 1)
            self.goes_on.append(
                trajectory.outcome.kind == "truncated" or trajectory.branch + 1 < trajectory.num_branches
            )
        trained = np.flatnonzero(trajectory.trained)  # at least 1: the first token is always given
        count, support = len(trained), trajectory.support
        self.supports.append(None if support is None else support[trained])
        self.streams.append(
            (
                start + trained - 1 - shared,
                ids[trained],
                np.broadcast_to(np.asarray(sample.advantage, np.float32), count),
                trajectory.logprobs[trained],
                np.full(count, sample.weight, np.float32),
                trajectory.temperatures[trained],
                trajectory.policy_versions[trained],
                np.full(count, len(self.origins)),
                np.concatenate([np.full(len(s.token_ids), s.turn) for s in trajectory.segments])[trained],
                trained,
                _oldest(trajectory.policy_versions)[trained],
            )
        )
        self.origins.append(Origin.of(trajectory))

    def finish(self, num_trained_tokens: float) -> TrainBatch:
        streams = [np.concatenate(stream) for stream in zip(*self.streams, strict=True)]
        names = (
            "positions_T",
            "targets_T",
            "advantages_T",
            "rollout_logprobs_T",
            "weights_T",
            "temperatures_T",
            "versions_T",
            "sample_T",
            "turn_T",
            "place_T",
            "oldest_T",
        )
        return TrainBatch(
            token_ids_N=np.concatenate(self.ids),
            routes_NEK=np.concatenate(self.routes).astype(np.int64) if self.with_routes else None,
            lengths=tuple(self.lengths),
            parents=tuple(self.parents),
            num_trained_tokens=num_trained_tokens,
            origins=tuple(self.origins),
            support_TS=self._support([len(stream[0]) for stream in self.streams]),
            rewards_T=np.concatenate(self.rewards).astype(np.float32) if self.rewards else None,
            ends_S=np.array(self.ends) if self.rewards else None,
            goes_on_S=np.array(self.goes_on) if self.rewards else None,
            **dict(zip(names, streams, strict=True)),
        )

    def _support(self, counts: list[int]) -> np.ndarray | None:
        widest = max((s.shape[1] for s in self.supports if s is not None), default=0)
        if not widest:
            return None
        rows = [np.full((count, widest), -1, np.int64) for count in counts]
        for row, support in zip(rows, self.supports, strict=True):
            if support is not None:
                row[:, : support.shape[1]] = support
        return np.concatenate(rows)


def _oldest(versions: np.ndarray) -> np.ndarray:
    """The smallest version so far; given tokens (-1) have none."""
    return np.minimum.accumulate(np.where(versions < 0, np.iinfo(versions.dtype).max, versions))
