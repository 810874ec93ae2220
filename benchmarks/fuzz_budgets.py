"""Rollouts with random reasoning budgets, while the engine is paused and its weights change: none may exceed its budget.

    python benchmarks/fuzz_budgets.py [--rollouts 10000] [--seed 0]

Prints progress and one JSON object on the last line. Exit code 1 where a budget was exceeded or a forced token would be trained.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter

import torch

from swannery.environments import make
from swannery.policies import HybridModel, PauseMode, Policy, Tokenizer, make_engine, make_renderer, preset
from swannery.rl.demonstrations import training_text
from swannery.rl.evaluation import budget_violations
from swannery.rl.runner import EnvironmentPool, RolloutSpec, rollout

ENVIRONMENTS = ("math/Arithmetic-v0", "tools/Calculator-v0", "chat/Guess-v0")


async def fuzz(num_rollouts: int, seed: int) -> Counter[str]:
    chance, counts = random.Random(seed), Counter()
    tokenizer = Tokenizer.train(training_text({env_id: make(env_id) for env_id in ENVIRONMENTS}, 40), 384)
    policy = Policy(HybridModel(preset("tiny-100k", vocab_size=384), seed=seed), tokenizer)
    others = [HybridModel(policy.model.config, seed=s).state_dict() for s in range(1, 4)]
    pools = {env_id: EnvironmentPool(lambda e=env_id: make(e)) for env_id in ENVIRONMENTS}
    renderer, room = make_renderer(policy), asyncio.Semaphore(128)
    async with make_engine(policy, num_slots=96, capacity=512, synchronous=False) as engine:

        async def play(number: int) -> None:
            async with room:
                spec = RolloutSpec(
                    env_id=chance.choice(ENVIRONMENTS),
                    task_seed=number,
                    rollout=number,
                    seed=number,
                    budget=chance.choice((None, 0, 1, 2, 3, 5, 8, 13, 30)),
                    grace=chance.choice((0, 0, 2, 7)),
                    max_new_tokens=chance.choice((4, 16, 48)),
                    temperature=chance.choice((0.5, 1.0, 1.5)),
                )
                for branch in await rollout(pools[spec.env_id], engine, renderer, spec):
                    counts["violations"] += budget_violations(branch)
                    for segment in branch.segments:
                        counts["forced"] += int(segment.forced.sum())
                        counts["forced_with_logprob"] += int((segment.logprobs[segment.forced] != 0).sum())
                        counts["sampled"] += int(segment.sampled) * int((~segment.forced).sum())
                    counts["turns"] += len(branch.turns)
                    counts["hit"] += sum(turn.budget_hit for turn in branch.turns)
                    at = 0
                    for segment in branch.segments:
                        trained = branch.trained[at : at + len(segment.token_ids)]
                        counts["forced_in_loss"] += int((trained & segment.forced).sum())
                        at += len(segment.token_ids)
            counts["rollouts"] += 1

        async def disturb() -> None:
            while True:
                await asyncio.sleep(0.2)
                await engine.pause(chance.choice((PauseMode.KEEP, PauseMode.RECOMPUTE)))
                engine.load_weights(chance.choice(others), engine.policy_version + 1)
                engine.resume()
                print(f"{counts['rollouts']} rollouts", end="\r", file=sys.stderr)

        disturber = asyncio.create_task(disturb())
        await asyncio.gather(*(play(number) for number in range(num_rollouts)))
        disturber.cancel()
        counts["updates"] = engine.policy_version
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    counts = asyncio.run(fuzz(options.rollouts, options.seed))
    print(json.dumps({"benchmark": "fuzz_budgets", **counts, "cpu_s": round(time.process_time() - start, 1)}))
    return 1 if counts["violations"] or counts["forced_in_loss"] or counts["forced_with_logprob"] else 0


if __name__ == "__main__":
    sys.exit(main())
