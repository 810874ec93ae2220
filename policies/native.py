"""NativeEngine: continuous batching of a hybrid policy on its recurrent cache.

    sessions --admit--> prefill (one for equal contexts) --> decode rows --stop--> results --> sessions

Rows of the cache are kept in three zones, [decoding | waiting | free], so that a decode step runs over the first rows in
place. A session keeps its row while its environment thinks; its next request pays for its new tokens alone. A row knows the
version of the weights that made it: after a weight update it is computed anew before it is used again.

In synchronous mode the engine moves only when every open session waits for it, and admits in their order: the sequence of
batches, and so every bit, depends on the requests alone.
"""

# Shapes: B decoding rows, S segments of a prefill, T capacity, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.packing import Packing
from .budget import BudgetRows, ReasoningTokens
from .cache import Cache
from .engine import GenerationRequest, GenerationResult, StopReason
from .hybrid import HybridModel
from .sampling import sample, uniforms

ROW_MULTIPLE = 16
"""Decode batches are padded to a multiple of this many rows: matrix products of other sizes differ in the last bits."""


@dataclass(eq=False)
class NativeSession:
    """One conversation on a NativeEngine."""

    engine: NativeEngine
    order: tuple[int, ...]
    number: int
    row: int | None = None
    cached: int = 0
    """How many of its tokens the row's state holds."""
    version: int = -1
    request: GenerationRequest | None = None
    future: asyncio.Future[GenerationResult] | None = None
    history: list[int] = field(default_factory=list)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        return await self.engine._submit(self, request)

    def close(self) -> None:
        self.engine._close(self)


class Rows:
    """What the engine records for each row of the cache, as arrays over [rows, capacity] or [rows]."""

    def __init__(self, num_rows: int, capacity: int, num_moe_layers: int, top_k: int) -> None:
        self.ids = np.zeros((num_rows, capacity), np.int64)
        self.logprobs = np.zeros((num_rows, capacity), np.float32)
        self.forced = np.zeros((num_rows, capacity), bool)
        self.versions = np.zeros((num_rows, capacity), np.int32)
        self.routes = np.zeros((num_rows, capacity, num_moe_layers, top_k), np.uint8)
        self.length = np.zeros(num_rows, np.int64)
        self.start = np.zeros(num_rows, np.int64)
        self.routes_start = np.zeros(num_rows, np.int64)
        self.end = np.zeros(num_rows, np.int64)
        self.temperature = np.ones(num_rows, np.float32)
        self.seed = np.zeros(num_rows, np.uint64)
        self.budget = BudgetRows(num_rows)

    def move(self, source: np.ndarray, target: np.ndarray) -> None:
        for array in (*vars(self).values(), *vars(self.budget).values()):
            if isinstance(array, np.ndarray):
                array[target] = array[source]


