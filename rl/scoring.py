"""Scoring: from a group's rewards to samples with advantages and weights. The group is the unit; a fault is never a number in it.

An algorithm says how rewards become advantages and how tokens are averaged (algorithms/); what all share is here: shaping by length,
the filters, and the weights by which an average over tokens, sequences or prompts is one sum over the step.
"""

# Shapes: G rollouts of a group, K turns of the longest, R named rewards.

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .batch import Sample
from .shaping import Shaping, length_reward, low_effort_reward, overlong_penalty, shortest_bonus
from .trajectory import Group, Trajectory

Average = Literal["token", "sequence", "prompt", "constant"]


def informative(group: Group) -> bool:
    """Whether a group's raw rewards differ: one that agrees says nothing, and is left out of loss and denominators."""
    return len(group.rollouts) >= 2 and float(np.ptp(group.rewards)) > 1e-9


def shaped(group: Group, shaping: Shaping, limit: int) -> np.ndarray:
    """Rewards [G] with what lengths add. `limit` is the most tokens of a completion."""
    rewards_G = group.rewards.astype(np.float64)
    if not shaping.active:
        return rewards_G
    lengths = [_lengths(branches) for branches in group.rollouts]
    reasoning_G, answer_G = (np.array(column, np.float64) for column in zip(*lengths, strict=True))
    longest_G = np.array([_longest_turn(branches) for branches in group.rollouts], np.float64)
    if shaping.low_effort:
        low_G = np.array([branches[0].effort == "low" for branches in group.rollouts])
        reduced_G = low_effort_reward(rewards_G, reasoning_G + answer_G, limit, shaping.low_effort)
        rewards_G = np.where(low_G, reduced_G, rewards_G)
    if shaping.overlong_buffer:
        rewards_G = rewards_G + shaping.overlong_penalty * overlong_penalty(longest_G, limit, shaping.overlong_buffer)
    best_G = rewards_G
    for lengths_G, coefficient in ((reasoning_G, shaping.reasoning_length), (answer_G, shaping.answer_length)):
        rewards_G = rewards_G + coefficient * length_reward(lengths_G)
        if shaping.shortest_bonus:
            rewards_G = rewards_G + shaping.shortest_bonus * shortest_bonus(lengths_G, best_G)
    return rewards_G


def named_rewards(group: Group) -> np.ndarray:
    """[G, R]: each named reward's sum over the episode."""
    totals: list[dict[str, float]] = []
    for branches in group.rollouts:
        totals.append({})
        for turn in branches[-1].turns:
            for name, value in turn.rewards.items():
                totals[-1][name] = totals[-1].get(name, 0.0) + value
    names = sorted({name for total in totals for name in total})
    return np.array([[total.get(name, 0.0) for name in names] for total in totals])


def rewards_to_go(group: Group) -> np.ndarray:
    """[G, K]: the rewards from each turn on; 0 after a rollout's last."""
    turns = [[sum(turn.rewards.values()) for turn in branches[-1].turns] for branches in group.rollouts]
    rewards_GK = np.zeros((len(turns), max(len(row) for row in turns)))
    for row, values in zip(rewards_GK, turns, strict=True):
        row[: len(values)] = values
    return rewards_GK[:, ::-1].cumsum(1)[:, ::-1]


def turns_of_tokens(trajectory: Trajectory) -> np.ndarray:
    """The turn of each trained token."""
    turns = np.concatenate([np.full(len(s.token_ids), s.turn) for s in trajectory.segments])
    return turns[trajectory.trained]


def samples_of(
    group: Group,
    advantages: Sequence[float] | np.ndarray,
    average: Average,
    *,
    constant: float = 1.0,
    by_turn: bool = False,
    overlong_filter: bool = False,
) -> list[Sample]:
    """Each branch with its tokens' advantages (a rollout's own number, or with `by_turn` a row [K] of one for each turn), and weights
    by which the sum over the step, over its mass, is the average: over tokens; over sequences of their means; over prompts of their
    tokens' means; or over sequences of their sums over a constant. Branches of a rollout share it."""
    tokens = [sum(b.num_sampled for b in branches) / len(branches) for branches in group.rollouts]
    kept = [not (overlong_filter and ran_out_of_tokens(branches[-1])) for branches in group.rollouts]
    whole = sum(count for count, keep in zip(tokens, kept, strict=True) if keep)
    samples = []
    for branches, advantage, count, keep in zip(group.rollouts, advantages, tokens, kept, strict=True):
        for branch in branches:
            if not keep or not branch.num_sampled:
                continue
            share, divisor = 1 / len(branches), {"token": 1.0, "sequence": count, "prompt": whole, "constant": constant}
            mass = share * branch.num_sampled / {"token": 1.0, "prompt": whole}.get(average, count)
            values = np.asarray(advantage)[turns_of_tokens(branch)] if by_turn else float(advantage)  # type: ignore[index]
            samples.append(Sample(branch, values, share / divisor[average], mass))
    return samples


def ran_out_of_tokens(trajectory: Trajectory) -> bool:
    return str(trajectory.outcome) == "truncated(max_tokens)"


def _lengths(branches: Sequence[Trajectory]) -> tuple[int, int]:
    """Tokens of a rollout's reasoning, and of all else that it wrote."""
    reasoning = sum(turn.num_reasoning_tokens for turn in branches[-1].turns)
    return reasoning, max(sum(turn.end - turn.start for turn in branches[-1].turns) - reasoning, 0)


def _longest_turn(branches: Sequence[Trajectory]) -> int:
    return max((turn.end - turn.start for turn in branches[-1].turns), default=0)
