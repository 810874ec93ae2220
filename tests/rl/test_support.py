"""Sampling from a part of the vocabulary: the support is recorded, and the learner scores within it."""

import asyncio

import numpy as np
import pytest

from swannery.environments import make
from swannery.policies import ChatRenderer, Policy, make_engine
from swannery.rl.batch import Sample, pack, total_weight
from swannery.rl.learner import Learner
from swannery.rl.runner import EnvironmentPool, RolloutSpec, rollout
from swannery.rl.trajectory import Trajectory


def played(policy: Policy, **sampling: float) -> list[Trajectory]:
    specs = [
        RolloutSpec(env_id="math/Arithmetic-v0", task_seed=i, rollout=i, seed=i, temperature=0.8, max_new_tokens=16, **sampling)  # type: ignore[arg-type]
        for i in range(8)
    ]  # fmt: skip

    async def run() -> list[tuple[Trajectory, ...]]:
        pool = EnvironmentPool(lambda: make("math/Arithmetic-v0"))
        async with make_engine(policy, num_slots=16, capacity=256) as engine:
            return list(
                await asyncio.gather(*(rollout(pool, engine, ChatRenderer(policy.tokenizer), s) for s in specs))
            )

    return [branches[-1] for branches in asyncio.run(run())]


@pytest.mark.parametrize("sampling", [{"top_k": 5}, {"top_p": 0.7}, {"top_k": 20, "top_p": 0.9}, {}])
def test_engine_and_learner_agree_under_the_distribution_that_was_sampled(
    policy: Policy, sampling: dict[str, float]
) -> None:
    samples = [Sample(trajectory, 1.0) for trajectory in played(policy, **sampling)]
    batch = pack([[sample] for sample in samples], total_weight(samples))
    assert (batch.support_TS is not None) is bool(sampling)
    learner = Learner(policy.model, optimizer="adamw", lr=0.0)
    logprobs, _, _ = learner.logprobs(batch)
    assert np.abs(logprobs.detach().numpy() - batch.rollout_logprobs_T).max() <= 1e-4
    if batch.support_TS is not None:
        inside = (batch.support_TS == batch.targets_T[:, None]).any(1)
        assert inside.all() and (batch.support_TS >= 0).sum(1).max() <= sampling.get("top_k", 10**9)


def test_trajectories_with_and_without_a_support_share_a_batch(policy: Policy) -> None:
    samples = [Sample(played(policy, top_k=3)[0], 1.0), Sample(played(policy)[0], 1.0)]
    batch = pack([[sample] for sample in samples], total_weight(samples))
    assert batch.support_TS is not None and (batch.support_TS[-1] == -1).all()
    logprobs, _, _ = Learner(policy.model, optimizer="adamw", lr=0.0).logprobs(batch)
    assert np.abs(logprobs.detach().numpy() - batch.rollout_logprobs_T).max() <= 1e-4
