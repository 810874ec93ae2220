"""The figures of a training step, by environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .buffer import Trained
from .evaluation import budget_violations
from .learner import StepMetrics
from .scoring import informative


def environment_row(taken: Sequence[Trained]) -> dict[str, float]:
    """An environment's figures of one step, of the groups that it took."""
    groups = [one.group for one in taken]
    played = [branches for group in groups for branches in group.rollouts]
    faults = Counter(kind for group in groups for kind in group.faults)
    row: dict[str, float] = {"left_out": float(sum(faults.values())), "rollouts": float(len(played))}
    row |= {f"left_out_{kind}": float(count) for kind, count in faults.items()}
    row |= {"lag": float(np.mean([one.lag for one in taken]))} if taken else {}
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


def step_record(
    step: int,
    policy_version: int,
    rows: Mapping[str, Mapping[str, float]],
    steps: Sequence[StepMetrics],
    taken: Sequence[Trained],
    mismatch: Mapping[str, float],
) -> dict[str, Any]:
    """A step's line in metrics.jsonl: its environments, its optimizer steps, and the prompts that it trained with their age. Numbers
    that are not finite are null there."""
    names = sorted({name for m in steps for name in m.figures})
    figures = {name: float(np.mean([m.figures[name] for m in steps if name in m.figures])) for name in names}
    return {
        "phase": "rl",
        "step": step,
        "policy_version": policy_version,
        "environments": {env_id: {k: round(v, 6) for k, v in row.items()} for env_id, row in rows.items()},
        "loss": sum(m.loss for m in steps),
        "grad_norm": max((m.grad_norm for m in steps), default=0.0),
        "entropy": float(np.mean([m.entropy for m in steps])) if steps else 0.0,
        "skipped": sum(m.skipped for m in steps),
        "drift": max((m.drift for m in steps), default=0.0),
        "max_violation": max((m.max_violation for m in steps), default=0.0),
        "idle_experts": max((m.idle_experts for m in steps), default=0.0),
        "trained_tokens": sum(m.num_trained_tokens for m in steps),
        "packed_tokens": sum(m.num_packed_tokens for m in steps),
        **figures,
        "mismatch": mismatch,
        "lag": {"mean": round(float(np.mean([one.lag for one in taken])), 4), "max": max(one.lag for one in taken)},
        "trained": [[one.prompt.env_id, one.prompt.task_seed, one.prompt.step, one.prompt.number] for one in taken],
    }
