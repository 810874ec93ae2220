"""Demonstrations: episodes played by an environment's demonstrator or oracle, as trajectories to be imitated.

The policy's words are marked as sampled, so supervised fine-tuning is the same packing and the same learner with another
loss. A share of the reasoning is cut at a random budget and closed as the engine would close it (those tokens untrained)
before the demonstrator's own answer: so a policy learns to answer from unfinished thought (Nemotron 3 Nano, 3 % of traces).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from ..environments import Env, EnvironmentFault
from ..messages import Turn
from ..policies.nemotron import ROLES
from ..policies.rendering import ChatRenderer, Renderer
from ..policies.sampling import stream_seed
from ..policies.tokenizer import TextRecorder
from .trajectory import Segment, Trajectory, TurnRecord

Demonstrator = Literal["demonstrator", "oracle"]


def demonstrate(
    env: Env,
    env_id: str,
    seed: int,
    renderer: Renderer,
    *,
    by: Demonstrator = "demonstrator",
    budgets: tuple[int | None, ...] | None = None,
    cut_share: float = 0.0,
    take: int = 0,
) -> Trajectory:
    """One episode of `env` on the task of `seed`, the `take`-th of it. Reasoning is off where a sampled budget is 0."""
    rng = np.random.default_rng([seed, take])
    budgets = budgets or env.limits.reasoning_budgets
    budget = budgets[int(rng.integers(len(budgets)))]
    reasoning = budget != 0
    messages, _ = env.reset(seed=seed)
    prompt = renderer.open(messages, env.tool_schemas, reasoning=reasoning)
    segments, turns, seen = [Segment.given(prompt, 0)], [], list(prompt)
    while True:
        number = env.num_turns
        turn = env.oracle() if by == "oracle" else env.demonstrate(rng)
        cut = reasoning and budget is not None and rng.random() < cut_share
        segment = _cut(turn, renderer, rng, number) if cut else _whole(turn, renderer, number, reasoning)
        said, _, terminated, truncated, info = env.step(turn)
        segments.append(segment)
        start = len(seen)
        seen += segment.token_ids.tolist()
        turns.append(
            TurnRecord(
                start=start,
                end=len(seen),
                rewards=info["rewards"],
                budget=budget,
                num_reasoning_tokens=0,
                budget_hit=cut,
                num_tool_calls=len(turn.tool_calls),
                action=turn,
            )
        )
        if terminated or truncated:
            break
        delta = renderer.extend(seen, env.transcript, len(said), env.tool_schemas, reasoning=reasoning)
        if delta is None:
            raise ValueError("demonstrations need a renderer that keeps past reasoning")
        segments.append(Segment.given(delta, number + 1))
        seen += delta
    assert env.outcome is not None
    return Trajectory(
        env_id=env_id,
        task_seed=seed,
        group=0,
        rollout=0,
        segments=tuple(segments),
        turns=tuple(turns),
        outcome=env.outcome,
        routes=np.zeros((len(seen) - 1, 0, 0), np.uint8),
        messages=tuple(env.transcript),
    )


def training_text(envs: Mapping[str, Env], num_episodes: int) -> list[str]:
    """Every piece of text in the demonstrated episodes of environments: what their tokenizer is trained on. An episode that faults gives
    what was said until then."""
    recorder = TextRecorder()
    renderer = ChatRenderer(recorder)
    for env_id, env in envs.items():
        for number in range(num_episodes):
            with contextlib.suppress(EnvironmentFault):
                demonstrate(env, env_id, stream_seed("tokenizer", env_id, number) % 2**32, renderer)
            recorder.pieces += [f"{role}\n" for role in ROLES]  # encoded once by a renderer, said in every conversation
    return recorder.pieces


def _whole(turn: Turn, renderer: Renderer, number: int, reasoning: bool) -> Segment:
    return Segment.without_logprobs(renderer.completion(turn, reasoning=reasoning), number, sampled=True)


def _cut(turn: Turn, renderer: Renderer, rng: np.random.Generator, number: int) -> Segment:
    """The reasoning up to a random token, the forced closing, then the turn's own words."""
    assert renderer.think_end_id is not None, "cut_share needs a chat format with a token that ends reasoning"
    ids = renderer.completion(turn)
    end = ids.index(renderer.think_end_id)
    keep = int(rng.integers(end)) if end else 0
    closing = renderer.closing_ids()
    after = ids[end + len(closing) - closing.index(renderer.think_end_id) :]
    ids = [*ids[:keep], *closing, *after]
    segment = Segment.without_logprobs(ids, number, sampled=True)
    segment.forced[keep : keep + len(closing)] = True
    return segment
