"""Is `swannery explain` right about real runs? One fault planted in each of short quickstart runs, and healthy runs beside them.

    python benchmarks/explain.py [--output runs/explain] [--healthy RUN ...]

Each planted run differs from the quickstart in one thing, and what is found has to name it. Runs that are there already are read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import report
from training_runs import records, train

from swannery.rl.config import read_toml
from swannery.rl.explain import explain
from swannery.rl.run_folder import RunFolder

HERE = Path(__file__).parent
SIZE = (
    "--rl.steps",
    "24",
    "--rl.prompts-per-step",
    "15",
    "--rl.group-size",
    "8",
    "--evaluation.num-tasks",
    "0",
    "--num-threads",
    "1",
)
ARITHMETIC = (
    '[[environments]]\nid = "math/Arithmetic-v0"\noptions = { operations = ["add", "subtract"], level = %d }\n'
    "reasoning_budgets = [%s]\n"
)
PLANTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "truncated": ("quickstart", ("--generation.max-new-tokens", "12")),
    "too hard": (ARITHMETIC % (9, '"unlimited"'), ()),
    "too easy": ("planted/Generous-v0", ()),
    "small groups": ("quickstart", ("--rl.group-size", "2", "--rl.prompts-per-step", "40")),
    "malformed turns": ("quickstart", ("--rl.temperature", "2.5")),
    "faults": ("planted/Faulty-v0", ()),
    "budgets too small": (ARITHMETIC % (2, "1"), ()),
    "warm start": ("quickstart", ("--sft.steps", "40", "--sft.learning-rate", "1e-7", "--policy.folder", "")),
    "not finite": ("quickstart", ()),
    "collapse": (
        "quickstart",
        ("--rl.learning-rate", "1e-2", "--rl.updates-per-step", "1", "--algorithm.name", "rloo"),
    ),
    "learning rate too low": ("quickstart", ("--rl.learning-rate", "1e-8")),
    "learning rate too high": ("quickstart", ("--rl.learning-rate", "1e-2", "--rl.updates-per-step", "4")),
    "no exploration": ("quickstart", ("--rl.temperature", "0.02")),
    "old rollouts": ("quickstart", ("--rl.lookahead", "6", "--generation.num-slots", "200")),
}
FAULTS = {"not finite": "learner.gradient%0.4#1=nan"}


def planted(name: str, start: Path, output: Path) -> Path:
    """The run folder of a planted fault."""
    text, options = PLANTED[name]
    config = text
    if text != "quickstart":
        config = str(output / f"{name.replace(' ', '-')}.toml")
        if text.startswith("planted/"):
            text = f'imports = ["{HERE / "planted_environments.py"}"]\n[[environments]]\nid = "{text}"\n'
        Path(config).write_text(text)
        read_toml(Path(config))
    os.environ["SWANNERY_FAULTS"] = FAULTS.get(name, "")
    run = output / name.replace(" ", "-")
    beginning = ("--policy.folder", str(start), "--sft.steps", "0")
    train(run, config, 0, *beginning, *SIZE, *options)
    return run


def found(run: Path) -> list[str]:
    config: Mapping[str, object] = RunFolder(run).read_json("config.json") or {}
    return [finding.name for finding in explain(dict(config), [*records(run, "sft"), *records(run)])]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/explain"))
    parser.add_argument(
        "--start", type=Path, default=None, help="a policy folder to begin from; without, a warm start is made"
    )
    parser.add_argument(
        "--healthy", type=Path, nargs="*", default=(), help="run folders in which nothing is to be found"
    )
    options = parser.parse_args(arguments)
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    start = options.start
    if start is None:
        train(output / "start", "quickstart", 0, "--rl.steps", "0", "--evaluation.num-tasks", "0", "--num-threads", "1")
        start = output / "start" / "policy"
    figures: dict[str, float] = {}
    for name in PLANTED:
        names = found(planted(name, start.absolute(), output))
        figures[f"found {name}"] = float(name in names)
        print(f"{name}: {', '.join(names) or 'nothing'}", file=sys.stderr, flush=True)
    alarms = {str(run): names for run in options.healthy if (names := found(run))}
    for run, names in alarms.items():
        print(f"false alarm in {run}: {', '.join(names)}", file=sys.stderr)
    figures |= {
        "planted": float(len(PLANTED)), "planted_found": sum(figures.values()),
        "healthy": float(len(options.healthy)), "false_alarms": float(len(alarms)),
    }  # fmt: skip
    report("explain", figures, {"planted_found": (">=", 12), "false_alarms": ("<=", 0)})


if __name__ == "__main__":
    main()
