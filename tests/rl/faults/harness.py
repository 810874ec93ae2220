"""A run small enough to be broken many times: driven in this process, or in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from swannery.environments import Env, EnvironmentFault, Task, Turn, register, reward
from swannery.rl import RunFolder
from swannery.rl.config import RunConfig, load_config
from swannery.rl.controller import Controller, Interrupted
from swannery.rl.display import Display
from swannery.rl.faults import FaultPlan, set_plan


class Words(Env):
    """Pays by the letter, so that a random policy's rollouts differ."""

    def task(self, rng: np.random.Generator) -> Task:
        return Task(f"Say {rng.integers(1000)}.", "0")

    @reward
    def letters(self, turn: Turn) -> float:
        return min(len(turn.answer) / 20, 1.0)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        return Turn("0" * int(rng.integers(1, 9)))


register("faults/Calm-v0", reasoning_budgets=(0,))(type("Calm", (Words,), {}))


@register("faults/Wild-v0", reasoning_budgets=(0,))
class Wild(Words):
    """Loses its connection for a share of its tasks, whatever the policy says. Demonstrations go by `step`, and are spared."""

    share = 0.2

    async def astep(self, action: Any) -> Any:
        if int(self.task.prompt[4:-1]) % 100 < 100 * self.share:  # type: ignore[arg-type]
            raise EnvironmentFault("connection_lost", "the world is gone")
        return await super().astep(action)


def config(*env_ids: str, **changes: Any) -> RunConfig:
    """A synchronous run of 4 steps from random weights after 6 of SFT."""
    rl = {"steps": 4, "prompts_per_step": 4, "group_size": 3, "updates_per_step": 2} | changes.pop("rl", {})
    return load_config(
        {
            "num_threads": 1, "checkpoint_every": 2, "environments": [{"id": env_id} for env_id in env_ids or ("faults/Calm-v0",)],
            "policy": {"preset": "tiny-100k", "vocab_size": 300}, "sft": {"steps": 6, "batch_size": 4}, "rl": rl,
            "generation": {"max_new_tokens": 16, "context_size": 128, "num_slots": 12}, "evaluation": {"num_tasks": 0}, **changes,
        }
    )  # fmt: skip


@contextmanager
def planned(text: str) -> Iterator[FaultPlan]:
    plan = FaultPlan(text)
    set_plan(plan)
    try:
        yield plan
    finally:
        set_plan(None)


def go(path: Path, chosen: RunConfig, *, allow: bool = False) -> Controller:
    """Start the run of a folder, or go on with it. Whatever it raises is raised."""
    new = not (path / "config.json").exists()
    folder = RunFolder.create(path, "run") if new else RunFolder.open(path)
    try:
        if new:
            folder.write_json("config.json", chosen.model_dump(mode="json"))
        controller = Controller(chosen, folder, Display(Console(quiet=True)), allow_config_change=allow)
        try:
            controller.run()
        finally:
            controller.close()
    finally:
        folder.release()
    return controller


def forked(path: Path, chosen: RunConfig, plan: str, *, allow: bool = False) -> int:
    """`go` in a process of its own under a plan: how it ended (minus a signal, or an exit code)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            set_plan(FaultPlan(plan))
            go(path, chosen, allow=allow)
            code = 0
        except Interrupted as stop:
            code = stop.exit_code
        except asyncio.CancelledError:
            code = 3
        except BaseException:
            code = 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def numbers(path: Path) -> list[tuple[Any, ...]]:
    """What has to be the same after every kill, floats to the bit."""
    return [
        (r["phase"], r["step"], float(r["loss"]).hex(), float(r["grad_norm"]).hex(), json.dumps(r.get("trained")))
        for r in records(path)
    ]
