"""What is checked before a run begins, and so before its folder exists: that everything it names can be made."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from ..environments import Env, EnvironmentFault, make
from ..environments.guess import nearest
from ..policies import load_policy
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


def preflight(config: RunConfig) -> None:
    """Raise ConfigError or PolicyError on what would stop the run later."""
    if config.policy.folder:
        load_policy(Path(config.policy.folder))
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