class NativeEngine:
    """Serves one HybridModel. Use as `async with NativeEngine(...) as engine`."""

    def __init__(
        self,
        model: HybridModel,
        *,
        stop_ids: Sequence[int],
        reasoning_tokens: ReasoningTokens,
        num_slots: int = 256,
        capacity: int = 512,
        synchronous: bool = True,
        prefill_tokens: int = 4096,
        wait_s: float = 300.0,
    ) -> None:
        self.model, self.policy_version = model, 0
        self.num_slots = -(-num_slots // ROW_MULTIPLE) * ROW_MULTIPLE
        self.capacity, self.synchronous = capacity, synchronous
        self.prefill_tokens, self.wait_s = prefill_tokens, wait_s
        self.stop_ids = np.array(stop_ids)
        self.reasoning_tokens = reasoning_tokens
        config = model.config
        self.cache = Cache(config, self.num_slots, capacity, dtype=model.lm_head.weight.dtype)
        self.rows = Rows(self.num_slots, capacity, config.num_moe_layers, config.experts_per_token)
        self.decoding: list[
            NativeSession
        ] = []  # the session of each row of the decoding zone, then of the waiting zone
        self.waiting: list[NativeSession] = []
        self.pending: list[NativeSession] = []
        self.open_sessions: set[NativeSession] = set()
        self.metrics = {
            "decode_steps": 0,
            "decoded_rows": 0,
            "sampled_tokens": 0,
            "prefill_tokens": 0,
            "shared_tokens": 0,
            "model_s": 0.0,
        }
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._numbers = 0

    async def __aenter__(self) -> NativeEngine:
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for session in list(self.open_sessions):
            session.close()

    # The protocol.

    def session(self, order: tuple[int, ...] = ()) -> NativeSession:
        self._numbers += 1
        session = NativeSession(self, order, self._numbers)
        self.open_sessions.add(session)
        return session

    async def generate(self, requests: Sequence[GenerationRequest]) -> AsyncIterator[tuple[int, GenerationResult]]:
        """Results as they finish, each with its request's index."""

        async def one(index: int, session: NativeSession) -> tuple[int, GenerationResult]:
            try:
                return index, await session.generate(requests[index])
            finally:
                session.close()

        sessions = [self.session((index,)) for index in range(len(requests))]
        for done in asyncio.as_completed([one(i, session) for i, session in enumerate(sessions)]):
            yield await done

    def load_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Take new weights. Rows made by older ones are computed anew before their next request; rows that are decoding
        go on with the state they have, and each token carries the version that sampled it."""
        if weights is not None and weights is not self.model:
            self.model.load_state_dict(dict(weights))
        self.policy_version = version

    # Sessions' side.

    async def _submit(self, session: NativeSession, request: GenerationRequest) -> GenerationResult:
        if self._task is None or self._task.done():
            if self._task is not None and not self._task.cancelled() and self._task.exception():
                raise RuntimeError("the engine stopped") from self._task.exception()
            raise RuntimeError("the engine is not running: use `async with engine:`")
        if session.request is not None:
            raise RuntimeError("a session takes one request at a time")
        length = len(request.token_ids)
        if length >= self.capacity:
            raise ValueError(f"a context of {length} tokens leaves no room in the engine's capacity of {self.capacity}")
        if not session.history == list(request.token_ids[: len(session.history)]):
            raise ValueError("a session's context may only grow: what was said before was changed; open a new session")
        session.request = request
        session.future = asyncio.get_running_loop().create_future()
        self.pending.append(session)
        self._changed.set()
        return await session.future

    def _close(self, session: NativeSession) -> None:
        if session not in self.open_sessions:
            return
        self.open_sessions.discard(session)
        if session in self.pending:
            self.pending.remove(session)
        if session.future is not None and not session.future.done():
            session.future.cancel()
        self._changed.set()

    # The engine's own loop.

    async def _run(self) -> None:
        try:
            while True:
                await self._until_ready()
                self._admit()
                if self.decoding:
                    self._step()
                if not self.synchronous:
                    await asyncio.sleep(0)
        except Exception as error:
            for session in self.open_sessions:
                if session.future is not None and not session.future.done():
                    session.future.set_exception(RuntimeError(f"the engine failed: {error!r}"))
            raise

    def _ready(self) -> bool:
        if not self.decoding and not self.pending:
            return False
        if self.synchronous:  # every open session waits for the engine
            return all(session.request is not None for session in self.open_sessions)
        return True

    async def _until_ready(self) -> None:
        while not self._ready():
            self._changed.clear()
            busy = bool(self.decoding or self.pending)
            try:
                await asyncio.wait_for(self._changed.wait(), self.wait_s if busy else None)
            except TimeoutError:
                outside = [s.order for s in self.open_sessions if s.request is None]
                raise TimeoutError(
                    f"the engine waited {self.wait_s:.0f} s for the environments of sessions {outside[:4]}"
                ) from None

    def _admit(self) -> None:
        """Move the rows so that closed sessions' rows are free and those of pending ones decode; prefill what is new."""
        closed = any(s not in self.open_sessions for s in (*self.decoding, *self.waiting))
        if not self.pending and not closed:
            return
        live = [s for s in self.decoding if s in self.open_sessions]
        idle = [s for s in self.waiting if s in self.open_sessions]
        room = self.num_slots - len(live) - len(idle)
        admitted: list[NativeSession] = []
        for session in sorted(self.pending, key=lambda s: (s.order, s.number)):
            if session.row is not None:
                idle.remove(session)
                admitted.append(session)
            elif room > 0:
                room -= 1
                admitted.append(session)
        self.pending = [s for s in self.pending if s not in set(admitted)]
        self._place([*live, *admitted], idle)
        self._prefill(admitted)

    def _place(self, decoding: list[NativeSession], waiting: list[NativeSession]) -> None:
        """Give each session a row of its zone, moving as few rows as can be."""
        rows: list[NativeSession | None] = [None] * self.num_slots
        for zone, first in ((decoding, 0), (waiting, len(decoding))):
            homeless = []
            for session in zone:
                if session.row is not None and first <= session.row < first + len(zone):
                    rows[session.row] = session
                else:
                    homeless.append(session)
            free = iter([r for r in range(first, first + len(zone)) if rows[r] is None])
            for session in homeless:
                rows[next(free)] = session
        moves = [(s.row, r) for r, s in enumerate(rows) if s is not None and s.row is not None and s.row != r]
        if moves:
            source, target = np.array(moves).T
            self.cache.copy(torch.from_numpy(source), torch.from_numpy(target))
            self.rows.move(source, target)
        for session in (*self.decoding, *self.waiting):
            session.row = None
        for row, session in enumerate(rows):
            if session is not None:
                session.row = row
        # What lies in the padding of a decode batch must not depend on earlier sessions: experts group all rows together.
        live = len(decoding) + len(waiting)
        self.cache.clear(torch.arange(live, min(live + ROW_MULTIPLE, self.num_slots)))
        self.decoding = [s for s in rows[: len(decoding)] if s is not None]
        self.waiting = [s for s in rows[len(decoding) : len(decoding) + len(waiting)] if s is not None]

    def _prefill(self, admitted: list[NativeSession]) -> None:
        """Compute all but the last token of each context; equal contexts of fresh sessions are computed once."""
        leaders: dict[tuple[int, ...], NativeSession] = {}
        followers: list[tuple[NativeSession, NativeSession]] = []
        todo: list[NativeSession] = []
        fresh: list[int] = []
        for session in admitted:
            assert session.request is not None and session.row is not None
            if session.version != self.policy_version or session.cached == 0:
                session.cached, session.version = 0, self.policy_version
                fresh.append(session.row)
            self._begin(session, session.request)
            context = tuple(session.request.token_ids[:-1])
            if session.cached == 0 and context in leaders:
                followers.append((leaders[context], session))
            elif len(context) > session.cached:
                if session.cached == 0:
                    leaders[context] = session
                todo.append(session)
        if fresh:
            self.cache.clear(torch.tensor(fresh))
        while todo:
            batch, total = [], 0
            while todo and (not batch or total + self._missing(todo[0]) <= self.prefill_tokens):
                total += self._missing(todo[0])
                batch.append(todo.pop(0))
            self._prefill_batch(batch)
        if followers:
            source = np.array([leader.row for leader, _ in followers])
            target = np.array([follower.row for _, follower in followers])
            self.cache.copy(torch.from_numpy(source), torch.from_numpy(target))
            self.rows.routes[target] = self.rows.routes[source]
            for leader, follower in followers:
                follower.cached = leader.cached
                self.metrics["shared_tokens"] += leader.cached

    def _missing(self, session: NativeSession) -> int:
        assert session.request is not None
        return len(session.request.token_ids) - 1 - session.cached

    @torch.inference_mode()
    def _prefill_batch(self, batch: list[NativeSession]) -> None:
        pieces = [list(s.request.token_ids[s.cached : -1]) for s in batch if s.request is not None]
        slots_S = torch.tensor([s.row for s in batch])
        packing = Packing.build(
            [len(piece) for piece in pieces],
            chunk_size=self.model.config.chunk_size,
            conv_kernel=self.model.config.conv_kernel,
            num_buckets=0,
        )
        ids_N = torch.tensor([token for piece in pieces for token in piece])
        began = time.perf_counter()
        _, routes_NEK = self.model(ids_N, packing, cache=self.cache, slots_S=slots_S)
        self.metrics["model_s"] += time.perf_counter() - began
        routes, at = routes_NEK.numpy().astype(np.uint8), 0
        for session, piece in zip(batch, pieces, strict=True):
            self.rows.routes[session.row, session.cached : session.cached + len(piece)] = routes[at : at + len(piece)]
            session.cached += len(piece)
            at += len(piece)
        self.metrics["prefill_tokens"] += at

    def _begin(self, session: NativeSession, request: GenerationRequest) -> None:
        row, rows, length = session.row, self.rows, len(request.token_ids)
        rows.ids[row, :length] = request.token_ids
        rows.length[row] = rows.start[row] = length
        rows.routes_start[row] = session.cached
        rows.end[row] = min(self.capacity, length + request.max_new_tokens)
        rows.temperature[row] = request.temperature
        rows.seed[row] = request.seed
        rows.budget.begin(row, request.reasoning, request.budget)

    @torch.inference_mode()
    def _step(self) -> None:
        """One token for every decoding row."""
        began = time.perf_counter()
        rows, B = self.rows, len(self.decoding)
        padded = min(self.num_slots, -(-B // ROW_MULTIPLE) * ROW_MULTIPLE)
        spare = self._spare(B, padded)
        row_B, at_B = np.arange(B), rows.length[:B]
        ids_B = np.zeros(padded, np.int64)
        ids_B[:B] = last_B = rows.ids[row_B, at_B - 1]
        hidden_Bd, routes_BEK = self.model.step(torch.from_numpy(ids_B), self.cache)
        self._restore(spare, B, padded)
        u_B = np.zeros(padded)
        u_B[:B] = uniforms(rows.seed[:B], at_B - rows.start[:B])
        temperature_B = torch.from_numpy(rows.temperature[:padded])
        sampled_B, logprobs_B = sample(self.model.logits(hidden_Bd), temperature_B, torch.from_numpy(u_B))
        self.metrics["model_s"] += time.perf_counter() - began
        tokens_B, forced_B = rows.budget.apply(sampled_B.numpy()[:B], last_B, self.reasoning_tokens)
        rows.ids[row_B, at_B] = tokens_B
        rows.logprobs[row_B, at_B] = np.where(forced_B, 0.0, logprobs_B.numpy()[:B])
        rows.forced[row_B, at_B] = forced_B
        rows.versions[row_B, at_B] = self.policy_version
        rows.routes[row_B, at_B - 1] = routes_BEK.numpy()[:B]
        rows.length[:B] += 1
        stopped_B = np.isin(tokens_B, self.stop_ids)
        ended_B = stopped_B | (rows.length[:B] >= rows.end[:B])
        self.metrics["decode_steps"] += 1
        self.metrics["decoded_rows"] += B
        self.metrics["sampled_tokens"] += int(B - forced_B.sum())
        if ended_B.any():
            self._finish(np.flatnonzero(ended_B), stopped_B)

    def _spare(self, B: int, padded: int) -> list[tuple[Tensor, Tensor]]:
        """Padding rows may belong to waiting sessions: keep what the step would change there."""
        if padded == B or not self.waiting:
            return []
        kept = [(self.cache.lengths_B, self.cache.lengths_B[B:padded].clone())]
        for layer in self.cache.layers:
            if layer is not None and hasattr(layer, "state_BHPN"):
                kept += [(tensor, tensor[B:padded].clone()) for tensor in layer.tensors()]
        return kept

    def _restore(self, spare: list[tuple[Tensor, Tensor]], B: int, padded: int) -> None:
        """Keys beyond a row's length are never seen, so lengths and Mamba states are all there is to restore."""
        self.cache.lengths_B[B:padded] = 0
        for tensor, kept in spare:
            tensor[B:padded] = kept

    def _finish(self, ended: np.ndarray, stopped_B: np.ndarray) -> None:
        rows = self.rows
        finished = [self.decoding[row] for row in ended]
        for session, row in zip(finished, ended, strict=True):
            start, end = int(rows.start[row]), int(rows.length[row])
            result = GenerationResult(
                token_ids=rows.ids[row, start:end].tolist(),
                logprobs=rows.logprobs[row, start:end].copy(),
                forced=rows.forced[row, start:end].copy(),
                policy_versions=rows.versions[row, start:end].copy(),
                stop_reason=StopReason.STOP if stopped_B[row] else StopReason.LENGTH,
                budget_hit=bool(rows.budget.hit[row]),
                num_reasoning_tokens=int(rows.budget.used[row]),
                routes=rows.routes[row, int(rows.routes_start[row]) : end - 1].copy(),
                routes_start=int(rows.routes_start[row]),
            )
            session.cached = end - 1
            session.history = rows.ids[row, :end].tolist()
            session.request = None
            if session.future is not None and not session.future.done():
                session.future.set_result(result)
        gone = set(finished)
        self._place([s for s in self.decoding if s not in gone], [*self.waiting, *finished])
