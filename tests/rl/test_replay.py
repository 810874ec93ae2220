"""A trajectory replays byte for byte, and the rewards of its turns are those of its environment."""

import asyncio
import dataclasses

import pytest

from swannery.environments import EnvironmentFault, make
from swannery.policies import ChatRenderer, Policy, make_engine
from swannery.rl import EnvironmentPool, RolloutSpec, Trajectory, rollout
from swannery.rl.runner import _check_credit, replayed

OURS = ("math/Arithmetic-v0", "tools/Calculator-v0", "chat/Guess-v0")


def play(policy: Policy, env_id: str, seeds: range) -> list[Trajectory]:
    async def run() -> list[Trajectory]:
        pool, chat = EnvironmentPool(lambda: make(env_id)), ChatRenderer(policy.tokenizer)
        async with make_engine(policy, num_slots=8, capacity=512) as engine:
            specs = [RolloutSpec(env_id=env_id, task_seed=s, rollout=s, seed=s, max_new_tokens=16) for s in seeds]
            return [b[-1] for b in await asyncio.gather(*(rollout(pool, engine, chat, spec) for spec in specs))]

    return asyncio.run(run())


@pytest.mark.parametrize("env_id", OURS)
def test_a_recorded_trajectory_replays_to_the_letter(policy: Policy, env_id: str) -> None:
    env = make(env_id)
    for trajectory in play(policy, env_id, range(6)):
        record = replayed(env, trajectory)
        assert len(record.turns) == len(trajectory.turns) and env.outcome == trajectory.outcome
        changed = dataclasses.replace(trajectory.turns[-1], rewards={"invented": 1.0})
        with pytest.raises(EnvironmentFault, match="replay_differs"):
            replayed(env, dataclasses.replace(trajectory, turns=(*trajectory.turns[:-1], changed)))
        with pytest.raises(EnvironmentFault, match="turns were given"):
            _check_credit(env, [changed])
        _check_credit(env, list(trajectory.turns))


def test_turns_are_aligned_to_the_tokens_that_the_policy_wrote(policy: Policy) -> None:
    for trajectory in play(policy, "chat/Guess-v0", range(6)):
        completions = [segment for segment in trajectory.segments if segment.sampled]
        assert [turn.end - turn.start for turn in trajectory.turns] == [len(s.token_ids) for s in completions]
        for turn, segment in zip(trajectory.turns, completions, strict=True):
            assert trajectory.token_ids[turn.start : turn.end].tolist() == segment.token_ids.tolist()
        assert trajectory.reward == sum(sum(turn.rewards.values()) for turn in trajectory.turns)
