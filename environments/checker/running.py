"""What an environment costs, and whether it cleans up: time, the event loop, threads, tasks, files, processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...messages import EnvironmentFault
from . import players
from .determinism import explorers
from .findings import Finding
from .subject import Subject

MAX_RESET_S = 1.0
MAX_STEP_S = 0.2
MAX_LOOP_LAG_S = 0.1
_LEFT_ALONE_S = 0.3


def cost(subject: Subject) -> Iterator[Finding]:
    """CPU seconds of resets and steps."""
    env, resets, steps = subject.make(), [], []
    for seed in range(3):
        for player in explorers(subject):
            try:
                start = time.process_time()
                observation, _ = env.reset(seed=seed)
                resets.append(time.process_time() - start)
                rng = np.random.default_rng([seed, 7])
                while env.outcome is None:
                    turn = player(env, rng, observation)
                    start = time.process_time()
                    observation = env.step(turn)[0]
                    steps.append(time.process_time() - start)
            except EnvironmentFault as fault:
                if fault.kind == "tool_timeout":
                    env.close()
                    yield subject.finding("tool.timeout", f"seed {seed}: {fault.detail}")
                    return
            except Exception:
                continue
    env.close()
    if resets and min(resets) > MAX_RESET_S:
        yield subject.finding("reset.slow", f"a reset takes {np.median(resets):.2f} s of CPU")
    if steps and float(np.median(steps)) > MAX_STEP_S:
        yield subject.finding("step.slow", f"a step takes {np.median(steps):.2f} s of CPU")


def blocks_loop(subject: Subject) -> Iterator[Finding]:
    """While one episode waits in an async method, others must go on."""
    if not subject.cls.awaits:
        return
    lags: list[float] = []

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - start - 0.005)

    async def session() -> list[str]:
        watcher = asyncio.create_task(watch())
        before = asyncio.all_tasks()
        for seed in range(2):
            for player in explorers(subject):
                env = subject.make()
                with contextlib.suppress(Exception):
                    observation, _ = await env.areset(seed=seed)
                    rng = np.random.default_rng([seed, 7])
                    while env.outcome is None:
                        observation = (await env.astep(player(env, rng, observation)))[0]
                await asyncio.sleep(0)
                env.close()
        left = [str(task.get_coro()) for task in asyncio.all_tasks() - before]
        watcher.cancel()
        return left

    with asyncio.Runner() as runner:
        left = runner.run(session())
    if lags and sorted(lags)[-1] > MAX_LOOP_LAG_S and sum(lag > MAX_LOOP_LAG_S for lag in lags) >= 2:
        yield subject.finding("step.blocks_loop", f"the event loop stood still for {max(lags):.2f} s")
    if left:
        yield subject.finding("teardown.task", f"left running: {left[0][:120]}")


def teardown(subject: Subject) -> Iterator[Finding]:
    """After close() there is no thread, file or process more than before."""
    for player in explorers(subject):  # the first round pays for what is made once and shared
        env = subject.make()
        players.play(env, 0, player)
        env.close()
    gc.collect()
    threads, files, children = _threads(), _files(), _children()
    for player in explorers(subject):
        for seed in range(3):
            env = subject.make()
            players.play(env, seed, player)
            env.close()
    gc.collect()
    end = time.monotonic() + _LEFT_ALONE_S
    while time.monotonic() < end and (_threads() - threads or len(_files()) > len(files) or _children() - children):
        time.sleep(0.02)
    if new := _threads() - threads:
        yield subject.finding("teardown.thread", f"left behind: {', '.join(sorted(t.name for t in new))}")
    if len(now := _files()) > len(files):
        new_files = sorted(set(now.values()) - set(files.values()) or set(now.values()))
        yield subject.finding("teardown.file", f"left open: {', '.join(new_files)[:200]}")
    if new_children := _children() - children:
        yield subject.finding("teardown.process", f"{len(new_children)} processes left running")


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith("swannery-")}


def _files() -> dict[str, str]:
    """Open files, without the pipes to our own workers."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{name}")
                if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
                    found[name] = target
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in path.read_text().split()}
    return found - _workers()


def _workers() -> set[int]:
    """Our own warm workers live on between environments."""
    from ...sandbox.worker import _POOLS

    return {worker.pid for pool in list(_POOLS) for worker in pool.workers if worker.pid is not None}
