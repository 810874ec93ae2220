"""The verbs for those who write environments: check, new."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from .cli import told
from .environments import registered
from .environments.checker import Finding, check_all
from .environments.importing import import_file
from .environments.registry import find, load_plugins
from .environments.scaffold import write_new


@dataclass(frozen=True)
class CheckArguments:
    """What is wrong with an environment: each finding with its cause and its cure."""

    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Ids, or files whose environments are checked: shop/Refund-v0 my_env.py"""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """All that are registered."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Findings as one JSON line."""


@told
def check(arguments: list[str]) -> int:
    """Check environments. Exit code 1 where something is found."""
    chosen = tyro.cli(CheckArguments, args=arguments, prog="swannery check")
    env_ids = _chosen_ids(chosen)
    console = Console(stderr=True)
    findings: list[Finding] = []
    with console.status("checking ...") if console.is_terminal else contextlib.nullcontext() as status:
        say: Any = (lambda name: status.update(f"checking {name}")) if status is not None else (lambda name: None)
        with contextlib.redirect_stdout(sys.stderr):  # what graders print is not our answer
            findings = check_all(env_ids, on_subject=say)
    if chosen.json:
        print(json.dumps({"checked": env_ids, "findings": [finding.to_dict() for finding in findings]}))
        return 1 if findings else 0
    out = Console()
    for finding in findings:
        out.print(f"[red]{finding.rule}[/]  {_plain(finding.env_id)}", highlight=False)
        out.print(f"  cause: {_plain(finding.cause)}\n  cure:  {_plain(finding.cure)}", highlight=False, soft_wrap=True)
    few = len(env_ids) == 1
    out.print(
        f"{env_ids[0] if few else f'{len(env_ids)} environments'}: {len(findings) or 'no'} findings", highlight=False
    )
    return 1 if findings else 0


def _chosen_ids(chosen: CheckArguments) -> list[str]:
    from .rl.config import ConfigError

    if chosen.all:
        load_plugins()
        return registered()
    if not chosen.ids:
        raise ConfigError("name an environment or a file, or --all, as in: swannery check math/Arithmetic-v0")
    env_ids: list[str] = []
    for name in chosen.ids:
        try:
            env_ids += import_file(Path(name)) if name.endswith(".py") else [name]
            find(env_ids[-1])
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise ConfigError(str(error)) from None
    return env_ids


@dataclass(frozen=True)
class NewArguments:
    """A new environment: one file that works, one test."""

    name: Annotated[str, tyro.conf.Positional]
    """A module's name, as in my_env."""
    template: Literal["single", "tool", "stateful", "chat"] = "single"
    """What it begins as: one question, a tool, a database, a user who answers."""
    folder: Path = Path(".")


@told
def new(arguments: list[str]) -> int:
    """Write an environment from a template."""
    from .rl.config import ConfigError

    chosen = tyro.cli(NewArguments, args=arguments, prog="swannery new")
    try:
        env_id, code, test = write_new(chosen.name, chosen.template, chosen.folder)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    Console().print(
        f"{code} and {test}: {env_id}\n\n"
        f"  swannery check {code}   what is wrong with it, if anything\n"
        f"  pytest {test}\n"
        f"  swannery train {code}   raise a small policy on it",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
