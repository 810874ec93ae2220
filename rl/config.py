"""The configuration of a run: one TOML file, values only, checked whole before anything starts.

Defaults are the vetted settings. A misspelt key gets the nearest guess; a wrong type says what came; fields that do not
fit each other are refused here, not an hour later.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..environments import registered
from ..environments.guess import nearest
from ..environments.importing import import_file
from ..environments.registry import load_plugins
from ..policies.presets import PRESETS
from ..policies.tokenizer import CONTROL_TOKENS
from .algorithms import ALGORITHMS, AnyAlgorithm
from .algorithms.dapo import DAPO
from .algorithms.grpo import GRPO
from .cross_checks import check_rl
from .importance import Correction
from .kl import KLPenalty
from .section import Section
from .shaping import Shaping


class ConfigError(ValueError):
    """A configuration that cannot run, in words for the person who wrote it."""


class EnvironmentConfig(Section):
    """One environment of the mixture."""

    id: str
    weight: float = Field(default=1.0, gt=0)
    """Its share of each step's prompts, against the other weights."""
    options: dict[str, Any] = {}
    """Keywords of the environment's constructor."""
    reasoning_budgets: tuple[int | Literal["unlimited", "low"], ...] = ()
    """Budgets in tokens that training samples from; 0 is reasoning off, "low" asks for low effort without a limit. Empty: the
    environment's own."""
    algorithm: AnyAlgorithm | None = None
    """What it is learnt by, in place of the run's [algorithm]."""

    @model_validator(mode="after")
    def _known(self) -> EnvironmentConfig:
        if self.id not in registered():
            load_plugins()
        if self.id not in registered():
            raise ValueError(f"no environment named {self.id!r}. {nearest(self.id, registered())}")
        if any(isinstance(budget, int) and budget < 0 for budget in self.reasoning_budgets):
            raise ValueError(
                f'reasoning_budgets are token counts >= 0, "unlimited" or "low", got {self.reasoning_budgets}'
            )
        return self


class PolicyConfig(Section):
    """The policy to raise: a preset's shape from scratch, or a policy folder to go on from."""

    preset: str = "tiny-1m"
    vocab_size: int = Field(default=512, ge=256 + len(CONTROL_TOKENS))
    folder: str = ""
    """A policy folder (config.json, model.safetensors, tokenizer.json) to start from instead of a preset, ours or any that transformers
    reads; or the name of a fetched policy."""
    lora_rank: int = Field(default=0, ge=0)
    """Train matrices of this rank beside the weights of a transformers model, which stay as they are; 0: the weights themselves."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """How much the matrices count: alpha / rank."""
    exact_replay: bool = False
    """Mamba layers and routers give the same bits in rollouts and in the learner; slower (policies/exact_replay.py)."""

    @model_validator(mode="after")
    def _known(self) -> PolicyConfig:
        if self.preset not in PRESETS:
            raise ValueError(f"no preset named {self.preset!r}. {nearest(self.preset, PRESETS)}")
        if self.lora_rank and not self.folder:
            raise ValueError("lora_rank trains beside the weights of a model that is there: name it in policy.folder")
        return self


class SFTConfig(Section):
    """The warm start: supervised fine-tuning on demonstrations. 0 steps leave it out."""

    steps: int = Field(default=300, ge=0)
    batch_size: int = Field(default=64, ge=1)
    takes_per_task: int = Field(default=1, ge=1)
    """Demonstrations of one task; they share its prompt, which is computed once."""
    learning_rate: float = Field(default=0.01, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    decay_share: float = Field(default=0.4, ge=0, le=1)
    """The last share of the steps, in which the rate falls to zero."""
    by: Literal["demonstrator", "oracle"] = "demonstrator"
    cut_share: float = Field(default=0.2, ge=0, le=1)
    """Of reasoning under a budget: how much is cut short and closed, so that a policy learns to answer all the same."""
    balance_rate: float = Field(default=0.001, ge=0)
    """How far a router's selection bias moves each step."""
    aux_loss: float = Field(default=0.0, ge=0)
    """Of the loss that draws routers towards even loads, beside the bias; 1e-4 in pretraining."""


