"""What surrounds the model in training: packing, and the orchestration of rollouts on an engine that costs nothing.

    python benchmarks/learner.py [--only packing,orchestration]

CPU time of one thread. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from measure import cpu_s, report

from swannery.environments import Env, Task, Turn, make, register, reward
from swannery.policies import ChatRenderer, GenerationRequest, GenerationResult, StopReason, Tokenizer, preset
from swannery.rl import EnvironmentPool, RolloutSpec, rollout
from swannery.rl.bins import RowCost, balanced, best_fit
from swannery.rl.process import prepare

BARS = {
    "packing_of_lower_bound": (">=", 0.999), "packing_ms": ("<=", 15.0), "packing_imbalance_8_ranks": ("<=", 0.01),
    "orchestration_step_ms": ("<=", 0.3), "orchestration_trajectory_ms": ("<=", 2.0),
}  # fmt: skip
EPISODES, TURNS = 512, 6


def packing_figures() -> dict[str, float]:
    """8,192 log-normal rows (median 3,000, sigma 0.9) into bins of 16,384 tokens, and those onto ranks by nano3's costs."""
    rng, cost = np.random.default_rng(0), RowCost.of(preset("nano3"))
    lengths = np.minimum(rng.lognormal(np.log(3000), 0.9, 8192), 16_384).astype(int).tolist()
    bins = best_fit(lengths, 16_384)
    costs = [sum(cost(lengths[index]) for index in one) for one in bins]
    loads = [sum(costs[index] for index in one) for one in balanced(costs, 8)]
    return {
        "packing_bins": len(bins),
        "packing_of_lower_bound": -(-sum(lengths) // 16_384) / len(bins),
        "packing_ms": 1e3 * cpu_s(lambda: best_fit(lengths, 16_384), 5),
        "packing_imbalance_8_ranks": max(loads) / float(np.mean(loads)) - 1,
        "packing_balance_ms": 1e3 * cpu_s(lambda: balanced(costs, 8), 5),
    }


@register("benchmark/Turns-v0", max_turns=TURNS, reasoning_budgets=(0,))
class Turns(Env):
    """A word back for a word, six times."""

    def sample_task(self, rng: np.random.Generator) -> Task:
        return Task("Say a word.", "swan")

    def respond(self, turn: Turn) -> str:
        return "And another?"

    @reward
    def said(self, turn: Turn) -> float:
        return float(turn.answer == self.task.answer)


class NullEngine:
    """Answers one token and the end at once."""

    policy_version, capacity = 0, 4096

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.logprobs = np.zeros(len(ids), np.float32)

    def session(self, order: tuple[int, ...] = ()) -> NullEngine:
        return self

    def close(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        await asyncio.sleep(0)
        count = len(self.ids)
        return GenerationResult(
            token_ids=list(self.ids), logprobs=self.logprobs, forced=np.zeros(count, bool), policy_versions=np.zeros(count, np.int64),
            stop_reason=StopReason.STOP, routes=np.zeros((len(request.token_ids) + count - 1, 3, 2), np.uint8),
        )  # fmt: skip


def orchestration_figures() -> dict[str, float]:
    """Rendering, parsing, stepping, grading and recording of 512 episodes at once."""
    env = make("benchmark/Turns-v0")
    chat = ChatRenderer(Tokenizer.train(["Say a word. And another? swan"] * 4, 300))
    engine: Any = NullEngine([chat.tokenizer.encode("swan")[0], chat.end_id])
    pool = EnvironmentPool(lambda: make("benchmark/Turns-v0"))
    specs = [RolloutSpec(env_id="benchmark/Turns-v0", task_seed=i, rollout=i, budget=0) for i in range(EPISODES)]

    async def play() -> int:
        played = await asyncio.gather(*(rollout(pool, engine, chat, spec) for spec in specs))
        return sum(len(branches[-1].turns) for branches in played)

    def timed() -> tuple[float, int]:
        began = time.process_time()
        steps = asyncio.run(play())
        return time.process_time() - began, steps

    timed()  # environments are made once
    spent, steps = min(timed() for _ in range(3))
    pool.close()
    env.close()
    return {
        "orchestration_steps": steps,
        "orchestration_step_ms": 1e3 * spent / steps,
        "orchestration_trajectory_ms": 1e3 * spent / EPISODES,
    }


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "packing": packing_figures,
    "orchestration": orchestration_figures,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas between")
    options = parser.parse_args(arguments)
    prepare(1)
    figures: dict[str, float] = {}
    for name in options.only.split(","):
        figures |= CASES[name]()
    report("learner", figures, BARS)


if __name__ == "__main__":
    main()
