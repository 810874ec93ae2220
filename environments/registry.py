"""The registry: `@register("family/Name-v0")` makes a class an id that Gymnasium, configs and the command line know.

Ids live in Gymnasium's own registry, so `gymnasium.make` and `gymnasium.make_vec` work. Our `make` returns the bare
environment (with `astep`) and guesses at misspelt names. Other packages announce environments through the entry point
group `swannery.environments`, loaded only when a name is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

import gymnasium

from ..messages import Limits
from .env import Env
from .guess import nearest
from .vector import AsyncioVectorEnv

E = TypeVar("E", bound=type[Env])
_IDS: dict[str, None] = {}


def register(env_id: str, **limits: Any) -> Callable[[E], E]:
    """Register an Env class as `env_id` ("family/Name-v0"). Keywords are fields of `Limits`."""
    declared = Limits(**limits)

    def add(cls: E) -> E:
        if not (isinstance(cls, type) and issubclass(cls, Env)):
            raise TypeError(f"@register({env_id!r}) needs a subclass of swannery.environments.Env, got {cls!r}")
        if not cls.rewards:
            raise TypeError(f"{cls.__name__} has no @reward: an environment needs at least one")
        cls.limits = declared
        register_entry(env_id, cls)
        return cls

    return add


def register_entry(env_id: str, entry_point: Callable[..., Env] | str, kwargs: Mapping[str, Any] | None = None) -> None:
    """Register a class, a factory, or a "module:name" that is imported when first made."""
    gymnasium.register(
        env_id,
        entry_point=entry_point,
        vector_entry_point=_VectorEntry(env_id),
        kwargs=dict(kwargs or {}),
        order_enforce=False,  # its wrapper forwards no astep; Env itself enforces the order
        disable_env_checker=True,
    )
    _IDS[env_id] = None


class _VectorEntry:
    """What `gymnasium.make_vec` calls: `num_envs` environments on one event loop."""

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id

    def __call__(self, num_envs: int = 1, **kwargs: Any) -> AsyncioVectorEnv:
        return AsyncioVectorEnv([lambda: make(self.env_id, **kwargs)] * num_envs)


def registered() -> list[str]:
    """The ids of all known environments, sorted."""
    return sorted(_IDS)


def make(env_id: str, **kwargs: Any) -> Env:
    """The bare environment of an id. Unknown names get the nearest guess."""
    if env_id not in _IDS:
        for plugin in entry_points(group="swannery.environments"):
            plugin.load()
    if env_id not in _IDS:
        raise ValueError(f"No environment named {env_id!r}. {nearest(env_id, _IDS)}")
    env = gymnasium.make(env_id, **kwargs).unwrapped
    assert isinstance(env, Env)
    return env
