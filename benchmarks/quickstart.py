"""The main job over several seeds, with both controls: what would supervised fine-tuning have done with the same CPU time?

    python benchmarks/quickstart.py [--seeds 3] [--output runs/benchmark] [train options ...]

Each seed: `swannery train quickstart` on the test split; then, from the same warm start, SFT goes on for as many seconds as
GRPO took, once on the same imperfect demonstrations and once on the oracle's. Prints a table and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from training_runs import sft_steps, train


def control(output: Path, seed: int, grpo: dict[str, Any], by: str, options: list[str]) -> dict[str, Any]:
    """SFT from the run's warm start for as long as its GRPO took."""
    return train(
        output, "quickstart", seed + 1000, "--policy.folder", str(Path(grpo["run"]) / "policy-sft"), "--sft.by", by,
        "--sft.steps", str(sft_steps(grpo, grpo)), "--rl.steps", "0", *options,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--control-seeds", type=int, default=None, help="controls for the first so many seeds only")
    known, options = parser.parse_known_args()
    results: list[dict[str, Any]] = [
        {"seed": seed, "grpo": train(known.output / f"seed-{seed}", "quickstart", seed, *options)}
        for seed in range(known.seeds)
    ]
    for row in results[: known.control_seeds]:
        for by in ("demonstrator", "oracle"):
            row[by] = control(known.output / f"seed-{row['seed']}-{by}", row["seed"], row["grpo"], by, options)
    print_table(results)
    print(json.dumps(summarize(results)))


def print_table(results: list[dict[str, Any]]) -> None:
    header = ["environment", *(f"seed {r['seed']}" for r in results), "SFT on, same", "SFT on, oracle"]
    print(" | ".join(header))
    for kind in ("sampled", "greedy"):
        for env_id in results[0]["grpo"]["environments"]:
            cells = [r["grpo"]["environments"][env_id][kind] for r in results]
            line = [f"{env_id} ({kind})", *(f"{c['before']:.2f} -> {c['after']:.2f}" for c in cells)]
            for by in ("demonstrator", "oracle"):
                after = [r[by]["environments"][env_id][kind]["after"] for r in results if by in r]
                line.append(f"{np.mean(after):.2f}" if after else "-")
            print(" | ".join(line))


def summarize(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures against their bars, by seed."""

    def mean_after(summary: dict[str, Any], kind: str) -> float:
        return round(float(np.mean([env[kind]["after"] for env in summary["environments"].values()])), 4)

    rows = []
    for result in results:
        grpo = result["grpo"]
        calculator = grpo["environments"]["tools/Calculator-v0"]["sampled"]
        guess = grpo["environments"]["chat/Guess-v0"]["sampled"]
        rows.append(
            {
                "seed": result["seed"],
                "wall_s": grpo["wall_s"],
                "peak_memory_mb": grpo["peak_memory_mb"],
                "sampled_tokens_per_s": grpo["sampled_tokens_per_s"],
                "model_share_of_a_step": grpo["model_share_of_a_step"],
                "gain_sampled": grpo["mean_gain_sampled"],
                "gain_greedy": grpo["mean_gain_greedy"],
                "calculator_gain": round(calculator["after"] - calculator["before"], 4),
                "calls_when_right": calculator["calls_when_right"],
                "guess_gain": round(guess["after"] - guess["before"], 4),
                "mismatch_max": grpo["mismatch_max"],
                "rollouts": grpo["rollouts"],
                "budget_violations": grpo["budget_violations"],
                "forced_tokens_in_loss": grpo["forced_tokens_in_loss"],
                "after": {kind: mean_after(grpo, kind) for kind in ("sampled", "greedy")},
                "controls": {
                    by: {kind: mean_after(result[by], kind) for kind in ("sampled", "greedy")}
                    for by in ("demonstrator", "oracle")
                    if by in result
                },
            }
        )
    return {"benchmark": "quickstart", "seeds": rows}


if __name__ == "__main__":
    main()
