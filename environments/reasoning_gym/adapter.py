"""reasoning-gym's data sets as single-turn environments: `reasoning_gym/<data set>-v0`.

    seed --> index --> entry (question, answer, metadata) --> Task;   answer --score_answer--> reward

Graders that evaluate the answer, or let it set the amount of work, run in a killable worker; the others run in process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...messages import EnvironmentFault, Limits, Task, Turn
from ...sandbox import Pool
from ..env import Env
from ..reward import reward
from . import entries
from .demonstrators import DEMONSTRATORS, ORACLES
from .names import EVALUATING, EXCEPTIONS, EXTRACTIVE, FLOORS, GENERATED, WITHOUT_ANSWER, well_formed

_MAKE, _SCORE = f"{entries.__name__}:make_entry", f"{entries.__name__}:score"
_MAKE_TIMEOUT_S = 60.0
_MAX_DRAWS = 100

WORKERS = Pool([_MAKE, _SCORE])
"""Shared by all environments of this process; nothing is started before it is needed."""


class ReasoningGym(Env):
    """One data set. Options are fields of its configuration in reasoning-gym."""

    def __new__(cls, dataset: str = "", **options: Any) -> ReasoningGym:
        return object.__new__(EvaluatedReasoningGym if cls is ReasoningGym and dataset in EVALUATING else cls)

    def __init__(
        self, dataset: str, *, render_mode: str | None = None, limits: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        if dataset == "number_sorting":
            self.limits = Limits(reasoning_budgets=(0,))
        super().__init__(render_mode=render_mode, limits=limits)
        entries.check(dataset, options)
        self.dataset, self.options = dataset, options
        self.floor = FLOORS.get(dataset, type(self).floor)
        self.answer_in_prompt = dataset in EXTRACTIVE
        if dataset in WITHOUT_ANSWER:
            self.no_oracle = EXCEPTIONS[dataset]

    def sample_task(self, rng: np.random.Generator) -> Task:
        """An item by a drawn index. Items whose own answer is not well formed are passed over."""
        for _ in range(_MAX_DRAWS):
            entry = self._make_entry(int(rng.integers(entries.NUM_ITEMS)))
            answer = "" if entry["answer"] is None else str(entry["answer"])
            if well_formed(self.dataset, answer, answer):
                return Task(entry["question"], answer, metadata=entry)
        raise ValueError(f"reasoning_gym/{self.dataset}: {_MAX_DRAWS} items had no answer that may be graded")

    @reward
    def score(self, turn: Turn) -> float:
        if not self._well_formed(turn):
            return 0.0
        return entries.score(self.dataset, self.options, turn.answer, self.task.metadata)

    def oracle(self) -> Turn:
        if self.task.metadata["answer"] is None:
            raise NotImplementedError(f"reasoning_gym/{self.dataset}: {EXCEPTIONS[self.dataset]}")
        return ORACLES[self.dataset](self.task.metadata) if self.dataset in ORACLES else Turn(self.task.answer)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        if self.dataset not in DEMONSTRATORS:
            return super().demonstrate(rng)
        return DEMONSTRATORS[self.dataset](self.task.metadata, rng)

    def _well_formed(self, turn: Turn) -> bool:
        return well_formed(self.dataset, turn.answer, self.task.answer)

    def _make_entry(self, index: int) -> entries.Entry:
        if self.dataset not in GENERATED:
            return entries.make_entry(self.dataset, self.options, index)
        try:
            return WORKERS.call(_MAKE, self.dataset, self.options, index, timeout_s=_MAKE_TIMEOUT_S)
        except EnvironmentFault as fault:
            raise EnvironmentFault("environment_crash", f"item {index} was not made: {fault}") from fault


class EvaluatedReasoningGym(ReasoningGym):
    """A data set whose grader evaluates the answer: graded in a worker that is killed when it takes too long."""

    @reward(own_deadline=True)
    async def score(self, turn: Turn) -> float:  # type: ignore[override]
        if not self._well_formed(turn):
            return 0.0
        entry, timeout_s = dict(self.task.metadata), self.limits.grading_timeout_s
        return await WORKERS.acall(_SCORE, self.dataset, self.options, turn.answer, entry, timeout_s=timeout_s)
