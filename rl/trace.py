"""The trace of a step: every token that the policy sampled for it, whether it was trained, by how much, and if not, why not.

    RUN/trace/0000012.npz     one row a token; `swannery trace RUN --step 12` reads it

Rows stand by environment, group, rollout, branch and place. What the learner said of a token is from just before the update that trained
it, so that it can be compared with the engine's.
"""

# Shapes: R rows (sampled tokens of the step), T trained tokens of a micro-batch.

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..environments.guess import nearest
from .batch import Origin, TrainBatch
from .config import ConfigError, RunConfig
from .scoring import informative, ran_out_of_tokens
from .trajectory import Group, Trajectory

REASONS = ("trained", "forced", "the group agrees", "overlong", "certain", "corrected away", "left out")
"""Why a token counts or does not: it was the budget's; its group's rewards are all the same; its rollout ran out of tokens and the filter
is on; its entropy is below `rl.entropy_share`; the correction gave it no weight; the algorithm made no sample of it."""
COLUMNS = {
    "environment": np.uint16, "task_seed": np.uint64, "admitted": np.int32, "group": np.int32, "rollout": np.int32,
    "branch": np.int16, "turn": np.int16,
    "place": np.int32, "token": np.int32, "version": np.int32, "rollout_logprob": np.float32, "learner_logprob": np.float32,
    "advantage": np.float32, "weight": np.float32, "update": np.int16, "reason": np.uint8,
}  # fmt: skip


@dataclass
class StepTrace:
    """Collects a step's rows: first what was sampled, then what each update says of it."""

    config: RunConfig
    groups: Sequence[Group]
    rows: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.env_ids = [env.id for env in self.config.environments]
        self._start: dict[Origin, int] = {}
        """Where a trajectory's tokens begin in `_row`."""
        parts: list[dict[str, np.ndarray]] = []
        places: list[np.ndarray] = []
        length, count = 0, 0
        for group in self.groups:
            agrees = not informative(group)
            for trajectory in (branch for branches in group.rollouts for branch in branches):
                part = self._sampled(trajectory, agrees)
                origin = Origin.of(trajectory)
                assert origin not in self._start, f"two rollouts of one name: {origin}"
                self._start[origin] = length
                place = np.full(sum(len(s.token_ids) for s in trajectory.segments), -1, np.int64)
                place[part["place"]] = count + np.arange(len(part["place"]))
                parts.append(part)
                places.append(place)
                length, count = length + len(place), count + len(part["place"])
        self._row = np.concatenate(places) if places else np.zeros(0, np.int64)
        self.rows = {
            name: np.concatenate([part[name] for part in parts]).astype(kind) if parts else np.zeros(0, kind)
            for name, kind in COLUMNS.items()
        }

    def _sampled(self, trajectory: Trajectory, agrees: bool) -> dict[str, np.ndarray]:
        """A trajectory's own tokens, with the reason that is known before any loss."""
        sampled = np.concatenate([np.full(len(s.token_ids), s.sampled) for s in trajectory.segments])
        sampled[: trajectory.branch_offset] = False
        at = np.flatnonzero(sampled)
        forced = np.concatenate([s.forced for s in trajectory.segments])[at]
        overlong = self.config.shaping.overlong_filter and ran_out_of_tokens(trajectory)
        why = REASONS.index("the group agrees" if agrees else "overlong" if overlong else "left out")
        count = len(at)
        return {
            "environment": np.full(count, self.env_ids.index(trajectory.env_id)),
            "task_seed": np.full(count, trajectory.task_seed, np.uint64),
            "admitted": np.full(count, trajectory.step),
            "group": np.full(count, trajectory.group),
            "rollout": np.full(count, trajectory.rollout),
            "branch": np.full(count, trajectory.branch),
            "turn": np.concatenate([np.full(len(s.token_ids), s.turn) for s in trajectory.segments])[at],
            "place": at,
            "token": trajectory.token_ids[at],
            "version": trajectory.policy_versions[at],
            "rollout_logprob": trajectory.logprobs[at],
            "learner_logprob": np.full(count, np.nan),
            "advantage": np.full(count, np.nan),
            "weight": np.zeros(count),
            "update": np.full(count, -1),
            "reason": np.where(forced, REASONS.index("forced"), why),
        }

    def observe(self, update: int, batch: TrainBatch, logprobs_T: np.ndarray) -> None:
        """What an update is about to do with a batch's tokens."""
        starts_S = np.array([self._start[origin] for origin in batch.origins])
        rows_T = self._row[starts_S[batch.sample_T] + batch.place_T]
        weights_T = batch.weights_T / batch.num_trained_tokens
        reasons_T = np.where(batch.weights_T > 0, REASONS.index("trained"), REASONS.index("certain"))
        if batch.old_logprobs_T is not None or self.config.rl.old_policy == "learner":
            old_T = logprobs_T if batch.old_logprobs_T is None else batch.old_logprobs_T
            factors_T = self._factors(old_T, batch)
            reasons_T = np.where((factors_T == 0) & (batch.weights_T > 0), REASONS.index("corrected away"), reasons_T)
            weights_T = weights_T * factors_T
        given = {
            "learner_logprob": logprobs_T, "advantage": batch.advantages_T, "weight": weights_T, "update": update,
            "reason": reasons_T,
        }  # fmt: skip
        for name, values in given.items():
            self.rows[name][rows_T] = values

    def _factors(self, old_T: np.ndarray, batch: TrainBatch) -> np.ndarray:
        """The correction's weight of each token."""
        tensors = (torch.from_numpy(np.ascontiguousarray(a)) for a in (old_T, batch.rollout_logprobs_T, batch.sample_T))
        return self.config.correction.weights(*tensors).numpy()

    def to_bytes(self) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(file, environments=np.array(self.env_ids), **self.rows)  # type: ignore[arg-type]
        return file.getvalue()


