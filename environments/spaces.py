"""Spaces for language: what an environment says (`Chat`), what a policy does (`Turn`), and sound (`Audio`).

Gymnasium's Text space holds a fixed character set and a bounded length; these hold any Unicode. Samples are seeded,
`contains` reads its argument once, and `to_jsonable` / `from_jsonable` go both ways. They are registered with Gymnasium's
vector utilities; shared memory, which would hand out stale text, is refused with the setting that works.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Space, Tuple
from gymnasium.vector.utils import (
    batch_differing_spaces,
    batch_space,
    concatenate,
    create_empty_array,
    create_shared_memory,
    iterate,
    read_from_shared_memory,
)

from ..messages import Audio as Sound
from ..messages import Message, ToolCall, ToolSchema, is_unicode
from ..messages import Turn as Action
from . import wire

T = TypeVar("T")

# Scripts, combining marks, an astral character and control-token look-alikes: what real users send.
_ALPHABET = [*"abcdefghij 0123456789+-=?.,\n", "é", "ü", "数", "学", "ع", "न", "🦢", "ß", "<|im_end|>", "</think>"]


def _random_text(rng: np.random.Generator, longest: int = 24) -> str:
    return "".join([_ALPHABET[i] for i in rng.integers(len(_ALPHABET), size=rng.integers(1, longest))])


class _Language(Space[T]):
    """What the three spaces share: no shape, no dtype, JSON both ways."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def to_jsonable(self, sample_n: Iterable[T]) -> list[Any]:
        """Samples as plain JSON."""
        return [self._to_plain(sample) for sample in sample_n]

    def from_jsonable(self, sample_n: Iterable[Any]) -> list[T]:  # type: ignore[override]
        """What `to_jsonable` gave."""
        return [self._from_plain(sample) for sample in sample_n]

    def _to_plain(self, sample: T) -> Any:
        raise NotImplementedError

    def _from_plain(self, found: Any) -> T:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self).__name__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Chat(_Language[tuple[Message, ...]]):
    """Tuples of messages: the delta that an environment adds to the conversation."""

    def sample(self, mask: Any = None, probability: Any = None) -> tuple[Message, ...]:
        count = int(self.np_random.integers(1, 3))
        return tuple([Message("user", _random_text(self.np_random)) for _ in range(count)])

    def contains(self, x: Any) -> bool:
        return isinstance(x, tuple) and all(isinstance(m, Message) and _is_text(m.text) for m in x)

    def _to_plain(self, sample: tuple[Message, ...]) -> Any:
        return [wire.message_to_dict(message) for message in sample]

    def _from_plain(self, found: Any) -> tuple[Message, ...]:
        return tuple([wire.message_from_dict(message) for message in found])


