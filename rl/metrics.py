"""The figures of a training step, by environment."""

from __future__ import annotations

from collections import Counter

import numpy as np

from .evaluation import budget_violations
from .scoring import informative
from .trajectory import Group


def environment_row(groups: list[Group]) -> dict[str, float]:
    """An environment's figures of one step."""
    played = [branches for group in groups for branches in group.rollouts]
    faults = Counter(kind for group in groups for kind in group.faults)
    row: dict[str, float] = {"left_out": float(sum(faults.values())), "rollouts": float(len(played))}
    row |= {f"left_out_{kind}": float(count) for kind, count in faults.items()}
    if not played:
        return row
    turns = [turn for branches in played for turn in branches[-1].turns]
    rewards = [branches[-1].reward for branches in played]
    row |= {
        "reward": float(np.mean(rewards)),
        "pass_rate": float(np.mean([reward >= 0.5 for reward in rewards])),
        "sampled_tokens": float(np.mean([sum(b.num_sampled for b in branches) for branches in played])),
        "turns": float(np.mean([len(branches[-1].turns) for branches in played])),
        "agree": float(np.mean([not informative(group) for group in groups])),
        "cut": float(np.mean([str(branches[-1].outcome) == "truncated(max_tokens)" for branches in played])),
        "truncated": float(np.mean([branches[-1].outcome.kind == "truncated" for branches in played])),
        "budget_hit": float(np.mean([turn.budget_hit for turn in turns])),
        "reasoning_tokens": float(np.mean([turn.num_reasoning_tokens for turn in turns])),
        "malformed": float(np.mean([turn.malformed is not None for turn in turns])),
        "budget_violations": float(sum(budget_violations(branches[-1]) for branches in played)),
        "forced_in_loss": float(
            sum(
                int((branch.trained & np.concatenate([s.forced for s in branch.segments])).sum())
                for branches in played
                for branch in branches
            )
        ),
    }
    if asked := [turn.budget for turn in turns if turn.budget is not None]:
        row["budget_asked"] = float(np.mean(asked))
    return row
