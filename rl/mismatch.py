"""The mismatch monitor: where the engine's and the learner's log-probabilities differ, and why most likely.

Both claim to score one distribution (law 3), so on tokens whose weights have not changed the difference is rounding. Public runs
collapsed on what is more: stale caches, flipped routes, distributions narrowed by top-p and scored whole, text that was tokenized
anew. Each leaves its own mark, and the alarm names it.
"""

# Shapes: T observed tokens, N packed tokens, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .batch import TrainBatch


@dataclass(frozen=True)
class Alarm:
    """A likely cause: one line of evidence, one of cure."""

    cause: str
    evidence: str
    cure: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}. {self.cure}"


@dataclass(frozen=True)
class WorstToken:
    """A token that differs most, and where to find it."""

    env_id: str
    task_seed: int
    rollout: int
    turn: int
    position: int
    token_id: int
    engine: float
    learner: float
    policy_version: int
    routes: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one batch's tokens show. `flipped_T` is None where routes were not compared."""

    engine_T: np.ndarray
    learner_T: np.ndarray
    sample_T: np.ndarray
    turn_T: np.ndarray
    stale_T: np.ndarray
    """Tokens whose context holds tokens of older weights."""
    flipped_T: np.ndarray | None = None


class MismatchMonitor:
    """Watches a run. `bound` is what the engine declares (native engine in fp32: 1e-4)."""

    def __init__(self, bound: float = 1e-4, num_worst: int = 16, *, stale_states: bool = False) -> None:
        """With `stale_states`, tokens after a change of weights stand on states of older ones by choice, and are not compared."""
        self.bound, self.num_worst, self.stale_states = bound, num_worst, stale_states
        self.alarms: dict[str, Alarm] = {}
        self.largest = 0.0
        self.compared = 0
        """Tokens of the whole run that both scored by the same weights."""
        self._worst: list[tuple[float, int, WorstToken]] = []
        self._step: list[np.ndarray] = []
        self._count = 0

    def observe(
        self,
        batch: TrainBatch,
        learner_T: np.ndarray,
        version: int,
        taken_NEK: Callable[[], np.ndarray] | None = None,
    ) -> int:
        """Tokens of a batch that the weights of `version` sampled and score, and how many those are. `taken_NEK` gives the routes that
        the learner takes of itself, and is asked only where something is wrong."""
        fresh = np.flatnonzero((batch.oldest_T if self.stale_states else batch.versions_T) == version)
        if not len(fresh):
            return 0
        self.compared += len(fresh)
        engine, learner = batch.rollout_logprobs_T[fresh], learner_T[fresh]
        size = np.abs(learner - engine)
        self._step.append(size)
        self.largest = max(self.largest, float(size.max()))
        self._remember(batch, fresh, engine, learner, size)
        if size.max() <= self.bound:
            return len(fresh)
        flipped = None
        if taken_NEK is not None and batch.routes_NEK is not None:
            recorded, taken = (np.sort(r[batch.positions_T[fresh]], -1) for r in (batch.routes_NEK, taken_NEK()))
            flipped = (recorded != taken).any((1, 2))
        seen = Observed(
            engine_T=engine,
            learner_T=learner,
            sample_T=batch.sample_T[fresh],
            turn_T=batch.turn_T[fresh],
            stale_T=batch.oldest_T[fresh] < version,
            flipped_T=flipped,
        )
        alarm = likely_cause(seen, self.bound)
        if alarm is not None:
            self.alarms.setdefault(alarm.cause, alarm)
        return len(fresh)

    def step_figures(self) -> dict[str, float]:
        """How many tokens were compared since this was asked last, and quantiles of their differences: NaN where there were none, which
        is logged as null, since 0 would read as perfect agreement."""
        sizes = np.concatenate(self._step) if self._step else np.array([np.nan], np.float32)
        compared = sum(map(len, self._step))
        self._step.clear()
        names = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
        return {"compared": compared, **{name: float(np.quantile(sizes, q)) for name, q in names.items()}}

    def worst(self) -> list[WorstToken]:
        """The tokens of the whole run that differ most, largest first."""
        return [token for _, _, token in sorted(self._worst, key=lambda item: -item[0])]

    def report(self) -> dict[str, Any]:
        return {
            "bound": self.bound,
            "compared": self.compared,
            "largest": self.largest if self.compared else None,
            "alarms": [asdict(alarm) for alarm in self.alarms.values()],
            "worst": [asdict(token) for token in self.worst()],
        }

    def _remember(
        self, batch: TrainBatch, fresh: np.ndarray, engine: np.ndarray, learner: np.ndarray, size: np.ndarray
    ) -> None:
        for index in np.argsort(-size)[: self.num_worst]:
            if len(self._worst) == self.num_worst and size[index] <= self._worst[0][0]:
                break
            at = fresh[index]
            origin = batch.origins[batch.sample_T[at]]
            routes = [] if batch.routes_NEK is None else batch.routes_NEK[batch.positions_T[at]].tolist()
            token = WorstToken(
                env_id=origin.env_id,
                task_seed=origin.task_seed,
                rollout=origin.rollout,
                turn=int(batch.turn_T[at]),
                position=int(batch.place_T[at]),
                token_id=int(batch.targets_T[at]),
                engine=float(engine[index]),
                learner=float(learner[index]),
                policy_version=int(batch.versions_T[at]),
                routes=routes,
            )
            self._count += 1
            push = heapq.heappush if len(self._worst) < self.num_worst else heapq.heapreplace
            push(self._worst, (float(size[index]), self._count, token))


