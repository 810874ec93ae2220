"""What a run ends with: a table, a picture of its curves, what to type next, and one JSON line."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .checkpoint import config_hash
from .run_folder import RunFolder, write_file

Scores = list[dict[str, Any]]


def summarize(folder: RunFolder, state: Any, *, weights: str, wall_s: float) -> dict[str, Any]:
    """The run's figures as plain values."""
    counts = state.counts
    seconds = {key.removeprefix("seconds_"): value for key, value in counts.items() if key.startswith("seconds_")}
    step_s = sum(seconds.get(f"rl_{part}", 0.0) for part in ("roll_out", "learn", "save"))
    before, after = folder.read_json("evaluation-before.json") or [], folder.read_json("evaluation-after.json") or []
    compared, largest = int(counts.get("compared_tokens", 0)), counts.get("mismatch_max", 0.0)
    summary: dict[str, Any] = {
        "run": str(folder.path),
        "policy_version": state.policy_version,
        "weights": weights,
        "config_hash": config_hash(folder.read_json("config.json") or {}),
        "wall_s": round(wall_s, 1),
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
        "sampled_tokens": int(counts.get("sampled_tokens", 0)),
        "sampled_tokens_per_s": round(counts.get("sampled_tokens", 0) / step_s) if step_s else None,
        "model_share_of_a_step": round(seconds.get("rl_model", 0.0) / step_s, 3) if step_s else None,
        "rollouts": int(counts.get("rollouts", 0)),
        "left_out": int(counts.get("left_out", 0)),
        "budget_violations": int(counts.get("budget_violations", 0)),
        "forced_tokens_in_loss": int(counts.get("forced_in_loss", 0)),
        "mismatch_max": largest if compared or largest else None,
        "compared_tokens": compared,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "environments": {},
    }
    for score in after:
        kind = "greedy" if score["temperature"] == 0 else "sampled"
        old = _find(before, score)
        summary["environments"].setdefault(score["env_id"], {})[kind] = {
            "before": round(old["accuracy"], 4) if old else None,
            "after": round(score["accuracy"], 4),
            "calls_when_right": score["calls_when_right"] and round(score["calls_when_right"], 3),
            "calls_when_right_before": old and old["calls_when_right"] and round(old["calls_when_right"], 3),
            "n": score["num_episodes"],
        }
    for kind in ("sampled", "greedy"):
        gains = [
            v[kind]["after"] - v[kind]["before"]
            for v in summary["environments"].values()
            if v[kind]["before"] is not None
        ]
        summary[f"mean_gain_{kind}"] = round(float(np.mean(gains)), 4) if gains else None
    return summary


def show(console: Console, folder: RunFolder, summary: dict[str, Any]) -> None:
    """Print the table and what to type next; off a terminal, one JSON line last."""
    before, after = folder.read_json("evaluation-before.json") or [], folder.read_json("evaluation-after.json") or []
    if after:
        console.print(score_table(after, before))
    rate = summary["sampled_tokens_per_s"]
    console.print(
        f"{summary['sampled_tokens']:,} tokens sampled"
        + (f" ({rate:,} a second over the whole step)" if rate else "")
        + f", {summary['rollouts']:,} rollouts, {summary['left_out']} left out, {summary['wall_s']:.0f} s, "
        f"{summary['peak_memory_mb']:,} MB",
        highlight=False,
    )
    largest = summary["mismatch_max"]
    differs = "nothing was compared" if largest is None else f"{largest:.1e} at most"
    console.print(
        f"engine against learner: {differs}; budget violations: "
        f"{summary['budget_violations']}; forced tokens in the loss: {summary['forced_tokens_in_loss']}",
        highlight=False,
    )
    console.print(f"run folder: {folder.path}   curves: {folder.path / 'curves.png'}", highlight=False)
    console.print(f"next: swannery sample {folder.path}    swannery eval {folder.path}", highlight=False)
    if not console.is_terminal:
        print(json.dumps(summary), flush=True)


