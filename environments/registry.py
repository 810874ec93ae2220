"""The registry: `@register("family/Name-v0")` makes a class an id that Gymnasium, configs and the command line know.

Ids live in Gymnasium's own registry, so `gymnasium.make` and `gymnasium.make_vec` work. Our `make` returns the bare
environment (with `astep`) and guesses at misspelt names. Other packages announce environments through the entry point
group `swannery.environments`, loaded only when a name is not found.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

import gymnasium

from ..messages import Limits
from .declaration import DeclarationError
from .env import Env
from .guess import nearest
from .vector import AsyncioVectorEnv

E = TypeVar("E", bound=type[Env])
_IDS: dict[str, Any] = {}
"""What each id stands for: a class, a factory, or the module that registers it when it is imported."""


def register(env_id: str, *, floor: float | None = None, **limits: Any) -> Callable[[E], E]:
    """Register an Env class as `env_id` ("family/Name-v0"). Keywords are fields of `Limits`, and `floor`."""
    known = [field.name for field in dataclasses.fields(Limits)]
    for name in limits:
        if name not in known:
            raise TypeError(f"@register({env_id!r}): no limit named {name!r}. {nearest(name, [*known, 'floor'])}")
    declared = Limits(**limits)

    def add(cls: E) -> E:
        if not (isinstance(cls, type) and issubclass(cls, Env)):
            raise TypeError(f"@register({env_id!r}) needs a subclass of swannery.environments.Env, got {cls!r}")
        if not any(not reward.gate for reward in cls.rewards):
            raise DeclarationError(cls, f"{cls.__name__} has no @reward", "an environment needs at least one")
        if cls.sample_task is Env.sample_task and not cls.tasks:
            raise DeclarationError(
                cls, f"{cls.__name__} draws no tasks", "write def task(self, rng) -> Task, or tasks = jsonl(...)"
            )
        cls.limits = declared
        if floor is not None:
            cls.floor = floor
        register_entry(env_id, cls)
        return cls

    return add


def register_entry(env_id: str, entry_point: Callable[..., Env] | str, kwargs: Mapping[str, Any] | None = None) -> None:
    """Register a class, a factory, or a "module:name" that is imported when first made."""
    before = _IDS.get(env_id)
    if before is not None and not _same(before, entry_point):
        raise ValueError(f"{env_id!r} is taken by {before!r}; give this one another name or version")
    gymnasium.registry.pop(env_id, None)
    gymnasium.register(
        env_id,
        entry_point=entry_point,
        vector_entry_point=_VectorEntry(env_id),
        kwargs=dict(kwargs or {}),
        order_enforce=False,  # its wrapper forwards no astep; Env itself enforces the order
        disable_env_checker=True,
    )
    _IDS[env_id] = entry_point


def register_module(env_id: str, module: str) -> None:
    """Register an id whose class is in a module that is imported when first made, and registers it itself."""
    register_entry(env_id, _Deferred(env_id, module))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, _Deferred):
        return before.module == getattr(after, "__module__", None) or before == after
    name = lambda entry: (getattr(entry, "__module__", entry), getattr(entry, "__qualname__", entry))  # noqa: E731
    return name(before) == name(after)


@dataclasses.dataclass(frozen=True)
class _Deferred:
    """Stands for a class until it is imported."""

    env_id: str
    module: str

    def __call__(self, **kwargs: Any) -> Env:
        return self.resolve()(**kwargs)

    def resolve(self) -> Callable[..., Env]:
        importlib.import_module(self.module)
        found = _IDS[self.env_id]
        assert found is not self, f"{self.module} does not register {self.env_id}"
        return found


class _VectorEntry:
    """What `gymnasium.make_vec` calls: `num_envs` environments on one event loop."""

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id

    def __call__(self, num_envs: int = 1, **kwargs: Any) -> AsyncioVectorEnv:
        return AsyncioVectorEnv([lambda: make(self.env_id, **kwargs)] * num_envs)


def registered() -> list[str]:
    """The ids of all known environments, sorted."""
    return sorted(_IDS)


def ids_of(cls: object) -> list[str]:
    """The ids that a class is registered as."""
    return [env_id for env_id, entry in _IDS.items() if entry is cls]


def entry_module(env_id: str) -> str:
    """The module that an id's class or factory is in."""
    return getattr(_IDS[env_id], "__module__", "")


def load_plugins() -> None:
    """Import what other packages announce under `swannery.environments`."""
    for plugin in entry_points(group="swannery.environments"):
        plugin.load()


def find(env_id: str) -> Callable[..., Env] | str:
    """The class or factory of an id. Unknown names get the nearest guess."""
    if env_id not in _IDS:
        load_plugins()
    if env_id not in _IDS:
        raise ValueError(f"No environment named {env_id!r}. {nearest(env_id, _IDS)}")
    found = _IDS[env_id]
    return found.resolve() if isinstance(found, _Deferred) else found


def make(env_id: str, **kwargs: Any) -> Env:
    """The bare environment of an id. Unknown names get the nearest guess."""
    found = find(env_id)
    if isinstance(found, type):
        # As gymnasium.make would, without copying the arguments: a Responder may hold an engine.
        env = found(**kwargs)
        env.spec = gymnasium.spec(env_id)
    else:
        env = gymnasium.make(env_id, **kwargs).unwrapped
    assert isinstance(env, Env)
    return env


def make_vec(env_id: str, num_envs: int = 1, **kwargs: Any) -> AsyncioVectorEnv:
    """`num_envs` environments that wait together on one event loop."""
    find(env_id)
    return AsyncioVectorEnv([lambda: make(env_id, **kwargs)] * num_envs)
