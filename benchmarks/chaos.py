"""Kill -9, again and again: a synchronous run has to end as if nothing had happened, an asynchronous one with the same ledger.

    python benchmarks/chaos.py [--kills 200] [--kills-ahead 50]

Each attempt is a fork of a process that has imported everything, so a kill costs no imports. Half of the kills come at a random moment,
half at a random fault point (rl/faults.py). Then a quickstart-sized policy is killed once, and timed from its start to its next step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import report
from rich.console import Console

from swannery.rl import RunFolder
from swannery.rl.config import RunConfig, load_config
from swannery.rl.controller import Controller
from swannery.rl.display import Display
from swannery.rl.faults import POINTS, FaultPlan, set_plan
from swannery.rl.process import prepare

BARS = {
    "kills": (">=", 200.0), "differences": ("<=", 0.0), "same_weights": (">=", 1.0), "ahead_skipped": ("<=", 0.0),
    "ahead_twice": ("<=", 0.0), "restart_to_first_step_s": ("<=", 5.0),
}  # fmt: skip


def config(steps: int, **changes: Any) -> RunConfig:
    rl = {"steps": steps, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-3} | changes.pop("rl", {})
    policy = {"preset": "tiny-100k", "vocab_size": 320} | changes.pop("policy", {})
    return load_config(
        {
            "num_threads": 1, "checkpoint_every": 2, "policy": policy, "sft": {"steps": 30, "batch_size": 8}, "rl": rl,
            "environments": [{"id": "math/Arithmetic-v0", "options": {"level": 1}, "reasoning_budgets": [0]}, {"id": "chat/Guess-v0"}],
            "generation": {"max_new_tokens": 16, "context_size": 256, "num_slots": 16}, "evaluation": {"num_tasks": 0}, **changes,
        }
    )  # fmt: skip


def go(path: Path, chosen: RunConfig) -> str:
    """Start or go on with a run; the hash of its weights at the end."""
    new = not (path / "config.json").exists()
    folder = RunFolder.create(path, "run") if new and not path.exists() else RunFolder(path)
    if not new or folder._lock is None:
        folder.acquire()
    if new:
        folder.write_json("config.json", chosen.model_dump(mode="json"))
    controller = Controller(chosen, folder, Display(Console(quiet=True)))
    try:
        controller.run()
    finally:
        controller.close()
        folder.release()
    return controller.weights_hash


def attempt(path: Path, chosen: RunConfig, plan: str, after_s: float | None) -> tuple[bool, str]:
    """One attempt in a process of its own, killed by its plan or after a time: whether it was killed, and the weights' hash if not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            set_plan(FaultPlan(plan) if plan else None)
            os.write(writing, go(path, chosen).encode())
        except BaseException as error:
            os.write(writing, f"failed: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        select.select([pipe], [], [], after_s)
        if after_s is not None and not os.waitpid(pid, os.WNOHANG)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True, ""
        said = pipe.read().decode()
        if after_s is None:
            os.waitpid(pid, 0)
    if said.startswith("failed"):
        raise RuntimeError(f"{path}: {said}")
    return not said, said


def survive(path: Path, chosen: RunConfig, kills: int, seed: int) -> tuple[str, Counter[str]]:
    """A run that is killed so many times and then left to end."""
    rng, met = random.Random(seed), Counter[str]()
    for number in range(kills):
        if number % 2:
            point = rng.choice([point for point in POINTS if point != "save.replace"])  # met at the end alone
            killed, weights = attempt(path, chosen, f"{point}:{rng.randint(1, 6)}=kill", None)
            met[point] += killed
        else:
            killed, weights = attempt(path, chosen, "", rng.uniform(0.05, 1.5))
            met["moment"] += killed
        if not killed:
            print(f"{path.name} ended after {number} attempts", file=sys.stderr)
            return weights, met
        if number % 20 == 0:
            print(f"{path.name}: {number} kills, {len(records(path))} records", file=sys.stderr, flush=True)
    return attempt(path, chosen, "", None)[1], met


def records(path: Path) -> list[dict[str, Any]]:
    file = path / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def numbers(path: Path) -> list[tuple[Any, ...]]:
    return [
        (r["phase"], r["step"], float(r["loss"]).hex(), float(r["grad_norm"]).hex(), json.dumps(r.get("trained")))
        for r in records(path)
    ]


def restart_s(work: Path) -> float:
    """Of the quickstart's policy: from the start of the process that goes on, all imported, to its first step in the log."""
    chosen = config(
        6, policy={"preset": "tiny-1m", "vocab_size": 512}, sft={"steps": 4, "batch_size": 16}, checkpoint_every=1
    )
    path = work / "restart"
    attempt(path, chosen, "step.end:8=kill", None)
    before, began = len(records(path)), time.monotonic()
    pid = os.fork()
    if pid == 0:
        go(path, chosen)
        os._exit(0)
    while len(records(path)) <= before - 1 or not (path / "metrics.jsonl").exists() or records(path)[-1]["step"] < 4:
        time.sleep(0.01)
    took = time.monotonic() - began
    os.waitpid(pid, 0)
    return took


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-ahead", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args(arguments)
    prepare(1)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        work, chosen = Path(folder), config(options.steps)
        undisturbed = attempt(work / "undisturbed", chosen, "", None)[1]
        weights, met = survive(work / "killed", chosen, options.kills, seed=0)
        calm, wild = numbers(work / "undisturbed"), numbers(work / "killed")
        figures |= {
            "kills": float(met.total()), "kills_at_points": float(met.total() - met["moment"]),
            "distinct_points": float(sum(met[point] > 0 for point in POINTS)), "steps_compared": float(len(calm)),
            "differences": float(sum(a != b for a, b in zip(calm, wild, strict=False)) + abs(len(calm) - len(wild))),
            "same_weights": float(weights == undisturbed),
        }  # fmt: skip
        ahead = config(150, rl={"lookahead": 2})
        _, met = survive(work / "ahead", ahead, options.kills_ahead, seed=1)
        prompts = Counter(tuple(prompt[2:]) for r in records(work / "ahead") for prompt in r.get("trained", ()))
        wanted = {(step, number) for step in range(150) for number in range(4)}
        figures |= {
            "ahead_kills": float(met.total()), "ahead_skipped": float(len(wanted - prompts.keys())),
            "ahead_twice": float(sum(count > 1 for count in prompts.values())),
            "ahead_oldest": float(max(r["lag"]["max"] for r in records(work / "ahead") if "lag" in r)),
        }  # fmt: skip
        figures["restart_to_first_step_s"] = restart_s(work)
    report("chaos", figures, BARS)


if __name__ == "__main__":
    main()
