"""The engine protocol: ids in, ids out.

    engine.session() --generate(request)--> result --generate(request + result + new)--> result ... close()
    engine.generate(requests) --> (index, result) as they finish

A *session* is one conversation. Each of its requests carries the whole context; an engine that still holds the session's
state computes only what is new. A result tells what was sampled, under which distribution, by which weights, and which
tokens the engine forced to keep a reasoning budget. What every engine promises is tests/policies/test_engine_contract.py.
"""

# Shapes: L new context tokens and sampled tokens, n sampled tokens, S ids of a sampling support, E mixture-of-experts
# layers, K experts of a token.

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class StopReason(enum.Enum):
    STOP = "stop"
    """A stop token was sampled; it is the last of the ids."""
    LENGTH = "length"
    """max_new_tokens or the context's end was reached."""
    DEADLINE = "deadline"
    """The request's deadline passed; the ids are what there was by then, perhaps none."""


class PauseMode(enum.Enum):
    """What becomes of requests in flight when an engine pauses."""

    DRAIN = "drain"
    """They are finished first; new ones wait."""
    KEEP = "keep"
    """They stop where they are and go on with the state they have, whatever weights come in between."""
    RECOMPUTE = "recompute"
    """They stop where they are; states made by older weights are computed anew before they go on."""


class RequestError(ValueError):
    """A request that this engine cannot serve, with what would do. Nothing else is disturbed."""


class EngineStopped(RuntimeError):
    """The engine is not running: it was never started, was closed, or failed (then `__cause__` says why)."""


@dataclass(frozen=True, kw_only=True)
class ReasoningBudget:
    """At most `limit` reasoning tokens are sampled; from there the next end of a line or sentence, or `grace` more tokens,
    ends it."""

    limit: int
    grace: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0 or self.grace < 0:
            raise RequestError(
                f"a reasoning budget and its grace are token counts >= 0, got {self.limit}, {self.grace}"
            )


@dataclass(frozen=True, kw_only=True)
class MediaSpan:
    """Context positions that stand for a piece of audio or an image, known by the hash of its content."""

    offset: int
    length: int
    content_hash: str


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What to continue and how. `seed` is the request's own random stream; temperature 0 is greedy.

    With `top_k` or `top_p` the result carries each token's support: without it the log-probabilities could not be rescored.
    """

    token_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    """Sample among this many most likely tokens; 0: among all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together reach this probability."""
    seed: int = 0
    reasoning: bool = False
    """Whether reasoning is on: the context ends inside it, or the policy may begin it (the engine knows its chat format)."""
    budget: ReasoningBudget | None = None
    stop_ids: tuple[int, ...] | None = None
    """None: the engine's own; (): nothing but the length stops."""
    min_new_tokens: int = 0
    """Stop tokens have no probability before this many tokens."""
    deadline_s: float | None = None
    """Seconds from submission after which the request ends with what it has."""
    media: tuple[MediaSpan, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.token_ids):
            raise RequestError("a request needs at least one context token")
        if self.max_new_tokens < 1 or not 0 <= self.temperature < math.inf:
            raise RequestError(
                f"max_new_tokens is at least 1 and temperature finite and >= 0, got {self.max_new_tokens} and "
                f"{self.temperature}"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise RequestError(f"top_k is >= 0 and top_p in (0, 1], got {self.top_k} and {self.top_p}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise RequestError(
                f"min_new_tokens is between 0 and max_new_tokens ({self.max_new_tokens}), got {self.min_new_tokens}"
            )
        if self.min_new_tokens and self.stop_ids == ():
            raise RequestError("min_new_tokens keeps stop tokens back, and stop_ids=() says that there are none")
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise RequestError(f"deadline_s is a positive number of seconds, got {self.deadline_s}")
        if self.budget is not None and not self.reasoning:
            raise RequestError("a reasoning budget asks for reasoning=True: without it none would be counted")
        end = 0
        for span in self.media:
            if span.offset < end or span.length < 1 or span.offset + span.length > len(self.token_ids):
                raise RequestError(f"media spans lie in the context, in order and apart, got {span}")
            end = span.offset + span.length

    @property
    def full_support(self) -> bool:
        """Whether every token can be sampled."""
        return self.top_k == 0 and self.top_p == 1.0


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """What was generated. Arrays run along `token_ids`, except `routes`."""

    token_ids: list[int]
    logprobs: np.ndarray
    """Under the distribution that was sampled (temperature and support applied); 0 where greedy or forced."""
    forced: np.ndarray
    policy_versions: np.ndarray
    stop_reason: StopReason
    temperatures: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """The temperature of each token; empty: the request's."""
    support: np.ndarray | None = None
    """[n, S]: the ids that could be sampled at each token, -1 behind them; None: all."""
    budget_hit: bool = False
    num_reasoning_tokens: int = 0
    """Reasoning tokens that were sampled (forced ones not counted)."""
    routes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    """Experts chosen [L, E, K] at every position that this request computed, from `routes_start` on. The last sampled
    token has none yet: it is computed when the session goes on."""
    routes_start: int = 0
    media: tuple[MediaSpan, ...] = ()

    @staticmethod
    def empty(request: GenerationRequest, reason: StopReason) -> GenerationResult:
        """The result of a request that ended before its first token."""
        return GenerationResult(
            token_ids=[],
            logprobs=np.zeros(0, np.float32),
            forced=np.zeros(0, bool),
            policy_versions=np.zeros(0, np.int32),
            stop_reason=reason,
            support=None if request.full_support else np.zeros((0, 0), np.int64),
            media=request.media,
        )


@dataclass
class EngineMetrics:
    """Running totals since the engine was made, and what it holds now."""

    requests: int = 0
    sampled_tokens: int = 0
    forced_tokens: int = 0
    prefill_tokens: int = 0
    """Context tokens that were computed."""
    shared_tokens: int = 0
    """Context tokens that another request's or an earlier turn's state spared."""
    decode_steps: int = 0
    decoded_rows: int = 0
    budgets_asked: int = 0
    budgets_hit: int = 0
    cancelled: int = 0
    deadlines: int = 0
    evicted: int = 0
    """Waiting sessions whose state was given up for room."""
    model_s: float = 0.0
    """Seconds inside the model, sampling included."""
    running: int = 0
    """Requests being decoded."""
    queued: int = 0
    """Requests that wait for room or for a prefill."""
    cache_bytes: int = 0
    """Bytes of cache in use."""

    def to_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self)


