"""Advantages: what a rollout's reward says against the other rollouts of its prompt."""

# Shapes: G rollouts of a group, R named rewards, T trained tokens of a rollout, in K chunks of C.

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

Baseline = Literal["leave_one_out", "mean", "none"]
Scale = Literal["none", "group", "population", "leave_one_out"]

_EPS = 1e-6
_CHUNK = 128


def leave_one_out(rewards_G: np.ndarray) -> np.ndarray:
    """RLOO (https://arxiv.org/abs/2402.14740): each reward minus the mean of the others. They sum to zero.

    Unbiased, since a rollout's baseline does not contain its own reward. One alone has nothing to be compared with, and gets 0.
    """
    G = len(rewards_G)
    if G < 2:
        return np.zeros(G)
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
    weights = np.ones(len(values)) if weights is None else weights.astype(np.float64)  # whose sum hangs on no order
    mean = float((values * weights).sum() / weights.sum())
    std = float(np.sqrt((np.square(values - mean) * weights).sum() / weights.sum()))
    return (values - mean) / (std + _EPS if std > 1e-9 else 1.0)


def discounted(rewards_T: np.ndarray, gamma: float) -> np.ndarray:
    """The discounted sum of the rewards from each place on."""
    return generalized(rewards_T, np.zeros(len(rewards_T) + 1), gamma, 1.0)


def generalized(rewards_T: np.ndarray, values_T1: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Generalised advantage estimation (https://arxiv.org/abs/1506.02438, equation 16), over tokens that the policy wrote: observations
    between them take no time. The last value is that of where the rollout ended: 0 where it terminated.

    By chunks: within one, a product with powers of gamma * lam; from one to the one before, the value that is carried.
    """
    if len(rewards_T) < _CHUNK // 4:  # there is nothing to win
        return generalized_ref(rewards_T, values_T1, gamma, lam)
    deltas_T = _surprises(rewards_T, values_T1, gamma)
    T, C, decay = len(deltas_T), min(max(len(deltas_T), 1), _CHUNK), gamma * lam
    deltas_KC = np.pad(deltas_T, (0, -T % C)).reshape(-1, C)
    advantages_KC = deltas_KC @ _powers(decay)[:C, :C]
    rest_C, carried = decay ** np.arange(C, 0, -1.0), 0.0
    for own_C in advantages_KC[::-1]:
        own_C += rest_C * carried
        carried = own_C[0]
    return advantages_KC.reshape(-1)[:T]


def generalized_ref(rewards_T: np.ndarray, values_T1: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """`generalized`, token by token."""
    deltas_T = _surprises(rewards_T, values_T1, gamma)
    advantages_T, carried = np.empty(len(deltas_T)), 0.0
    for place in range(len(deltas_T) - 1, -1, -1):
        carried = deltas_T[place] + gamma * lam * carried
        advantages_T[place] = carried
    return advantages_T


def _surprises(rewards_T: np.ndarray, values_T1: np.ndarray, gamma: float) -> np.ndarray:
    """How much better each step was than its value said."""
    values_T1 = np.asarray(values_T1, np.float64)
    return rewards_T + gamma * values_T1[1:] - values_T1[:-1]


@lru_cache(maxsize=8)
def _powers(decay: float) -> np.ndarray:
    """[C, C]: decay ** (j - i) at row j and column i, what place j adds to place i; 0 above the diagonal, so no power is above 1."""
    distance_CC = np.arange(_CHUNK)[:, None] - np.arange(_CHUNK)
    powers_CC = np.tril(decay ** np.abs(distance_CC).astype(np.float64))
    powers_CC.flags.writeable = False
    return powers_CC
