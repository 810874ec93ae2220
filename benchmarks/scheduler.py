"""The buffer on a trace of log-normal rollouts, in virtual time: how near to ideal, how old, and with what lengths.

    python benchmarks/scheduler.py

A step trains 256 rollouts; the trainer takes as long as the engine would for them at full slots, so an ideal run keeps both busy all the
time. Weights change in flight and cost nothing. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import numpy as np
from measure import report

from swannery.policies.simulated import virtual_time
from swannery.rl.admission import Prompt
from swannery.rl.buffer import GroupBuffer
from swannery.rl.trajectory import Group

BATCH, MEDIAN, CAP = 256, 4000.0, 32_768.0
BARS = {
    "quarter_lookahead_2_of_ideal": (">=", 0.95), "quarter_lookahead_2_staleness": ("<=", 2),
    "quarter_lookahead_2_ks": ("<=", 0.02), "quarter_lookahead_2_discarded": ("<=", 0),
}  # fmt: skip


def simulate(sigma: float, slots: int, lookahead: int, steps: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(np.log(MEDIAN), sigma, steps * BATCH), CAP)
    step_s = float(lengths.sum()) / steps / slots

    async def play(prompt: Prompt) -> Group:
        await asyncio.sleep(float(lengths[prompt.task_seed]))
        return Group(env_id="x", task_seed=prompt.task_seed, number=prompt.number, rollouts=())

    async def run() -> tuple[list[int], list[int]]:
        buffer, admitted = GroupBuffer(play, lookahead=lookahead, room=slots), 0
        lags: list[int] = []
        early: list[int] = []
        for step in range(steps):
            while admitted < min(step + lookahead + 1, steps):
                first = admitted * BATCH
                buffer.admit(Prompt("x", -1, first + number, admitted, number) for number in range(BATCH))
                admitted += 1
            taken = await buffer.take(BATCH)
            lags += [one.lag for one in taken]
            if step < steps - lookahead:
                early += [one.prompt.task_seed for one in taken]
            await asyncio.sleep(step_s)
            buffer.version += 1
        assert len(lags) == steps * BATCH and not buffer.pending
        return lags, early

    (lags, early), took = virtual_time(run)
    kept, every = np.sort(lengths[early]), np.sort(lengths)
    # The first step has nothing to train on, and the last nothing to sample: an ideal run takes one step more.
    return {
        "of_ideal": (steps + 1) * step_s / took,
        "staleness": max(lags),
        "staleness_mean": float(np.mean(lags)),
        "ks": largest_gap(kept, every),
        "discarded": steps * BATCH - len(lags),
    }


def largest_gap(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance of two sorted samples."""
    shares = (np.searchsorted(sample, other, side="right") / len(sample) for sample in (one, other))
    return float(np.abs(np.subtract(*shares)).max())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(arguments)
    figures: dict[str, float] = {}
    for name, slots in (("quarter", BATCH // 4), ("whole", BATCH)):
        for lookahead in (0, 1, 2, 3):
            for sigma in (0.7, 1.0):
                found = simulate(sigma, slots, lookahead, options.steps)
                figures |= {f"{name}_lookahead_{lookahead}_sigma_{sigma}_{key}": value for key, value in found.items()}
    for key, worst in (("of_ideal", min), ("staleness", max), ("ks", max), ("discarded", max)):
        figures[f"quarter_lookahead_2_{key}"] = worst(
            figures[f"quarter_lookahead_2_sigma_{s}_{key}"] for s in (0.7, 1.0)
        )
    report("scheduler", figures, BARS)


if __name__ == "__main__":
    main()
