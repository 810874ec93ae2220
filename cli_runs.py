"""The verbs of the command line that look at a run: explain, trace."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from .cli import plain, told


@told
def explain(arguments: list[str]) -> int:
    """Why a run does not learn. Exit code 1 where something was found."""
    from .rl.config import ConfigError
    from .rl.explain import explain as findings_of
    from .rl.explain import uncompared
    from .rl.run_folder import RunFolder

    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ConfigError("name a run folder, as in: swannery explain runs/quickstart-000")
    folder = RunFolder(Path(arguments[0]))
    records, config = folder.records(), folder.read_json("config.json")
    if not isinstance(config, dict):
        raise ConfigError(f"{folder.path} is no run folder: config.json is missing")
    terminal, found = Console(), findings_of(config, records)
    for finding in found:
        terminal.print(f"[bold]{finding.name}[/]  {plain(finding.evidence)}", highlight=False, soft_wrap=True)
        terminal.print(f"    {plain(finding.cure)}", highlight=False, soft_wrap=True)
    if not found:
        terminal.print(f"nothing found in {len(records)} steps", highlight=False)
    if uncompared(records):
        terminal.print(
            "engine against learner: nothing was compared, no trained token was of the very weights it trained",
            highlight=False,
        )
    return 1 if found else 0


@dataclass(frozen=True)
class TraceArguments:
    """What was sampled for a step, token by token: trained or not, by how much, and why not."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    step: int = -1
    """Of reinforcement, from 0; the newest without."""
    env: str = ""
    """Show a rollout of this environment."""
    group: int = -1
    rollout: int = -1
    """Show this rollout of the group."""


@told
def trace(arguments: list[str]) -> int:
    """Tokens by environment and reason; with --env, --group or --rollout the tokens of one rollout."""
    from .policies import open_policy
    from .rl.run_folder import RunError, RunFolder
    from .rl.trace import pick, read_trace, summary

    chosen = tyro.cli(TraceArguments, args=arguments, prog="swannery trace")
    folder = RunFolder(chosen.run)
    steps = folder.traced()
    if not steps:
        raise RunError(f"{chosen.run} has no trace: trace_every of its configuration was 0, or no step is done yet")
    step = steps[-1] if chosen.step < 0 else chosen.step
    if step not in steps:
        raise RunError(f"step {step} has no trace; there are {steps[0]} to {steps[-1]}")
    rows = read_trace(folder.trace_file(step).read_bytes())
    terminal = Console(width=None if sys.stdout.isatty() else 140)
    if not chosen.env and chosen.group < 0 and chosen.rollout < 0:
        terminal.print(_table(f"step {step}: sampled tokens", summary(rows)))
        return 0
    at = pick(rows, chosen.env, chosen.group, chosen.rollout)
    newest = next((p for p in (folder.path / "policy", folder.path / "policy-sft") if p.is_dir()), None)
    found = None if newest else folder.load_checkpoint()
    tokenizer = open_policy(newest or found[0]).tokenizer if newest or found else None  # type: ignore[index]
    spell = (lambda token: repr(tokenizer.decode([token]))) if tokenizer else str  # type: ignore[union-attr]
    first = {name: rows[name][at[0]] for name in ("task_seed", "group", "rollout")}
    title = f"step {step}: {rows['environments'][rows['environment'][at[0]]]}, " + ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in first.items()
    )
    terminal.print(_table(title, told_tokens(rows, at, spell)))
    return 0


def told_tokens(rows: dict[str, Any], at: Any, spell: Any) -> list[dict[str, str]]:
    """Rows of a trace in words."""
    from .rl.trace import REASONS

    number = lambda value, form: "-" if value != value else format(float(value), form)  # noqa: E731
    return [
        {
            "branch": str(rows["branch"][i]),
            "turn": str(rows["turn"][i]),
            "place": str(rows["place"][i]),
            "token": spell(int(rows["token"][i])),
            "version": str(rows["version"][i]),
            "engine": number(rows["rollout_logprob"][i], ".4f"),
            "learner": number(rows["learner_logprob"][i], ".4f"),
            "advantage": number(rows["advantage"][i], "+.3f"),
            "weight": number(rows["weight"][i], ".2e"),
            "": REASONS[rows["reason"][i]],
        }
        for i in at
    ]


def _table(title: str, lines: list[dict[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="dim", pad_edge=False)
    for name in lines[0]:
        table.add_column(
            name,
            justify="left" if name in ("token", "", "environment") else "right",
            no_wrap=name == "environment" or "token" in lines[0],
        )
    for line in lines:
        table.add_row(*(plain(value) for value in line.values()))
    return table
