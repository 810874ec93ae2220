"""Does reinforcement learn what it is said to? Three seeds, held-out tasks, and a control beside each claim.

    python benchmarks/learning_rl.py [--only algorithms,loops,length,curriculum,budgets] [--seeds 0,1,2] [--output runs/learning]

Each seed has one warm start (SFT on imperfect demonstrations), and every arm goes on from it with the same rollouts a step: only what the
arm names is different. The control goes on with SFT for as many seconds as GRPO took. A run that is there already is read, so the
benchmark may be stopped and started again. Curves are drawn into docs/ with --plot.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import report
from training_runs import records, sft_steps, swannery, train

ALGORITHMS = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_pp", "maxrl", "ppo")
SIZE = ("--rl.prompts-per-step", "20", "--rl.group-size", "8", "--num-threads", "1")
TASKS = ("--evaluation.num-tasks", "128")
LOOPS = {
    "one_step_off": ("--rl.lookahead", "1", "--generation.num-slots", "80"),
    "lookahead_2": ("--rl.lookahead", "2", "--generation.num-slots", "40"),
}
LENGTH = ("--shaping.reasoning-length", "0.1")
BUDGETS = ("unlimited", "2", "3", "4", "6", "8")

Figures = dict[str, float]


class Study:
    """Arms of one seed, from one warm start."""

    def __init__(self, output: Path, seed: int, steps: int) -> None:
        self.output, self.seed, self.steps = output, seed, steps

    @property
    def start(self) -> dict[str, Any]:
        return self.start_of("start", "quickstart")

    def start_of(self, name: str, config: str) -> dict[str, Any]:
        return train(self.output / f"{name}-{self.seed}", config, self.seed, "--rl.steps", "0", *SIZE, *TASKS)

    def arm(
        self, name: str, *options: str, config: str = "quickstart", start: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        policy = Path((start or self.start)["run"]) / "policy"
        return train(
            self.output / f"{name}-{self.seed}", config, self.seed, "--policy.folder", str(policy), "--sft.steps", "0",
            "--rl.steps", str(self.steps), *SIZE, *TASKS, *options,
        )  # fmt: skip

    def whole(self, name: str, config: str) -> dict[str, Any]:
        """A run with a warm start of its own."""
        return train(
            self.output / f"{name}-{self.seed}", config, self.seed, "--rl.steps", str(self.steps), *SIZE, *TASKS,
        )  # fmt: skip

    def control(self, by: str) -> dict[str, Any]:
        """SFT for as long as GRPO's steps took."""
        start, grpo = self.start, self.arm("grpo")
        return train(
            self.output / f"sft-{by}-{self.seed}", "quickstart", self.seed + 1000, "--policy.folder", str(Path(start["run"]) / "policy"),
            "--sft.steps", str(sft_steps(grpo, start)), "--sft.by", by, "--rl.steps", "0", *SIZE, *TASKS,
        )  # fmt: skip


def accuracy(run: dict[str, Any], kind: str = "sampled", when: str = "after") -> float:
    return float(np.mean([row[kind][when] for row in run["environments"].values()]))


def over_seeds(studies: Sequence[Study], name: str, run: Callable[[Study], dict[str, Any]]) -> Figures:
    """An arm's held-out accuracies, by seed and in the mean."""
    figures: Figures = {}
    runs = [run(study) for study in studies]
    for kind in ("sampled", "greedy"):
        values = [accuracy(one, kind) for one in runs]
        figures[f"{name}_{kind}"] = float(np.mean(values))
        if kind == "sampled":
            figures |= {f"{name}_seed_{s.seed}": value for s, value in zip(studies, values, strict=True)}
    return figures


def algorithm_figures(studies: Sequence[Study]) -> Figures:
    """Every algorithm over its SFT start, and SFT going on."""
    figures = over_seeds(studies, "start", lambda study: study.start)
    for name in ALGORITHMS:
        figures |= over_seeds(studies, name, lambda study, n=name: study.arm(n, "--algorithm.name", n))
    for by in ("demonstrator", "oracle"):
        figures |= over_seeds(studies, f"sft_{by}", lambda study, b=by: study.control(b))
    least = [
        min(figures[f"{name}_seed_{s.seed}"] - figures[f"start_seed_{s.seed}"] for s in studies) for name in ALGORITHMS
    ]
    return figures | {"least_gain_of_an_algorithm": min(least)}


def loop_figures(studies: Sequence[Study]) -> Figures:
    """One step off and lookahead 2 against the synchronous loop, with the seeds' spread as noise."""
    figures = over_seeds(studies, "grpo", lambda study: study.arm("grpo"))
    for name, options in LOOPS.items():
        figures |= over_seeds(studies, name, lambda study, n=name, o=options: study.arm(n, *o))
    sync, ahead = ([figures[f"{name}_seed_{s.seed}"] for s in studies] for name in ("grpo", "lookahead_2"))
    episodes = 128 * 5 * len(studies)
    p = float(np.mean(sync))
    noise = 1.96 * float(np.hypot(np.sqrt(2 * p * (1 - p) / episodes), np.std(sync, ddof=1) * np.sqrt(2 / len(sync))))
    return figures | {"lookahead_2_less_sync": float(np.mean(ahead)) - p, "noise_95": noise}


