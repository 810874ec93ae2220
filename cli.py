"""The verbs train and doctor, and what all verbs share. Each takes its arguments and returns an exit code."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .rl.config import RunConfig

USER_ERROR = 2


def told(verb: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """A person's mistake becomes one message and exit code 2."""

    @wraps(verb)
    def run(arguments: list[str]) -> int:
        from .kernels.backend import KernelError
        from .policies.folder import PolicyError
        from .rl.config import ConfigError
        from .rl.run_folder import RunError

        try:
            return verb(arguments)
        except (ConfigError, RunError, PolicyError, KernelError) as error:
            Console(stderr=True).print(f"[red]swannery:[/] {plain(str(error))}", highlight=False, soft_wrap=True)
            return USER_ERROR

    return run


def console() -> Console:
    """Where a person looks: the terminal, or stderr with room for tables when stdout is a pipe for the JSON line."""
    return Console() if sys.stdout.isatty() else Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def plain(text: str) -> str:
    return text.replace("[", "\\[")


@told
def train(arguments: list[str]) -> int:
    """Start or resume a run."""
    from .rl.checkpoint import resume_config
    from .rl.config import ConfigError
    from .rl.preflight import preflight
    from .rl.run_folder import RunFolder

    if arguments[:1] == ["--resume"]:
        if len(arguments) < 2 or arguments[1].startswith("-"):
            raise ConfigError("name the run to go on with, as in: swannery train --resume runs/quickstart-001")
        change, rest = "--allow-config-change" in arguments, [w for w in arguments[2:] if w != "--allow-config-change"]
        folder = RunFolder.open(Path(arguments[1]))
        config = _overridden(resume_config(folder), rest, f"swannery train --resume {arguments[1]}")
        return _train(config, folder, allow_config_change=change)
    if not arguments or arguments[0].startswith("-"):
        if arguments[:1] in (["-h"], ["--help"]):
            arguments = ["quickstart", "--help"]
        else:
            raise ConfigError("name a configuration first, as in: swannery train quickstart --rl.steps 50")
    config = _overridden(_values(arguments[0]), arguments[1:], f"swannery train {arguments[0]}")
    preflight(config)
    folder = RunFolder.create(Path(config.output) if config.output else None, config.name)
    folder.write_json("config.json", config.model_dump(mode="json"))
    return _train(config, folder)


def _overridden(values: dict[str, Any], arguments: list[str], prog: str) -> RunConfig:
    """A configuration with what was said on the command line in its place."""
    from .rl.config import load_config

    values, arguments = _with_algorithm(values, arguments)
    config = load_config(values)
    chosen = tyro.cli(
        tyro.conf.AvoidSubcommands[type(config)],  # type: ignore[misc]
        default=config,
        args=arguments,
        prog=prog,
    )
    return load_config(chosen.model_dump(mode="json"))


def _with_algorithm(values: dict[str, Any], arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """`--algorithm.name` chooses which settings there are, so it is read before all others."""
    rest, name = [], None
    waiting = iter(arguments)
    for word in waiting:
        if word == "--algorithm.name":
            name = next(waiting, "")
        elif word.startswith("--algorithm.name="):
            name = word.split("=", 1)[1]
        else:
            rest.append(word)
    if name is None or name == values.get("algorithm", {}).get("name"):
        return values, rest
    return {**values, "algorithm": {"name": name}}, rest


def _values(name: str) -> dict[str, Any]:
    """A configuration's values. An environment's own file stands for the quickstart with its environments alone."""
    from .environments.importing import import_file
    from .rl.config import ConfigError, read_toml

    if not name.endswith(".py"):
        return read_toml(Path(name))
    try:
        env_ids = import_file(Path(name))
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(str(error)) from None
    return {
        **read_toml(Path("quickstart")),
        "name": Path(name).stem,
        "imports": [str(Path(name).resolve())],
        "environments": [{"id": env_id} for env_id in env_ids],
    }


def _train(config: RunConfig, folder: Any, *, allow_config_change: bool = False) -> int:
    from .rl.controller import Controller, Interrupted
    from .rl.display import Display
    from .rl.process import prepare
    from .rl.report import draw, show, summarize

    terminal = console()
    prepare(config.num_threads)
    start = time.monotonic()
    controller = Controller(config, folder, Display(terminal), allow_config_change=allow_config_change)
    try:
        controller.run()
    except Interrupted as stop:
        terminal.print(f"saved. Go on with: swannery train --resume {folder.path}", highlight=False)
        return stop.exit_code
    finally:
        controller.close()
        folder.release()
    draw(folder)
    summary = summarize(folder, controller.state, weights=controller.weights_hash, wall_s=time.monotonic() - start)
    folder.write_json("summary.json", summary)
    show(terminal, folder, summary)
    return 0


@told
def doctor(arguments: list[str]) -> int:
    """What this machine has. Exit code 1 where something needed is missing."""
    tyro.cli(tyro.conf.AvoidSubcommands[_NoArguments], args=arguments, prog="swannery doctor")
    terminal = Console()
    rows = list(_findings())
    table = Table(box=None, show_header=False)
    for ok, name, found, cure in rows:
        mark = "[green]ok[/]" if ok else "[red]missing[/]" if ok is False else "[yellow]note[/]"
        table.add_row(mark, name, plain(found), plain(cure))
    terminal.print(table)
    return 1 if any(ok is False for ok, *_ in rows) else 0


@dataclass(frozen=True)
class _NoArguments:
    """What this machine has, and what to do about what it lacks."""


def _findings() -> Any:
    python = sys.version_info >= (3, 11)
    yield python, "python", platform.python_version(), "" if python else "install Python 3.11 or newer"
    for package in (
        "gymnasium",
        "numpy",
        "pydantic",
        "torch",
        "tokenizers",
        "safetensors",
        "reasoning-gym",
        "matplotlib",
    ):
        try:
            yield True, package, version(package), ""
        except PackageNotFoundError:
            yield False, package, "not installed", "pip install 'swannery[train]'"
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        yield True, "gpu", torch.cuda.get_device_name(), ""
    else:
        yield None, "gpu", f"none; {torch.get_num_threads()} CPU threads", "small policies train well without"
    from .kernels.backend import available, setting

    forms, lacking = available(), torch.cuda.is_available() and "triton" not in available()
    found = ", ".join(forms) if not setting() else f"{setting()}, as SWANNERY_KERNELS says"
    yield None if lacking else True, "kernels", found, "pip install 'swannery[cuda]'" if lacking else ""
    from .kernels.compiled import library

    slow = "" if library() else "install a C compiler (apt install gcc): rollouts on the CPU get 4 times as fast"
    yield True if library() else None, "kernels in C", "none" if slow else "compiled for this CPU", slow
    free_gb = shutil.disk_usage(".").free / 1e9
    yield free_gb > 1, "disk", f"{free_gb:.0f} GB free", "" if free_gb > 1 else "a run folder needs up to 1 GB"
    from .environments import registered

    yield True, "environments", f"{len(registered())} registered", ""