class Session(Protocol):
    """One conversation with an engine. Close it, or its state stays.

    `generate` raises RequestError for what the engine cannot serve, EngineStopped where it does not run. Cancelling the
    task that awaits it withdraws the request; `close` withdraws it too and gives the state back.
    """

    async def generate(self, request: GenerationRequest) -> GenerationResult: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """Anything that continues token ids. Used as `async with engine:`."""

    @property
    def policy_version(self) -> int: ...

    @property
    def capacity(self) -> int:
        """Tokens of one conversation, at most."""
        ...

    @property
    def metrics(self) -> EngineMetrics: ...

    async def __aenter__(self) -> Engine: ...

    async def __aexit__(self, *_: object) -> None: ...

    def session(self, order: tuple[int, ...] = ()) -> Session:
        """A new conversation. `order` is where it stands in the deterministic order of admission."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> AsyncIterator[tuple[int, GenerationResult]]:
        """Results as they finish, each with its request's index."""
        ...

    def load_weights(self, weights: Mapping[str, object] | None, version: int) -> None:
        """Take new weights, all or none (ValueError names what does not fit). None: they are already in place."""
        ...

    async def pause(self, mode: PauseMode = PauseMode.DRAIN) -> None:
        """Come to rest. Returns when nothing is computed any more."""
        ...

    def resume(self) -> None: ...


async def as_they_finish(
    engine: Engine, requests: Sequence[GenerationRequest]
) -> AsyncIterator[tuple[int, GenerationResult]]:
    """`Engine.generate` by a session for each request; what is left is withdrawn when the caller goes away."""
    sessions = [engine.session((index,)) for index in range(len(requests))]

    async def one(index: int) -> tuple[int, GenerationResult]:
        try:
            return index, await sessions[index].generate(requests[index])
        finally:
            sessions[index].close()

    tasks = [asyncio.ensure_future(one(index)) for index in range(len(requests))]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        for session in sessions:
            session.close()
