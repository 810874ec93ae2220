"""The engine protocol: ids in, ids out.

A *session* is one conversation. Each of its requests carries the whole context; an engine that still holds the session's
state computes only what is new. A result tells what was sampled, under which distribution, by which weights, and which
tokens the engine forced to keep a reasoning budget.
"""

# Shapes: L new context tokens and sampled tokens, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class StopReason(enum.Enum):
    STOP = "stop"
    """A stop token was sampled; it is the last of the ids."""
    LENGTH = "length"
    """max_new_tokens or the context's end was reached."""


@dataclass(frozen=True, kw_only=True)
class ReasoningBudget:
    """At most `limit` reasoning tokens are sampled; from there the next newline, or `grace` more tokens, ends it."""

    limit: int
    grace: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0 or self.grace < 0:
            raise ValueError(f"a reasoning budget and its grace are token counts >= 0, got {self.limit}, {self.grace}")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What to continue and how. `seed` is the request's own random stream; temperature 0 is greedy."""

    token_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0
    reasoning: bool = False
    """Whether the context ends inside reasoning."""
    budget: ReasoningBudget | None = None

    def __post_init__(self) -> None:
        if not len(self.token_ids):
            raise ValueError("a request needs at least one context token")
        if self.max_new_tokens < 1 or not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"max_new_tokens is at least 1 and temperature finite and >= 0, got {self.max_new_tokens} and "
                f"{self.temperature}"
            )


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """What was generated. Arrays run along `token_ids`, except `routes`."""

    token_ids: list[int]
    logprobs: np.ndarray
    """Under the distribution that was sampled (temperature applied); 0 where greedy or forced."""
    forced: np.ndarray
    policy_versions: np.ndarray
    stop_reason: StopReason
    budget_hit: bool = False
    num_reasoning_tokens: int = 0
    """Reasoning tokens that were sampled (forced ones not counted)."""
    routes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    """Experts chosen [L, E, K] at every position that this request computed, from `routes_start` on. The last sampled
    token has none yet: it is computed when the session goes on."""
    routes_start: int = 0


class Session(Protocol):
    """One conversation with an engine. Close it, or its state stays."""

    async def generate(self, request: GenerationRequest) -> GenerationResult: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """Anything that continues token ids. `order` is where a session stands in the deterministic order of admission."""

    policy_version: int
    capacity: int
    """Tokens of one conversation, at most."""

    def session(self, order: tuple[int, ...] = ()) -> Session: ...

    def generate(self, requests: Sequence[GenerationRequest]) -> AsyncIterator[tuple[int, GenerationResult]]: ...

    def load_weights(self, weights: Mapping[str, object], version: int) -> None: ...
