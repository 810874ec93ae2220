"""Spaces for language: what an environment says (`ChatSpace`) and what a policy does (`TurnSpace`).

Gymnasium's Text space holds a fixed character set and a bounded length; these hold any Unicode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector.utils import batch_differing_spaces

from ..messages import Message, ToolCall, ToolSchema, Turn

Observation = tuple[Message, ...]

# Scripts, combining marks, an astral character and control-token look-alikes: what real users send.
_ALPHABET = [*"abcdefghij 0123456789+-=?.,\n", "é", "ü", "数", "学", "ع", "न", "🦢", "ß", "<|im_end|>", "</think>"]


def _random_text(rng: np.random.Generator, longest: int = 24) -> str:
    return "".join(_ALPHABET[i] for i in rng.integers(len(_ALPHABET), size=rng.integers(1, longest)))


class ChatSpace(Space[Observation]):
    """Tuples of messages: the delta that an environment adds to the conversation."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def sample(self, mask: Any = None, probability: Any = None) -> Observation:
        count = int(self.np_random.integers(1, 3))
        return tuple(Message("user", _random_text(self.np_random)) for _ in range(count))

    def contains(self, x: Any) -> bool:
        return isinstance(x, tuple) and all(isinstance(message, Message) for message in x)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __repr__(self) -> str:
        return "ChatSpace()"


class TurnSpace(Space[Turn]):
    """Turns: an answer, perhaps reasoning, perhaps calls of the environment's tools."""

    def __init__(self, tools: Sequence[ToolSchema] = (), seed: int | np.random.Generator | None = None) -> None:
        self.tools = tuple(tools)
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def sample(self, mask: Any = None, probability: Any = None) -> Turn:
        rng = self.np_random
        calls: tuple[ToolCall, ...] = ()
        if self.tools and rng.random() < 0.5:
            schema = self.tools[int(rng.integers(len(self.tools)))]
            properties = schema.parameters.get("properties", {})
            calls = (ToolCall(schema.name, {key: _random_text(rng) for key in properties}),)
        reasoning = _random_text(rng) if rng.random() < 0.5 else None
        return Turn("" if calls else _random_text(rng), reasoning=reasoning, tool_calls=calls)

    def contains(self, x: Any) -> bool:
        return isinstance(x, (Turn, str))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TurnSpace) and self.tools == other.tools

    def __repr__(self) -> str:
        return f"TurnSpace(tools=[{', '.join(schema.name for schema in self.tools)}])"


@batch_differing_spaces.register(ChatSpace)
@batch_differing_spaces.register(TurnSpace)
def _batch_differing(spaces: list[Space[Any]]) -> Any:
    from gymnasium.spaces import Tuple

    return Tuple(tuple(spaces))