def length_figures(studies: Sequence[Study]) -> Figures:
    """Tokens of held-out rollouts with the length control and without, where demonstrators check their work up to four times."""
    figures: Figures = {}
    for name, options in {"checking": (), "checking_length": LENGTH}.items():
        runs = []
        for study in studies:
            config = _checking(study.output)
            start = study.start_of("checking-start", config)
            runs.append(study.arm(name, *options, config=config, start=start))
        scores = [json.loads((Path(run["run"]) / "evaluation-after.json").read_text()) for run in runs]
        for kind, temperature in (("sampled", 1.0), ("greedy", 0.0)):
            rows = [[row for row in rows if row["temperature"] == temperature] for rows in scores]
            figures[f"{name}_{kind}"] = float(np.mean([accuracy(run, kind) for run in runs]))
            figures[f"{name}_{kind}_tokens"] = float(np.mean([[r["mean_sampled_tokens"] for r in rs] for rs in rows]))
    for kind in ("sampled", "greedy"):
        with_it, without = (figures[f"{name}_{kind}_tokens"] for name in ("checking_length", "checking"))
        figures[f"length_cut_{kind}"] = 1 - with_it / without
        figures[f"length_gain_{kind}"] = figures[f"checking_length_{kind}"] - figures[f"checking_{kind}"]
    return figures


def _checking(output: Path) -> str:
    """The configuration, with the place of its environments."""
    here, path = Path(__file__).parent.absolute(), output / "checking.toml"
    path.write_text((here / "checking.toml").read_text().replace("checking_env", f"{here}/checking_env"))
    return str(path)


def curriculum_figures(studies: Sequence[Study]) -> Figures:
    """The Gaussian pass-rate curriculum against uniform sampling."""
    figures = over_seeds(studies, "uniform", lambda study: study.arm("grpo"))
    figures |= over_seeds(studies, "curriculum", lambda study: study.arm("curriculum", "--curriculum.enabled"))
    return figures | {"curriculum_less_uniform": figures["curriculum_sampled"] - figures["uniform_sampled"]}


def budget_figures(studies: Sequence[Study]) -> Figures:
    """Reward against reasoning for policies trained under budgets and without, warm start included; what is left of each environment's
    reward at half of its reasoning."""
    figures: Figures = {}
    for name in ("budgeted", "unbudgeted"):
        kept = []
        for study in studies:
            config = "budgets" if name == "budgeted" else str(_without_budgets(study.output))
            run = Path(study.whole(name, config)["run"])
            curve = run / "budgets.json"
            if not curve.exists():
                swannery("eval", str(run / "policy"), "--config", "budgets", "--temperatures", "1.0", "--num-tasks", "256",
                         "--budgets", *BUDGETS, "--output", str(curve))  # fmt: skip
            kept.append(_kept_at_half(json.loads(curve.read_text())))
        full, tokens, half_reward, half_tokens = np.mean(kept, axis=0)
        figures |= {f"{name}_full": full, f"{name}_full_tokens": tokens}
        figures |= {f"{name}_half": half_reward, f"{name}_half_tokens": half_tokens}
        figures[f"{name}_kept_at_half"] = half_reward / full
        figures[f"{name}_kept_least_seed"] = min(half / full for full, _, half, _ in kept)
    return figures


def _without_budgets(output: Path) -> Path:
    """The same mixture without limits of reasoning."""
    from swannery.rl.config import read_toml

    budgets = '["unlimited", 4, 3, 2]'
    text = (Path(__file__).parents[1] / "configs" / "budgets.toml").read_text()
    path = output / "unbudgeted.toml"
    path.write_text(text.replace(budgets, '["unlimited"]'))
    assert all(env["reasoning_budgets"] == ["unlimited"] for env in read_toml(path)["environments"])
    return path


def _kept_at_half(rows: list[dict[str, Any]]) -> tuple[float, ...]:
    """Mean over environments of: reward and reasoning tokens without a limit; the same under the largest budget that spends at most half
    of these tokens."""
    found = []
    for env_id in sorted({row["env_id"] for row in rows}):
        points = [
            (row["mean_reasoning_tokens"], row["mean_reward"], row["budget"]) for row in rows if row["env_id"] == env_id
        ]
        full_tokens, full, _ = next(point for point in points if point[2] is None)
        half_tokens, half, _ = max(point for point in points if point[0] <= full_tokens / 2)
        found.append((full, full_tokens, half, half_tokens))
    return tuple(float(value) for value in np.mean(found, axis=0))


BARS = {
    "least_gain_of_an_algorithm": (">=", 0.0),
    "budgeted_kept_at_half": (">=", 0.9),
    "length_cut_sampled": (">=", 0.2),
}
CASES: dict[str, Callable[[Sequence[Study]], Figures]] = {
    "algorithms": algorithm_figures, "loops": loop_figures, "length": length_figures, "curriculum": curriculum_figures,
    "budgets": budget_figures,
}  # fmt: skip


def plot(studies: Sequence[Study], path: Path) -> None:
    """Mean training reward of each arm by step, over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = {
        "algorithms": ALGORITHMS,
        "loops, curriculum": ("grpo", *LOOPS, "curriculum"),
    }
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axis, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            folders = [study.output / f"{name}-{study.seed}" for study in studies]
            runs = [records(folder) for folder in folders if (folder / "summary.json").exists()]
            curves = [
                [np.mean([e["reward"] for e in row["environments"].values() if "reward" in e]) for row in run]
                for run in runs
            ]
            mean = np.convolve(np.mean(curves, axis=0), np.ones(5) / 5, mode="valid")
            axis.plot(np.arange(len(mean)) + 2, mean, label=name, linewidth=1.2)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean reward, training tasks")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--output", type=Path, default=Path("runs/learning"))
    parser.add_argument("--plot", type=Path, default=None, help="draw the curves into this PNG")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    studies = [Study(options.output.absolute(), int(seed), options.steps) for seed in options.seeds.split(",")]
    figures: Figures = {}
    for name in options.only.split(","):
        figures |= CASES[name](studies)
    if options.plot:
        plot(studies, options.plot)
    report("learning_rl", figures, BARS)


if __name__ == "__main__":
    main()
