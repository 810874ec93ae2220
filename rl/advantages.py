"""Advantages: what a rollout's reward says against the other rollouts of its prompt."""

# Shapes: G rollouts of a group.

from __future__ import annotations

import numpy as np


def leave_one_out(rewards_G: np.ndarray) -> np.ndarray:
    """RLOO (https://arxiv.org/abs/2402.14740): each reward minus the mean of the others. They sum to zero.

    Unbiased, since a rollout's baseline does not contain its own reward. Needs two rollouts at least.
    """
    G = len(rewards_G)
    if G < 2:
        raise ValueError(f"an advantage compares rollouts of one prompt with each other: at least 2, got {G}")
    return (rewards_G - rewards_G.mean()) * G / (G - 1)


def centered(rewards_G: np.ndarray, *, normalize_std: bool = False, eps: float = 1e-6) -> np.ndarray:
    """GRPO (https://arxiv.org/abs/2402.03300): each reward minus the group's mean, perhaps over its deviation (ddof 1).

    A group whose rewards all agree gets zeros.
    """
    advantages_G = rewards_G - rewards_G.mean()
    if normalize_std and len(rewards_G) > 1:
        advantages_G = advantages_G / (rewards_G.std(ddof=1) + eps)
    return advantages_G
