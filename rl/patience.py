"""When a run gives up: steps in a row that train nothing, because no gradient is finite or because no rollout succeeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .learner import StepMetrics
from .run_folder import RunError
from .state import State
from .trajectory import Group

PATIENCE = 10


def watch_update(state: State, metrics: StepMetrics) -> None:
    """Count an update that was skipped. RunError after many in a row."""
    counts = state.counts
    counts["skipped_in_a_row"] = counts.get("skipped_in_a_row", 0) + 1 if metrics.skipped else 0
    state.add(skipped_steps=metrics.skipped)
    if counts["skipped_in_a_row"] >= PATIENCE:
        raise RunError(
            f"{PATIENCE} updates in a row had gradients that are not finite; the learning rate is the first suspect, then the samples "
            f"in the run's folder nonfinite/"
        )


def watch_rollouts(state: State, groups: Sequence[Group]) -> None:
    """Count a step of which nothing but faults came. RunError after many in a row."""
    counts = state.counts
    empty = not any(g.rollouts for g in groups)
    counts["empty_in_a_row"] = counts.get("empty_in_a_row", 0) + 1 if empty else 0
    state.add(empty_steps=empty)
    if counts["empty_in_a_row"] >= PATIENCE:
        kinds = Counter(kind for group in groups for kind in group.faults)
        said = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(3))
        raise RunError(
            f"every rollout of {PATIENCE} steps in a row failed: {said}. Look at the environments: swannery check"
        )
