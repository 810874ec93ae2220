"""A tiny run from nothing to something: warm start, GRPO, and a reward that rises."""

import asyncio

import numpy as np

from swannery.environments import Env, Task, Turn, make, register, reward
from swannery.policies import ChatRenderer, HybridModel, Policy, Tokenizer, make_engine, preset
from swannery.rl import (
    EnvironmentPool,
    Group,
    Learner,
    PolicyLoss,
    RolloutSpec,
    RouterTraining,
    Sample,
    demonstrate,
    micro_batches,
    pack,
    rollout,
    total_weight,
)  # fmt: skip
from swannery.rl.algorithms.grpo import GRPO
from swannery.rl.demonstrations import training_text
from swannery.rl.mismatch import MismatchMonitor
from swannery.rl.policy_loss import negative_log_likelihood


@register("test/Echo3-v0", reasoning_budgets=(0,))
class Echo3(Env):
    """Repeat a digit three times. The demonstrator mostly says it twice."""

    def sample_task(self, rng: np.random.Generator) -> Task:
        digit = str(rng.integers(10))
        return Task(f"Say {digit} three times.", digit * 3)

    @reward
    def exact(self, turn: Turn) -> bool:
        return turn.answer == self.task.answer

    def oracle(self) -> Turn:
        return Turn(self.task.answer)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        return Turn(self.task.answer if rng.random() < 0.3 else self.task.answer[:2])


def test_a_tiny_run_learns() -> None:
    env = make("test/Echo3-v0")
    tokenizer = Tokenizer.train(training_text({"test/Echo3-v0": env}, 50), 300)
    policy = Policy(HybridModel(preset("tiny-100k", vocab_size=300), seed=0), tokenizer)
    chat = ChatRenderer(tokenizer)
    learner = Learner(policy.model, optimizer="muon", lr=1e-2, routers=RouterTraining(weights=True))
    for step in range(60):
        groups = [[Sample(demonstrate(env, "test/Echo3-v0", 32 * step + i, chat), 1.0)] for i in range(32)]
        weight = total_weight(g[0] for g in groups)
        metrics = learner.step(
            [pack(groups, weight, with_routes=False)], negative_log_likelihood, lr_scale=1 - step / 60
        )
    assert metrics.loss < 0.4

    learner = Learner(policy.model, optimizer="adamw", lr=2e-3)
    pool = EnvironmentPool(lambda: make("test/Echo3-v0"))

    async def run() -> list[float]:
        means = []
        async with make_engine(policy, num_slots=64, capacity=64) as engine:
            for step in range(15):
                specs = [
                    RolloutSpec(
                        env_id="test/Echo3-v0", task_seed=10_000 + step * 8 + g, group=g, rollout=i,
                        seed=(step * 8 + g) * 8 + i, max_new_tokens=8, budget=0,
                    )
                    for g in range(8) for i in range(8)
                ]  # fmt: skip
                played = await asyncio.gather(*(rollout(pool, engine, chat, spec) for spec in specs))
                groups = [
                    Group(env_id="x", task_seed=g, number=g, rollouts=tuple(played[g * 8 : g * 8 + 8]))
                    for g in range(8)
                ]
                means.append(float(np.mean([group.rewards.mean() for group in groups])))
                scored = GRPO().score(groups)
                weight = total_weight(sample for samples in scored for sample in samples)
                batches = [pack(part, weight) for part in micro_batches(scored, 1024)]
                watch = lambda batch, logprobs, version=step: monitor.observe(batch, logprobs, version)  # noqa: E731
                learner.step(batches, PolicyLoss({"": GRPO()}), observe=watch)
                engine.load_weights(policy.model.state_dict(), step + 1)
        return means

    monitor = MismatchMonitor()
    means = asyncio.run(run())
    assert 0 < monitor.largest <= 1e-4 and monitor.alarms == {}
    assert np.mean(means[:2]) < 0.5 < 0.8 < np.mean(means[-3:])
