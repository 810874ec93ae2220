"""What is checked before a run begins, and so before its folder exists: that everything it names can be made."""

from __future__ import annotations

import inspect

import numpy as np

from ..environments import Env, EnvironmentFault, make
from ..environments.guess import nearest
from ..messages import Message
from ..policies import Renderer, TransformersPolicy, make_renderer, open_policy
from ..policies.fetch import policy_folder
from ..policies.training import trainable
from ..policies.transformers_attention import Unserved
from .config import ConfigError, EnvironmentConfig, RunConfig


def make_environment(config: EnvironmentConfig) -> Env:
    """The environment of a configuration. Options that it does not take are told with the nearest guess."""
    try:
        return make(config.id, **config.options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        import gymnasium

        entry = gymnasium.spec(config.id).entry_point
        known = [name for name in inspect.signature(entry).parameters if name != "kwargs"] if callable(entry) else []
        wrong = next((name for name in config.options if name not in known), "")
        raise ConfigError(f"{config.id} has no option {wrong!r}. {nearest(wrong, [*known, 'limits'])}") from None
    except (ValueError, ModuleNotFoundError) as error:
        raise ConfigError(f"{config.id}: {error}") from None


def why_not_kept(budget: int | str | None, renderer: Renderer) -> str:
    """Why a chat format cannot keep a reasoning budget; empty where it can."""
    if isinstance(budget, int) and budget and renderer.think_end_id is None:
        return "this policy's chat format has no reasoning"
    if budget == "low":
        try:
            renderer.open([Message("user", "?")], effort="low")
        except ValueError as error:
            return str(error)
    return ""


def _check_policy(config: RunConfig) -> None:
    policy, ours = open_policy(policy_folder(config.policy.folder)), True
    if isinstance(policy, TransformersPolicy):
        ours = False
        try:
            trainable(policy)
        except Unserved as error:
            raise ConfigError(f"policy.folder: {error}") from None
    for name, chosen in (
        ("policy.lora_rank", config.policy.lora_rank),
        ("policy.exact_replay", config.policy.exact_replay),
    ):
        if chosen and ours == (name == "policy.lora_rank"):
            kind = "a hybrid of ours" if ours else "a model of the transformers library"
            raise ConfigError(f"{name} is not for {kind}, which {config.policy.folder} is")
    renderer = make_renderer(policy)
    for env in config.environments:
        declared = [None if b == "unlimited" else b for b in env.reasoning_budgets]
        for budget in declared or make_environment(env).limits.reasoning_budgets:
            if why := why_not_kept(budget, renderer):
                raise ConfigError(
                    f'{env.id} asks for a reasoning budget of {budget}, but {why}: give it reasoning_budgets = ["unlimited"]'
                )


def preflight(config: RunConfig) -> None:
    """Raise ConfigError or PolicyError on what would stop the run later."""
    if config.policy.folder:
        _check_policy(config)
    demonstrated = config.sft.steps > 0 or not config.policy.folder  # the tokenizer too is trained on demonstrations
    for env_config in config.environments:
        env = make_environment(env_config)
        try:
            env.reset(seed=0)
            if demonstrated:
                env.demonstrate(np.random.default_rng(0))
        except NotImplementedError:
            raise ConfigError(
                f"{env_config.id} has no demonstrator to warm-start from: give the run a policy.folder and sft.steps = 0"
            ) from None
        except EnvironmentFault as fault:
            raise ConfigError(f"{env_config.id} cannot begin an episode: {fault}") from None
        finally:
            env.close()
