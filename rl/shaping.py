"""Shaping: what a rollout's lengths add to its reward. Groups are filtered on raw rewards first, and shaped after.

Reasoning and answer are measured apart, in tokens of the rollout: a policy that thinks long and answers briefly is no wordy one.
"""

# Shapes: G rollouts of a group.

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from .section import Section


class Shaping(Section):
    """Rewards and filters of length. All are off by default."""

    overlong_filter: bool = False
    """Rollouts that ran out of tokens stay in their group's baseline, and out of the loss."""
    overlong_buffer: int = Field(default=0, ge=0)
    """The last tokens of `generation.max_new_tokens` in which the penalty grows from 0 to `overlong_penalty`; 0: no penalty."""
    overlong_penalty: float = Field(default=1.0, ge=0)
    reasoning_length: float = Field(default=0.0, ge=0)
    """What the group's shortest reasoning gains over its longest."""
    answer_length: float = Field(default=0.0, ge=0)
    shortest_bonus: float = Field(default=0.0, ge=0)
    """Of the shortest reasoning, and of the shortest answer, among the group's best fifth."""
    low_effort: float = Field(default=0.0, ge=0, le=1)
    """The share of a low-effort rollout's reward that its tokens use up: all of it at `generation.max_new_tokens`."""

    @model_validator(mode="after")
    def _parts(self) -> Shaping:
        if self.overlong_filter and self.overlong_buffer:
            raise ValueError("overlong_filter leaves out the rollouts that overlong_buffer would penalise; choose one")
        return self

    @property
    def active(self) -> bool:
        return bool(
            self.overlong_buffer
            or self.reasoning_length
            or self.answer_length
            or self.shortest_bonus
            or self.low_effort
        )


UNSHAPED = Shaping()


def overlong_penalty(lengths_G: np.ndarray, limit: int, buffer: int) -> np.ndarray:
    """DAPO's soft punishment (https://arxiv.org/abs/2503.14476, equation 13): 0 up to limit - buffer tokens, then linearly to -1 at the
    limit."""
    return -np.clip((lengths_G - (limit - buffer)) / buffer, 0.0, 1.0)


def length_reward(lengths_G: np.ndarray) -> np.ndarray:
    """Group-relative length control (https://arxiv.org/abs/2512.20848, section 3.3): 1 for the shortest down to 0 for the longest, less
    the mean, so that a group's mean reward stays as it is."""
    shortest, longest = lengths_G.min(), lengths_G.max()
    if shortest == longest:
        return np.zeros(len(lengths_G))
    weights_G = 1 - (lengths_G - shortest) / (longest - shortest)
    return weights_G - weights_G.mean()


def shortest_bonus(lengths_G: np.ndarray, rewards_G: np.ndarray, share: float = 0.2) -> np.ndarray:
    """1 for the shortest that is not empty, if its reward is among the best `share` of the group; 0 for all others."""
    bonus_G = np.zeros(len(lengths_G))
    written = np.flatnonzero(lengths_G > 0)
    if len(written):
        place = max(0, int(len(rewards_G) * share) - 1)
        shortest = written[lengths_G[written].argmin()]
        bonus_G[shortest] = float(rewards_G[shortest] >= np.sort(rewards_G)[::-1][place])
    return bonus_G


def low_effort_reward(rewards_G: np.ndarray, lengths_G: np.ndarray, limit: int, share: float) -> np.ndarray:
    """Rewards of rollouts that were asked for little effort: what is right earns less the more tokens it took. What costs is not made
    cheaper by length."""
    return rewards_G - np.maximum(rewards_G, 0.0) * share * np.clip(lengths_G / limit, 0.0, 1.0)
