"""Groups of made-up rollouts: random tokens, turns, rewards and lengths, no engine."""

from __future__ import annotations

import numpy as np

from swannery.messages import TERMINATED, Outcome
from swannery.policies import HybridConfig
from swannery.rl import Group, Segment, Trajectory, TurnRecord

VOCAB = 320


def made_rollout(
    rng: np.random.Generator,
    config: HybridConfig,
    prompt: np.ndarray,
    *,
    env_id: str = "chat/Guess-v0",
    rollout: int = 0,
) -> Trajectory:
    """Two turns at most, a forced token in some; rewards in eighths, under two names."""
    segments, turns, place = [Segment.given(prompt.tolist(), 0)], [], len(prompt)
    for turn in range(int(rng.integers(1, 3))):
        if turn:
            said = rng.integers(0, VOCAB, int(rng.integers(1, 5)))
            segments.append(Segment.given(said.tolist(), turn))
            place += len(said)
        count = int(rng.integers(1, 12))
        forced = np.zeros(count, bool)
        forced[-1] = count > 3 and rng.random() < 0.3
        segments.append(
            Segment(
                token_ids=rng.integers(0, VOCAB, count),
                sampled=True,
                turn=turn,
                forced=forced,
                logprobs=-rng.random(count).astype(np.float32) * 6,
                policy_versions=np.zeros(count, np.int32),
            )
        )
        rewards = {"right": int(rng.integers(0, 5)) / 8, "brief": int(rng.integers(0, 3)) / 8}
        turns.append(
            TurnRecord(
                start=place,
                end=place + count,
                rewards=rewards,
                budget=None,
                num_reasoning_tokens=count // 2,
                budget_hit=False,
            )
        )
        place += count
    cut = rng.random() < 0.2
    return Trajectory(
        env_id=env_id, task_seed=0, group=0, rollout=rollout, segments=tuple(segments), turns=tuple(turns),
        outcome=Outcome("truncated", "max_tokens") if cut else TERMINATED,
        routes=np.zeros((place - 1, config.num_moe_layers, config.experts_per_token), np.uint8),
        effort="low" if rng.random() < 0.3 else "full",
    )  # fmt: skip


def made_groups(
    seed: int, config: HybridConfig, env_ids: tuple[str, ...] = ("chat/Guess-v0",), count: int = 4
) -> list[Group]:
    rng, groups = np.random.default_rng(seed), []
    for number in range(count):
        env_id, prompt = env_ids[number % len(env_ids)], rng.integers(0, VOCAB, int(rng.integers(2, 9)))
        size = int(rng.integers(2, 5))
        played = tuple((made_rollout(rng, config, prompt, env_id=env_id, rollout=i),) for i in range(size))
        groups.append(Group(env_id=env_id, task_seed=number, number=number, rollouts=played))
    return groups