def score_table(after: Scores, before: Scores | None = None) -> Table:
    """Accuracies with 95 % intervals, sampled and greedy, and the means over the environments."""
    table = Table(title="Held-out accuracy, with 95 % intervals", title_justify="left", title_style="bold")
    table.add_column("environment")
    for column in ("before", "after", "greedy before", "greedy after") if before else ("sampled", "greedy"):
        table.add_column(column, justify="right")
    table.add_column("calls when right", justify="right")
    table.add_column("tokens", justify="right")
    env_ids = list(dict.fromkeys(score["env_id"] for score in after))
    columns = [
        (source, temperature) for temperature in (1.0, 0.0) for source in ((before, after) if before else (after,))
    ]
    for env_id in env_ids:
        found = [_find(source or [], {"env_id": env_id, "temperature": t}) for source, t in columns]
        sampled = _find(after, {"env_id": env_id, "temperature": 1.0}) or found[-1]
        assert sampled is not None
        calls = sampled["calls_when_right"]
        table.add_row(
            env_id,
            *(f"{s['accuracy']:.2f} [{s['low']:.2f}, {s['high']:.2f}]" if s else "-" for s in found),
            f"{calls:.2f}" if calls else "",
            f"{sampled['mean_sampled_tokens']:.0f}",
        )
    means = []
    for source, temperature in columns:
        values = [s["accuracy"] for s in source or [] if s["temperature"] == temperature]
        means.append(f"{np.mean(values):.3f}" if values else "-")
    table.add_section()
    table.add_row("mean", *means, "", "", style="bold")
    return table


def budget_table(scores: Scores) -> Table:
    """Accuracy against the reasoning that was allowed."""
    table = Table(title="Held-out accuracy against the reasoning budget", title_justify="left", title_style="bold")
    for column in ("environment", "temperature", "budget", "accuracy", "reasoning tokens", "closed by force", "tokens"):
        table.add_column(column, justify="left" if column == "environment" else "right")
    for s in sorted(scores, key=lambda s: (s["env_id"], -s["temperature"])):
        table.add_row(
            s["env_id"],
            f"{s['temperature']:g}",
            "unlimited" if s["budget"] is None else str(s["budget"]),
            f"{s['accuracy']:.2f} [{s['low']:.2f}, {s['high']:.2f}]",
            f"{s['mean_reasoning_tokens']:.1f}",
            f"{s['budget_hit']:.2f}",
            f"{s['mean_sampled_tokens']:.0f}",
        )
    return table


def draw(folder: RunFolder) -> Path | None:
    """curves.png: the reward of each environment and the loss of the warm start."""
    records = folder.records()
    if not records:
        return None
    os.environ.setdefault("MPLBACKEND", "Agg")
    import io

    import matplotlib.pyplot as plt  # late: it takes half a second

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(1, 2), layout="constrained")
    sft = [r for r in records if r["phase"] == "sft"]
    left.plot([r["step"] for r in sft], [r["loss"] for r in sft], color="black", linewidth=1)
    left.set(title="warm start: loss", xlabel="step", yscale="log" if sft else "linear")
    learnt = [r for r in records if r["phase"] == "rl"]
    for env_id in sorted({env_id for r in learnt for env_id in r["environments"]}):
        points = [(r["step"], r["environments"][env_id].get("reward")) for r in learnt if env_id in r["environments"]]
        points = [(step, reward) for step, reward in points if reward is not None]
        rewards = np.array([reward for _, reward in points])
        smooth = np.convolve(np.pad(rewards, 4, mode="edge"), np.ones(9) / 9, mode="valid")
        (line,) = right.plot([step for step, _ in points], smooth, label=env_id)
        right.plot([step for step, _ in points], rewards, color=line.get_color(), alpha=0.2, linewidth=0.7)
    right.set(title="GRPO: reward in training", xlabel="step", ylim=(0, 1.02))
    if learnt:
        right.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    write_file(folder.path / "curves.png", buffer.getvalue())
    return folder.path / "curves.png"


def _find(scores: Scores, like: dict[str, Any]) -> dict[str, Any] | None:
    same = [s for s in scores if s["env_id"] == like["env_id"] and s["temperature"] == like["temperature"]]
    return same[0] if same else None
