"""Time travel: an episode taken back to, or branched at, any turn, together with its state, user and random stream.

    snapshot = env.snapshot();  env.step(...);  env.restore(snapshot)         twin = env.branch()

An episode is what changed since the environment was made: attributes bound in `start`, tools or rewards are copied, what was
bound in `__init__` is shared (a corpus, an index, a client). Our frozen vocabulary is shared as well.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..messages import Audio, Message, Outcome, Task, Text, ToolCall, Turn
from .calling import CallRecord
from .state import ATOMS

if TYPE_CHECKING:
    from .env import Env

_MACHINERY = frozenset({"states", "_np_random", "_np_random_seed", "_runner", "_made", "_first", "in_loop"})
_SHARED = ATOMS | {Audio, CallRecord, Message, Outcome, Task, Text, ToolCall, Turn}


@dataclass(frozen=True)
class Snapshot:
    """All that an episode may have changed. Valid for environments made alike."""

    attributes: Mapping[str, Any]
    states: Mapping[str, Any]
    generator: Mapping[str, Any] | None


def take(env: Env) -> Snapshot:
    """The episode as it is now."""
    made, seen = env._made, {}
    attributes = {
        name: _copied(value, seen, name)
        for name, value in vars(env).items()
        if name not in _MACHINERY and (name not in made or made[name] is not value)
    }
    generator = env._np_random
    return Snapshot(
        attributes,
        {name: state.snapshot() for name, state in env.states.items()},
        None if generator is None else generator.bit_generator.state,
    )


def put_back(env: Env, snapshot: Snapshot) -> None:
    """The episode as it was. The snapshot can be used again."""
    for name in [n for n in vars(env) if n not in _MACHINERY and n not in snapshot.attributes]:
        if name in env._made:
            vars(env)[name] = env._made[name]
        else:
            del vars(env)[name]
    seen: dict[int, Any] = {}
    for name, value in snapshot.attributes.items():
        vars(env)[name] = _copied(value, seen, name)
    for name, value in snapshot.states.items():
        env.states[name].restore(value)
    if snapshot.generator is not None:
        if env._np_random is None:
            env._np_random = np.random.default_rng(0)
        env._np_random.bit_generator.state = snapshot.generator


def branch(env: Env) -> Env:
    """A second environment in the midst of the same episode; what either does is unknown to the other."""
    twin = object.__new__(type(env))
    vars(twin).update(env._made)
    twin.states = {name: state.branch() for name, state in env.states.items()}
    twin._np_random, twin._np_random_seed = None, env._np_random_seed
    twin._made, twin._first, twin._runner, twin.in_loop = env._made, env._first, None, env.in_loop
    put_back(twin, dataclasses.replace(take(env), states={}))
    return twin


def _copied(value: Any, seen: dict[int, Any], name: str) -> Any:
    """A copy that shares no container with the original, and keeps sharing among its own parts."""
    kind = value.__class__
    if kind in _SHARED:
        return value
    if (found := seen.get(id(value))) is not None:
        return found
    if kind is list:
        seen[id(value)] = twin = []
        twin.extend([v if v.__class__ in _SHARED else _copied(v, seen, name) for v in value])
        return twin
    if kind is dict:
        seen[id(value)] = twin = {}
        twin.update({k: v if v.__class__ in _SHARED else _copied(v, seen, name) for k, v in value.items()})
        return twin
    if kind is tuple:
        return tuple([v if v.__class__ in _SHARED else _copied(v, seen, name) for v in value])
    if hasattr(value, "branch"):
        seen[id(value)] = twin = value.branch()
        return twin
    try:
        seen[id(value)] = twin = copy.deepcopy(value)
    except Exception as error:
        raise TypeError(
            f"self.{name} cannot be part of a snapshot ({type(value).__name__}: {error}); bind it in __init__, where it is "
            "shared by all episodes, or hold plain data in State.dict or State.sqlite"
        ) from None
    return twin