def read_trace(content: bytes) -> dict[str, Any]:
    """A trace's columns, and the ids of its `environments`. Nothing is ever unpickled."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        rows: dict[str, Any] = {name: found[name] for name in COLUMNS}
        return rows | {"environments": found["environments"].tolist()}


def summary(rows: dict[str, Any]) -> list[dict[str, str]]:
    """Tokens by environment and reason, in words."""
    lines = []
    for number, env_id in enumerate(rows["environments"]):
        mine = rows["environment"] == number
        trained = mine & (rows["reason"] == 0)
        apart = np.abs(rows["rollout_logprob"] - rows["learner_logprob"])[trained & (rows["update"] == 0)]
        counts = {reason: int((mine & (rows["reason"] == index)).sum()) for index, reason in enumerate(REASONS)}
        lines.append(
            {
                "environment": env_id,
                **{reason: str(count) for reason, count in counts.items()},
                "engine - learner": f"{apart.max():.1e}" if len(apart) else "-",
                "mean |advantage|": f"{np.abs(rows['advantage'][trained]).mean():.3f}" if trained.any() else "-",
            }
        )
    return lines


def pick(rows: dict[str, Any], env_id: str, group: int, rollout: int) -> np.ndarray:
    """The rows of the first rollout that fits. ConfigError where none does."""
    known = rows["environments"]
    if env_id and env_id not in known:
        raise ConfigError(f"this run has no environment {env_id!r}. {nearest(env_id, known)}")
    fits = np.ones(len(rows["token"]), bool)
    for name, value in (("environment", known.index(env_id) if env_id else -1), ("group", group), ("rollout", rollout)):
        if value >= 0:
            fits &= rows[name] == value
    if not fits.any():
        mine = rows["environment"] == known.index(env_id) if env_id else np.ones(len(fits), bool)
        groups = sorted(set(rows["group"][mine].tolist()))
        whose = f"{env_id}'s groups are" if env_id else "its groups are"
        raise ConfigError(
            f"no such rollout in this step; {whose} {', '.join(map(str, groups))}" if groups else "nothing was sampled"
        )
    first = int(np.flatnonzero(fits)[0])
    for name in ("environment", "task_seed", "admitted", "group", "rollout"):
        fits &= rows[name] == rows[name][first]
    return np.flatnonzero(fits)


def batch_bytes(batches: Sequence[TrainBatch]) -> bytes:
    """Batches as they were given to the learner, to be looked at: arrays named NUMBER.FIELD."""
    arrays: dict[str, np.ndarray] = {}
    for number, batch in enumerate(batches):
        for name, value in vars(batch).items():
            if name == "origins":
                arrays[f"{number}.environments"] = np.array([origin.env_id for origin in value])
                arrays[f"{number}.origins"] = np.array([origin[1:] for origin in value], np.uint64)
            elif value is not None:
                arrays[f"{number}.{name}"] = np.asarray(value)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
