"""Mixtures: which environment each prompt of a batch comes from, in exact ratios, batch after batch.

Shares that are no whole numbers are owed: what a batch could not give, the next ones do, so that after any number of batches
each environment is within one prompt of its share. Nothing is random, and what is owed is saved and resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


class Mixture:
    """Environments by id with positive weights. `at_least` prompts of each come in every batch."""

    def __init__(self, weights: Mapping[str, float], *, at_least: int = 0) -> None:
        if not weights:
            raise ValueError("a mixture needs at least one environment")
        for env_id, weight in weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {env_id} must be a positive number, got {weight!r}")
        # Exact: a thousand batches of a third each are a third.
        total = sum(Fraction(weight).limit_denominator(10**6) for weight in weights.values())
        self.shares = {env_id: Fraction(w).limit_denominator(10**6) / total for env_id, w in weights.items()}
        self.at_least = at_least
        self._owed = dict.fromkeys(weights, Fraction(0))

    def allot(self, batch_size: int, at_least: int | None = None) -> dict[str, int]:
        """How many prompts of each environment this batch has; `at_least` for a batch that is only a part of one."""
        least = self.at_least if at_least is None else at_least
        if batch_size < least * len(self.shares):
            raise ValueError(
                f"a batch of {batch_size} cannot hold {least} of each of {len(self.shares)} environments; "
                f"make it at least {least * len(self.shares)}"
            )
        due = {env_id: share * batch_size + self._owed[env_id] for env_id, share in self.shares.items()}
        counts = {env_id: max(least, int(amount)) for env_id, amount in due.items()}
        while sum(counts.values()) < batch_size:
            counts[max(due, key=lambda env_id: due[env_id] - counts[env_id])] += 1
        while sum(counts.values()) > batch_size:
            above = [env_id for env_id in counts if counts[env_id] > least]
            counts[min(above, key=lambda env_id: due[env_id] - counts[env_id])] -= 1
        self._owed = {env_id: due[env_id] - counts[env_id] for env_id in due}
        return counts

    def state_dict(self) -> dict[str, str]:
        """What is owed, as exact fractions."""
        return {env_id: str(amount) for env_id, amount in self._owed.items()}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """What `state_dict` gave. ValueError where the environments differ."""
        if set(state) != set(self._owed):
            raise ValueError(f"this mixture is of {sorted(self._owed)}, the saved one of {sorted(state)}")
        self._owed = {env_id: Fraction(state[env_id]) for env_id in self._owed}