def likely_cause(seen: Observed, bound: float) -> Alarm | None:
    """The cause whose mark the differences bear; None where all are within the bound."""
    difference = seen.learner_T - seen.engine_T
    size = np.abs(difference)
    over = size > bound
    if not over.any():
        return None
    for mark in (_stale, _flipped, _narrowed, _heated, _retokenized):
        if alarm := mark(seen, difference, over):
            return alarm
    told = f"{over.mean():.1%} of tokens beyond {bound:.0e}, the largest {size.max():.1e}, in no pattern"
    return Alarm("precision", told, "Keep Mamba states, the router and the head in fp32 on both sides")


def _stale(seen: Observed, difference: np.ndarray, over: np.ndarray) -> Alarm | None:
    stale = seen.stale_T
    elsewhere = over[~stale].mean() if not stale.all() else 0.0
    if not stale.any() or stale[over].mean() < 0.9 or over[stale].mean() < 5 * elsewhere:
        return None
    told = f"{stale[over].mean():.0%} of the differences lie behind tokens of older weights"
    return Alarm(
        "stale_cache",
        told,
        "States were kept over a weight update: pause with mode recompute, or train on it knowingly",
    )


def _flipped(seen: Observed, difference: np.ndarray, over: np.ndarray) -> Alarm | None:
    flipped = seen.flipped_T
    if flipped is None or not flipped.any() or flipped.all():
        return None
    size = np.abs(difference)
    if size[flipped].mean() < 10 * size[~flipped].mean():
        return None
    told = f"{flipped.mean():.1%} of tokens are routed to other experts, and differ by {size[flipped].mean():.1e} on average"
    return Alarm(
        "route_flip", told, "Replay the recorded routes (pack(..., with_routes=True)) and keep the router in fp32"
    )


def _narrowed(seen: Observed, difference: np.ndarray, over: np.ndarray) -> Alarm | None:
    if over.mean() < 0.3 or (difference[over] < 0).mean() < 0.98:
        return None
    told = f"the engine is surer on {over.mean():.0%} of tokens: it kept {np.exp(np.median(difference[over])):.0%} of the mass"
    return Alarm(
        "sampling_support", told, "top_k or top_p narrowed the distribution: record the support, or sample from all"
    )


def _heated(seen: Observed, difference: np.ndarray, over: np.ndarray) -> Alarm | None:
    if over.mean() < 0.8 or len(over) < 8:
        return None
    fit = np.corrcoef(difference, seen.engine_T)[0, 1]
    if not abs(fit) > 0.7:
        return None
    told = f"differences follow the log-probability itself (correlation {fit:.2f})"
    return Alarm("temperature", told, "Score each token at the temperature that sampled it")


def _retokenized(seen: Observed, difference: np.ndarray, over: np.ndarray) -> Alarm | None:
    turns = {}
    for key, is_over in zip(zip(seen.sample_T.tolist(), seen.turn_T.tolist(), strict=True), over.tolist(), strict=True):
        turns.setdefault(key, []).append(is_over)
    broken = {key for key, found in turns.items() if np.mean(found) > 0.8}
    in_broken = sum(sum(found) for key, found in turns.items() if key in broken)
    if len(broken) == len(turns) or in_broken < 0.9 * over.sum() or np.median(np.abs(difference[over])) < 1e-2:
        return None
    sample, turn = min(broken)
    told = (
        f"{len(broken)} of {len(turns)} turns differ from their first token on, such as turn {turn} of sample {sample}"
    )
    return Alarm(
        "template",
        told,
        "The learner reads another context: keep sampled ids, and fork where a template rewrites history",
    )