class RLConfig(Section):
    """Reinforcement learning, whatever the algorithm. 0 steps leave it out."""

    steps: int = Field(default=200, ge=0)
    prompts_per_step: int = Field(default=20, ge=1)
    group_size: int = Field(default=12, ge=1)
    updates_per_step: int = Field(default=2, ge=1)
    """Optimizer steps for each step's groups, each on its own share of them."""
    learning_rate: float = Field(default=3e-4, gt=0)
    decay_share: float = Field(default=0.3, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0)
    """Sample among this many most likely tokens; 0: among all. Each token's support is recorded and replayed in the loss."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample among the most likely tokens that together reach this probability; recorded and replayed likewise."""
    old_policy: Literal["rollout", "learner"] = "rollout"
    """Whose log-probabilities a ratio is against: those that sampled, or the learner's before the step's first update. The second is
    for rollouts of older weights or of another engine: [correction] then weighs how far apart the two are."""
    entropy_share: float = Field(default=1.0, gt=0, le=1)
    """Train only this share of a step's tokens, those of the highest entropy (https://arxiv.org/abs/2506.01939)."""
    replay_routes: bool = True
    """The learner sends tokens to the experts that the rollout chose. Off, its own choice may differ, and the loss is of another
    policy than the one that sampled."""
    balance_rate: float = Field(default=0.0, ge=0)
    """How far the routers' selection biases move each step, published with the weights; their weights stay as they are. 0: frozen."""
    lookahead: int = Field(default=0, ge=0)
    """How many steps a group may be older than the weights it trains. 0 is synchronous and bit-reproducible, 1 is one step off; rollouts
    go on while the learner works, on `generation.num_slots` slots."""
    in_flight: Literal["keep", "recompute"] = "keep"
    """What becomes of a rollout under way when new weights arrive: it goes on from the state it has, or its state is computed anew."""


class CurriculumSection(Section):
    """Draw tasks around a pass rate that moves from easy to hard (environments/curriculum.py)."""

    enabled: bool = False
    pool_size: int = Field(default=256, ge=1)
    """Tasks of each environment that are drawn from; a solved one is replaced by a new one."""
    easy: float = Field(default=0.8, ge=0, le=1)
    hard: float = Field(default=0.2, ge=0, le=1)
    width: float = Field(default=0.2, gt=0)
    min_tries: int = Field(default=12, ge=1)


class GenerationConfig(Section):
    """How completions are sampled."""

    max_new_tokens: int = Field(default=96, ge=1)
    """Tokens of one completion, reasoning included."""
    budget_grace: int = Field(default=0, ge=0)
    """Tokens beyond a reasoning budget in which the end of a line or sentence is waited for."""
    context_size: int = Field(default=512, ge=16)
    """Tokens of one conversation that the engine holds."""
    num_slots: int = Field(default=256, ge=1)
    micro_batch_tokens: int = Field(default=8192, ge=64)
    timeout_s: float = Field(default=600.0, gt=0)
    """How long a training rollout may wait for one completion, its wait for a slot included; after that the rollout is left out."""


class EvaluationConfig(Section):
    """Held-out evaluation before and after GRPO."""

    num_tasks: int = Field(default=256, ge=0)
    """Tasks of each environment; 0 leaves evaluation out."""
    split: Literal["validation", "test"] = "test"


