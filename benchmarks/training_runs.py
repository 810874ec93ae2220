"""Runs of `swannery train` for benchmarks: done once, resumed where they were cut, read where they are finished."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def train(output: Path, config: str, seed: int, *options: str) -> dict[str, Any]:
    """The summary of a run through the command line."""
    start = time.monotonic()
    if not (output / "summary.json").exists():
        arguments = ["--resume", str(output)] if (output / "config.json").exists() else [
            config, "--output", str(output), "--seed", str(seed), *options,
        ]  # fmt: skip
        swannery("train", *arguments)
        print(f"{output.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return summary


def swannery(*arguments: str) -> None:
    """The command line; RuntimeError with what it said where it fails."""
    done = subprocess.run([sys.executable, "-m", "swannery", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"swannery {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def sft_steps(run: dict[str, Any], sft: dict[str, Any]) -> int:
    """How many steps of supervised fine-tuning take as long as a run's reinforcement did; `sft` is a run that had both or the first."""
    config = json.loads((Path(sft["run"]) / "config.json").read_text())
    a_step = (sft["seconds"]["sft_learn"] + sft["seconds"]["sft_data"]) / config["sft"]["steps"]
    return max(round((run["seconds"]["rl_roll_out"] + run["seconds"]["rl_learn"]) / a_step), 1)


def records(run: Path, phase: str = "rl") -> list[dict[str, Any]]:
    """What a run logged of a phase, by step."""
    rows: Sequence[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]