class Turn(_Language[Action]):
    """Turns: an answer, perhaps reasoning, perhaps calls. A call of an unknown tool is a bad move, but a move."""

    def __init__(self, tools: Sequence[ToolSchema] = (), seed: int | np.random.Generator | None = None) -> None:
        self.tools = tuple(tools)
        super().__init__(seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> Action:
        rng = self.np_random
        calls: tuple[ToolCall, ...] = ()
        if self.tools and rng.random() < 0.5:
            schema = self.tools[int(rng.integers(len(self.tools)))]
            calls = (ToolCall(schema.name, random_arguments(schema, rng)),)
        reasoning = _random_text(rng) if rng.random() < 0.5 else None
        return Action("" if calls else _random_text(rng), reasoning=reasoning, tool_calls=calls)

    def contains(self, x: Any) -> bool:
        if isinstance(x, str):
            return _is_text(x)
        if isinstance(x, Action):
            return _is_text(x.answer) and _is_text(x.reasoning or "")
        return isinstance(x, Mapping) and x.get("role", "assistant") == "assistant"

    def _to_plain(self, sample: Action) -> Any:
        return wire.turn_to_dict(sample)

    def _from_plain(self, found: Any) -> Action:
        return wire.read_turn(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Turn) and self.tools == other.tools

    def __hash__(self) -> int:
        return hash(self.tools)

    def __repr__(self) -> str:
        return f"Turn(tools=[{', '.join(schema.name for schema in self.tools)}])"


class Audio(_Language[Sound]):
    """Mono sound of up to `max_seconds` at one sampling rate."""

    def __init__(
        self, sampling_rate: int = 16_000, max_seconds: float = 30.0, seed: int | np.random.Generator | None = None
    ) -> None:
        if sampling_rate <= 0 or not 0 < max_seconds < float("inf"):
            raise ValueError(
                f"Audio needs a positive sampling rate and length, got {sampling_rate} Hz and {max_seconds} s"
            )
        self.sampling_rate, self.max_seconds = sampling_rate, max_seconds
        super().__init__(seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> Sound:
        longest = max(1, int(min(self.max_seconds, 0.1) * self.sampling_rate))
        samples = self.np_random.uniform(-1, 1, int(self.np_random.integers(1, longest + 1)))
        return Sound(samples.astype("<f4").tobytes(), self.sampling_rate)

    def contains(self, x: Any) -> bool:
        if not isinstance(x, Sound) or x.sampling_rate != self.sampling_rate:
            return False
        if x.duration_s > self.max_seconds:
            return False
        samples = np.frombuffer(x.samples, "<f4")
        return bool(np.isfinite(samples).all() and np.abs(samples).max() <= 1)

    def _to_plain(self, sample: Sound) -> Any:
        return wire.message_to_dict(Message("user", (sample,)))["content"][0]

    def _from_plain(self, found: Any) -> Sound:
        (part,) = wire.message_from_dict({"role": "user", "content": [found]}).content
        assert isinstance(part, Sound)
        return part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Audio) and vars(self)["sampling_rate"] == other.sampling_rate

    def __hash__(self) -> int:
        return hash(("Audio", self.sampling_rate))

    def __repr__(self) -> str:
        return f"Audio({self.sampling_rate}, {self.max_seconds})"


def random_arguments(schema: ToolSchema, rng: np.random.Generator) -> dict[str, Any]:
    """Arguments of about the right types: what a policy that knows only the schema would try."""
    found: Mapping[str, Any] = schema.parameters
    properties, required = found.get("properties", {}), set(found.get("required", ()))
    return {
        name: _random_value(kind, found.get("$defs", {}), rng)
        for name, kind in properties.items()
        if name in required or rng.random() < 0.5
    }


def _random_value(kind: Mapping[str, Any], defs: Mapping[str, Any], rng: np.random.Generator) -> Any:
    if "$ref" in kind:
        kind = defs[kind["$ref"].rsplit("/", 1)[1]]
    if "enum" in kind:
        return kind["enum"][int(rng.integers(len(kind["enum"])))]
    if options := kind.get("anyOf") or kind.get("oneOf"):
        return _random_value(options[int(rng.integers(len(options)))], defs, rng)
    match kind.get("type"):
        case "integer":
            return int(rng.integers(-5, 100))
        case "number":
            return float(np.round(rng.normal() * 10, 2))
        case "boolean":
            return bool(rng.random() < 0.5)
        case "null":
            return None
        case "array":
            return [_random_value(kind.get("items", {}), defs, rng) for _ in range(int(rng.integers(0, 3)))]
        case "object":
            return {name: _random_value(k, defs, rng) for name, k in kind.get("properties", {}).items()}
    return kind.get("const", _random_text(rng))


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and is_unicode(text)


# Gymnasium's vector utilities: a batch is a tuple with one entry for each environment.


@batch_space.register(_Language)
def _batch(space: _Language[Any], n: int = 1) -> Tuple:
    rng = np.random.default_rng(0) if space._np_random is None else space.np_random
    return Tuple(tuple(_twin(space, int(seed)) for seed in rng.integers(2**31, size=n)))


@batch_differing_spaces.register(_Language)
def _batch_differing(spaces: Sequence[Space[Any]]) -> Tuple:
    return Tuple(tuple(spaces))


@concatenate.register(_Language)
def _concatenate(space: _Language[Any], items: Iterable[Any], out: Any) -> tuple[Any, ...]:
    return tuple(items)


@create_empty_array.register(_Language)
def _create_empty(space: _Language[Any], n: int = 1, fn: Any = None) -> tuple[Any, ...]:
    return (None,) * n


@iterate.register(_Language)
def _iterate(space: _Language[Any], items: Iterable[Any]) -> Iterator[Any]:
    return iter(items)


_NO_SHARED_MEMORY = (
    "text has no fixed size, so it cannot live in shared memory: use gymnasium.make_vec(id, n), which waits for all "
    'environments on one event loop, or vectorization_mode="async" with vector_kwargs={"shared_memory": False}'
)


@create_shared_memory.register(_Language)
def _refuse_shared(space: _Language[Any], n: int = 1, ctx: Any = None) -> Any:
    raise CustomSpaceError(_NO_SHARED_MEMORY)


@read_from_shared_memory.register(_Language)
def _refuse_reading(space: _Language[Any], shared_memory: Any, n: int = 1) -> Any:
    raise CustomSpaceError(_NO_SHARED_MEMORY)


def _twin(space: _Language[Any], seed: int) -> Any:
    if isinstance(space, Turn):
        return Turn(space.tools, seed=seed)
    if isinstance(space, Audio):
        return Audio(space.sampling_rate, space.max_seconds, seed=seed)
    return type(space)(seed=seed)
