"""Advantages: what a rollout's reward says against the other rollouts of its prompt."""

# Shapes: G rollouts of a group, R named rewards.

from __future__ import annotations

from typing import Literal

import numpy as np

Baseline = Literal["leave_one_out", "mean", "none"]
Scale = Literal["none", "group", "population", "leave_one_out"]

_EPS = 1e-6


def leave_one_out(rewards_G: np.ndarray) -> np.ndarray:
    """RLOO (https://arxiv.org/abs/2402.14740): each reward minus the mean of the others. They sum to zero.

    Unbiased, since a rollout's baseline does not contain its own reward. Needs two rollouts at least.
    """
    G = len(rewards_G)
    if G < 2:
        raise ValueError(f"an advantage compares rollouts of one prompt with each other: at least 2, got {G}")
    return (rewards_G - rewards_G.mean()) * G / (G - 1)


def centered(rewards_G: np.ndarray, *, normalize_std: bool = False, eps: float = _EPS) -> np.ndarray:
    """GRPO (https://arxiv.org/abs/2402.03300): each reward minus the group's mean, perhaps over its deviation (ddof 1).

    A group whose rewards all agree gets zeros.
    """
    advantages_G = rewards_G - rewards_G.mean()
    if normalize_std and len(rewards_G) > 1:
        advantages_G = advantages_G / (rewards_G.std(ddof=1) + eps)
    return advantages_G


def deviation(rewards_G: np.ndarray, scale: Scale) -> np.ndarray:
    """What each advantage is divided by. `group` is the group's deviation (ddof 1), `population` that with ddof 0, `leave_one_out`
    that of the others; 1 where it would be 0, as among the one other of a pair."""
    G = len(rewards_G)
    if scale == "none" or G < 2:
        return np.ones(G)
    if scale == "leave_one_out":
        others_GG = np.broadcast_to(rewards_G, (G, G))[~np.eye(G, dtype=bool)].reshape(G, G - 1)
        std_G = others_GG.std(axis=1, ddof=1) if G > 2 else np.zeros(G)
    else:
        std_G = np.full(G, rewards_G.std(ddof=0 if scale == "population" else 1))
    return np.where(std_G > 1e-9, std_G + _EPS, 1.0)


def relative(rewards_G: np.ndarray, baseline: Baseline, scale: Scale = "none") -> np.ndarray:
    """Rewards less a baseline, over a deviation."""
    if baseline == "leave_one_out":
        advantages_G = leave_one_out(rewards_G)
    else:
        advantages_G = rewards_G - (rewards_G.mean() if baseline == "mean" else 0.0)
    return advantages_G / deviation(rewards_G, scale)


def relative_apart(rewards_GR: np.ndarray, baseline: Baseline, scale: Scale = "none") -> np.ndarray:
    """GDPO (https://arxiv.org/abs/2601.05242): each named reward relative within the group on its own, then summed [G], so that two
    rollouts of one total but different parts are told apart. The paper whitens the sums over the batch (`whiten`)."""
    return np.sum([relative(rewards_G, baseline, scale) for rewards_G in rewards_GR.T], axis=0)


def maximum_likelihood(rewards_G: np.ndarray) -> np.ndarray:
    """MaxRL (https://arxiv.org/abs/2602.02710): rewards less their mean, over their mean. For rewards of 0 and 1 the policy gradient
    becomes one of the log of the pass rate, to the order that G samples allow: rare successes weigh more. Zeros where none succeeds."""
    mean = rewards_G.mean()
    if (rewards_G < 0).any():
        raise ValueError(f"maxrl takes rewards as pass rates, at least 0; got {float(rewards_G.min())}")
    return (rewards_G - mean) / mean if mean > 0 else np.zeros(len(rewards_G))


def whiten(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Values less their mean over their deviation, perhaps weighted; only less their mean where they all agree."""
    weights = np.ones(len(values)) if weights is None else weights
    mean = float((values * weights).sum() / weights.sum())
    std = float(np.sqrt((np.square(values - mean) * weights).sum() / weights.sum()))
    return (values - mean) / (std + _EPS if std > 1e-9 else 1.0)


def discounted(rewards_T: np.ndarray, gamma: float) -> np.ndarray:
    """The discounted sum of the rewards from each place on."""
    return generalized(rewards_T, np.zeros(len(rewards_T) + 1), gamma, 1.0)


def generalized(rewards_T: np.ndarray, values_T1: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Generalised advantage estimation (https://arxiv.org/abs/1506.02438, equation 16), over tokens that the policy wrote: observations
    between them take no time. The last value is that of where the rollout ended: 0 where it terminated."""
    deltas_T = rewards_T + gamma * values_T1[1:] - values_T1[:-1]
    advantages_T, carried = np.empty(len(deltas_T)), 0.0
    for place in range(len(deltas_T) - 1, -1, -1):
        carried = deltas_T[place] + gamma * lam * carried
        advantages_T[place] = carried
    return advantages_T
