"""A session of a BatchingEngine: one conversation, its request in flight, and its part of the cache."""

from __future__ import annotations

import asyncio
import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .engine import GenerationRequest, GenerationResult, MediaSpan, RequestError
from .residence import Resident

if TYPE_CHECKING:
    from .batching import BatchingEngine


class Stage(enum.Enum):
    IDLE = "idle"
    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"
    """Its last token is sampled; the result is being made."""


@dataclass(eq=False)
class Housed(Resident):
    """A resident that knows its session."""

    session: Conversation = field(kw_only=True)


class Conversation:
    """One conversation on a BatchingEngine."""

    def __init__(self, engine: BatchingEngine, order: tuple[int, ...], number: int) -> None:
        self.engine, self.order, self.number = engine, order, number
        self.resident = Housed(session=self)
        self.stage = Stage.IDLE
        self.request: GenerationRequest | None = None
        self.ids = np.zeros(0, np.int64)
        """The context of the request in flight."""
        self.history = np.zeros(0, np.int64)
        """All that was said: the next context begins with it."""
        self.media: tuple[MediaSpan, ...] = ()
        self.target = 0
        """How many tokens the prefill computes: all but the last."""
        self.ticket = 0
        """When its latest request came, among all."""
        self.deadline = math.inf
        self.idle_since = 0.0
        self.closed = False
        self.shares = False
        self.key: object = None
        """Contexts of one key are computed once."""
        self._future: asyncio.Future[GenerationResult] | None = None

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        self.engine._check_running()
        if self.closed:
            raise RuntimeError("this session was closed; open a new one")
        if self.stage is not Stage.IDLE:
            raise RuntimeError("a session takes one request at a time")
        self.ids = self._checked(request)
        self.request = request
        if len(self.history):
            self.goes_alone()
        else:
            self.shares, self.key = True, (self.ids[:-1].tobytes(), request.media)
        self.deadline = math.inf if request.deadline_s is None else self.engine.now() + request.deadline_s
        self._future = asyncio.get_running_loop().create_future()
        self.engine.submit(self, request, self.ids)
        self.stage = Stage.QUEUED
        try:
            return await self._future
        except asyncio.CancelledError:
            self.engine.withdraw(self)
            raise

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.engine.withdraw(self)
        if self._future is not None and not self._future.done():
            self._future.cancel()
        self.engine.forget(self)

    def goes_alone(self) -> None:
        """Its context is no other's: it neither waits for one that computes the same nor leaves a prefix."""
        self.shares, self.key = False, object()

    def finish(self, result: GenerationResult, history: np.ndarray) -> None:
        assert self.request is not None
        self.history, self.media, self.idle_since = history, self.request.media, self.engine.now()
        self.request = None
        if self._future is not None and not self._future.done():
            self._future.set_result(result)

    def fail(self, error: Exception) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)

    def _checked(self, request: GenerationRequest) -> np.ndarray:
        """The request's context. RequestError where this engine cannot serve it."""
        engine = self.engine
        ids = np.array(request.token_ids)
        vocab_size, page_size = engine.decoder.vocab_size, engine.decoder.page_size
        if ids.dtype.kind not in "iu" or ids.ndim != 1:
            raise RequestError(f"token_ids are integers, got {ids.dtype} of shape {ids.shape}")
        if len(bad := np.flatnonzero((ids < 0) | (ids >= vocab_size))):
            raise RequestError(f"id {ids[bad[0]]} at {bad[0]} is outside the vocabulary of {vocab_size} tokens")
        if outside := [i for i in request.stop_ids or () if not 0 <= i < vocab_size]:
            raise RequestError(f"stop id {outside[0]} is outside the vocabulary of {vocab_size} tokens")
        if len(ids) >= engine.capacity:
            raise RequestError(
                f"a context of {len(ids)} tokens leaves no room in the engine's capacity of {engine.capacity}"
            )
        pages = -(-min(engine.capacity, len(ids) + request.max_new_tokens) // page_size)
        if pages > engine.decoder.num_pages:
            raise RequestError(
                f"{len(ids)} tokens and {request.max_new_tokens} new ones need {pages} pages of cache, there are "
                f"{engine.decoder.num_pages}: ask for fewer or raise cache_bytes"
            )
        if request.reasoning and request.budget is not None and engine.reasoning_tokens is None:
            raise RequestError("this policy's chat format has no reasoning to keep a budget of; leave budget out")
        changed = request.media[: len(self.media)] != self.media
        if changed or not np.array_equal(self.history, ids[: len(self.history)]):
            raise RequestError(
                "a session's context may only grow: what was said before was changed; open a new session"
            )
        return ids.astype(np.int64)