class RunConfig(Section):
    """A whole run."""

    name: str = "run"
    output: str = ""
    """The run folder. Empty: the next free runs/NAME-NNN."""
    seed: int = Field(default=0, ge=0)
    runtime: Literal["local"] = "local"
    num_threads: int = Field(default=0, ge=0)
    """Of torch; 0 is one a core."""
    checkpoint_every: int = Field(default=25, ge=1)
    trace_every: int = Field(default=1, ge=0)
    """Keep each sampled token of every so many steps, and why it was trained or not (trace.py); 0: none."""
    imports: tuple[str, ...] = ()
    """Python files that register environments of one's own."""
    environments: tuple[EnvironmentConfig, ...] = Field(min_length=1)
    policy: PolicyConfig = PolicyConfig()
    sft: SFTConfig = SFTConfig()
    rl: RLConfig = RLConfig()
    algorithm: AnyAlgorithm = GRPO()
    correction: Correction = Correction()
    kl: KLPenalty = KLPenalty()
    shaping: Shaping = Shaping()
    curriculum: CurriculumSection = CurriculumSection()
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        generation, ids = self.generation, [env.id for env in self.environments]
        if len(set(ids)) < len(ids):
            raise ValueError(
                f"each environment may be named once, got {sorted(i for i in ids if ids.count(i) > 1)[0]!r} twice"
            )
        if generation.max_new_tokens >= generation.context_size:
            raise ValueError(
                f"generation.max_new_tokens ({generation.max_new_tokens}) must be below generation.context_size "
                f"({generation.context_size}), which also holds the prompt"
            )
        closing = 4  # a newline, the closing token, a newline, and at least one token of an answer
        for env in self.environments:
            for budget in env.reasoning_budgets:
                needed = budget + generation.budget_grace + closing if isinstance(budget, int) else 0
                if needed > generation.max_new_tokens:
                    raise ValueError(
                        f"the reasoning budget {budget} of {env.id} does not fit: with its closing and an answer it needs "
                        f"generation.max_new_tokens of at least {needed}, got {generation.max_new_tokens}"
                    )
        check_rl(self)
        return self

    @property
    def algorithms(self) -> dict[str, AnyAlgorithm]:
        """The run's algorithm under the empty name, where an environment learns by it, and those of environments that have their own."""
        own = {env.id: env.algorithm for env in self.environments if env.algorithm is not None}
        return {**({"": self.algorithm} if len(own) < len(self.environments) else {}), **own}

    @property
    def refills(self) -> dict[str, int]:
        """How many times a step replaces groups that agree, by environment."""
        found = {env.id: self.algorithms[self.algorithm_of(env.id)] for env in self.environments}
        return {env_id: a.refills for env_id, a in found.items() if isinstance(a, DAPO)}

    def algorithm_of(self, env_id: str) -> str:
        """The name in `algorithms` of an environment's."""
        return env_id if env_id in self.algorithms else ""


RENAMED = {
    "grpo": "it is [rl] now, and clip_low and clip_high are settings of [algorithm]",
}
"""Settings of old, and where they went."""


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's values. A name without a folder may be that of a packaged config, as in `quickstart`."""
    if not path.exists():
        from importlib.resources import files

        packaged = sorted(str(f.name)[:-5] for f in files("swannery.configs").iterdir() if f.name.endswith(".toml"))
        name = path.name.removesuffix(".toml")
        if name in packaged and len(path.parts) <= 2:
            return tomllib.loads((files("swannery.configs") / f"{name}.toml").read_text())
        raise ConfigError(f"no file {path}. Packaged configs: {nearest(name, packaged)}")
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def load_config(values: Mapping[str, Any]) -> RunConfig:
    """A checked configuration from plain values. Raises ConfigError with every problem, one a line."""
    for file in values.get("imports") or ():
        try:
            import_file(Path(str(file)))
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"imports: {error}") from None
    try:
        return RunConfig.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors(include_url=False))) from None


def _explain(problem: Any) -> str:
    skipped = ("int", "literal['unlimited']", *(a for a in ALGORITHMS if a in problem["loc"][1:]))
    where = ".".join(str(part) for part in problem["loc"] if part not in skipped)
    if problem["type"] == "union_tag_invalid":
        return f"{where}: no algorithm named {problem['ctx']['tag']!r}. {nearest(problem['ctx']['tag'], ALGORITHMS)}"
    if problem["type"] == "extra_forbidden":
        key, section = str(problem["loc"][-1]), _section_of(problem["loc"][:-1])
        if key in RENAMED and section is RunConfig:
            return f"{where}: no such setting: {RENAMED[key]}"
        close = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(section.model_fields)}."
        return f"{where}: no such setting. {hint}"
    if problem["type"] in ("value_error", "missing"):
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: {message}, got {problem['input']!r}"


def _section_of(place: Sequence[Any]) -> type[Section]:
    """The section that a place in the configuration is of."""
    section: Any = RunConfig
    for part in place:
        if part in ALGORITHMS and section is not RunConfig:
            section = ALGORITHMS[part]
        elif not isinstance(part, int) and part in section.model_fields and part != "algorithm":
            annotation: Any = section.model_fields[part].annotation
            section = annotation if isinstance(annotation, type) else annotation.__args__[0]
        elif part == "algorithm":
            section = Section
    return section  # type: ignore[no-any-return]
