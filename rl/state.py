"""What a run's snapshot holds besides tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PHASES = ("sft", "rl", "done")


@dataclass
class State:
    """Plain values: the controller changes them, nobody else does."""

    phase: str = "sft"
    step: int = 0
    """Steps of the phase that are done."""
    policy_version: int = 0
    admitted: int = 0
    """Steps whose prompts were drawn."""
    pending: list[list[Any]] = field(default_factory=list)
    """Prompts that were admitted and not trained: rolled out anew after a resume."""
    data: dict[str, Any] = field(default_factory=dict)
    """What admission has drawn (admission.py)."""
    counts: dict[str, float] = field(default_factory=dict)
    """Running totals: sampled tokens, rollouts, left out by kind, seconds by part, compared tokens, the largest mismatch."""

    def add(self, **amounts: float) -> None:
        for key, amount in amounts.items():
            self.counts[key] = self.counts.get(key, 0) + amount
