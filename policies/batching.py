"""BatchingEngine: continuous batching of any Decoder.

    sessions --submit--> queue --house--> prefill --> decode rows --stop--> results --> sessions

Requests join and leave at every step. A context is computed once for all that begin alike; a session keeps its state while its
environment thinks, so its next request pays for its new tokens alone. Long prompts are computed in pieces between the steps of
the others. A state knows the weights that made it: after an update it is computed anew before another request uses it.

In synchronous mode the engine moves only when every open session waits for it, and admits in their order: the sequence of
batches, and so every bit, depends on the requests alone.
"""

# Shapes: B decoding conversations.

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from .admission import Admission
from .budget import ReasoningTokens
from .conversation import Conversation, Housed, Stage
from .decoder import Decoder
from .engine import (
    EngineMetrics,
    EngineStopped,
    GenerationRequest,
    GenerationResult,
    PauseMode,
    StopReason,
    as_they_finish,
)
from .prefill import Prefill
from .records import Records
from .residence import Residence
from .sampling import sample


class BatchingEngine:
    """Serves one Decoder. Use as `async with engine:`."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        stop_ids: Sequence[int],
        reasoning_tokens: ReasoningTokens | None,
        num_slots: int,
        capacity: int,
        synchronous: bool,
        prefill_tokens: int = 4096,
        wait_s: float = 300.0,
    ) -> None:
        self.decoder, self.capacity, self.num_slots = decoder, capacity, num_slots
        self.policy_version, self.epoch = 0, 0
        self.synchronous, self.wait_s = synchronous, wait_s
        self.stop_ids = np.array(stop_ids, np.int64)
        self._stops = np.zeros(decoder.vocab_size, bool)
        self._stops[self.stop_ids] = True
        self.reasoning_tokens = reasoning_tokens
        self.records = Records(num_slots, capacity, decoder.route_shape, decoder.num_experts)
        self.residence: Residence[Housed] = Residence(decoder, self.records, num_slots, capacity)
        self.sessions: set[Conversation] = set()
        self._metrics = EngineMetrics()
        self.admission = Admission(
            self.residence, self._metrics, num_slots=num_slots, capacity=capacity, synchronous=synchronous
        )
        self.prefill = Prefill(
            self.residence, self._metrics, num_slots=num_slots, num_tokens=prefill_tokens, all_at_once=synchronous
        )
        self._changed, self._rested = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._paused: PauseMode | None = None
        self._numbers = self._tickets = self._deadlines = 0

    async def __aenter__(self) -> Self:
        self._changed, self._rested = asyncio.Event(), asyncio.Event()
        self._failure = None
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._task
        self._task = None
        self._rested.set()
        self._fail(EngineStopped("the engine was closed while this request ran"))
        for session in list(self.sessions):
            session.close()

    # The protocol.

    def session(self, order: tuple[int, ...] = ()) -> Conversation:
        self._numbers += 1
        session = Conversation(self, order, self._numbers)
        self.sessions.add(session)
        return session

    def generate(self, requests: Sequence[GenerationRequest]) -> AsyncIterator[tuple[int, GenerationResult]]:
        return as_they_finish(self, requests)

    def load_weights(self, weights: Mapping[str, Any] | None, version: int) -> None:
        """Take new weights, all or none. Requests that are being decoded go on with the state they have (each token carries
        the version that sampled it); every other state is computed anew before it is used."""
        if weights is not None:
            self.decoder.load_weights(weights)
        self.policy_version = version
        self.epoch += 1
        self.residence.prefixes.drop_all()
        # States that nothing was sampled from yet: a first token carries the version of all that it stands on.
        for session in self.prefill.sessions:
            self.prefill.begin_anew(session, self.epoch)
        self._compute_anew([s for s in self.decoding if not self.records.has_sampled(s.resident.place)])

    async def pause(self, mode: PauseMode = PauseMode.DRAIN) -> None:
        self._check_running()
        self._paused = mode
        self._rested.clear()
        self._changed.set()
        if mode is PauseMode.DRAIN and self._num_working:
            await self._rested.wait()

    def resume(self) -> None:
        if self._paused is PauseMode.RECOMPUTE:
            self._compute_anew([s for s in self.decoding if s.resident.epoch != self.epoch])
        self._paused = None
        self._changed.set()

    def _compute_anew(self, sessions: Sequence[Conversation]) -> None:
        """Take conversations from decoding back to prefill, for states of the present weights."""
        self.residence.stop([session.resident for session in sessions])
        for session in sessions:
            session.stage = Stage.PREFILL
            self.prefill.add_anew(session, self.epoch)

    @property
    def metrics(self) -> EngineMetrics:
        held = {page for s in self.sessions for page in s.resident.pages}
        housed = sum(s.resident.housed for s in self.sessions)
        now = self._metrics
        now.running, now.queued = self.residence.num_decoding, len(self.admission) + len(self.prefill)
        now.cache_bytes = len(held) * self.decoder.page_bytes + housed * self.decoder.row_bytes
        return now

    # Conversations' side.

    def now(self) -> float:
        """By the clock of the event loop, which a simulation may own."""
        return asyncio.get_running_loop().time()

    def submit(self, session: Conversation, request: GenerationRequest, ids: np.ndarray) -> None:
        self._tickets += 1
        session.ticket = self._tickets
        self._metrics.requests += 1
        self._metrics.budgets_asked += request.budget is not None
        self._deadlines += request.deadline_s is not None
        self._enqueue(session)

    def _enqueue(self, session: Conversation) -> None:
        self.admission.add(session)
        self._changed.set()

    def withdraw(self, session: Conversation) -> None:
        """Take a request back, whatever its stage; the state that it was changing is given up."""
        if session.stage is Stage.IDLE:
            return
        self._metrics.cancelled += 1
        self._leave(session)
        self.residence.evict(session.resident)
        self._changed.set()

    def forget(self, session: Conversation) -> None:
        """A session was closed."""
        self.residence.evict(session.resident)
        self.sessions.discard(session)
        if self.synchronous and not self.sessions:  # what comes next must not depend on what was before
            self.residence.prefixes.drop_all()
        self._changed.set()

    def _leave(self, session: Conversation) -> None:
        """Out of the stage it is in, to idle."""
        if session.stage is Stage.QUEUED:
            self.admission.remove(session)
        elif session.stage is Stage.PREFILL:
            self.prefill.remove(session)
        elif session.stage is Stage.DECODE:
            self.residence.stop([session.resident])
        assert session.request is not None
        self._deadlines -= session.request.deadline_s is not None
        session.stage = Stage.IDLE

    @property
    def decoding(self) -> list[Conversation]:
        rows = self.residence.at[: self.residence.num_decoding]
        return [resident.session for resident in rows if resident is not None]

    def _check_running(self) -> None:
        if self._failure is not None:
            raise EngineStopped(f"the engine failed: {self._failure!r}") from self._failure
        if self._task is None or self._task.done():
            raise EngineStopped("the engine is not running: use `async with engine:`")

    def _fail(self, error: EngineStopped) -> None:
        for session in list(self.sessions):
            if session.stage is not Stage.IDLE:
                self._leave(session)
                session.fail(error)

    # The engine's own loop.

    async def _run(self) -> None:
        try:
            while True:
                await self._until_ready()
                self._end_late()
                self._admit()
                self._arrive(self.prefill.advance())
                await self._pace()
                if not self._ready():  # somebody left or paused meanwhile
                    continue
                if self.residence.num_decoding:
                    self._step()
                elif self.admission and not self.prefill:  # no room: somebody comes back, or makes it
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self.admission.idle_patience_s):
                            await self._changed.wait()
        except Exception as error:
            self._failure = error
            stopped = EngineStopped(f"the engine failed: {error!r}")
            stopped.__cause__ = error
            self._fail(stopped)
            self._rested.set()

    def _ready(self) -> bool:
        working = self._num_working > 0
        if self._paused is not None:
            return self._paused is PauseMode.DRAIN and working
        queued = len(self.admission)
        wanted = working or queued > 0
        if self.synchronous and self._num_working + queued < len(self.sessions):  # some do not wait for the engine?
            return wanted and all(s.stage is not Stage.IDLE for s in self.sessions)
        return wanted

    async def _until_ready(self) -> None:
        while not self._ready():
            if self._paused is PauseMode.DRAIN:
                self._rested.set()
            self._end_late()
            self._changed.clear()
            try:
                async with asyncio.timeout(self._patience()):  # wait_for may lose a cancellation (Python 3.11)
                    await self._changed.wait()
            except TimeoutError:
                if self._deadlines or self._paused is not None:
                    continue
                outside = [s.order for s in self.sessions if s.stage is Stage.IDLE]
                raise TimeoutError(
                    f"the engine waited {self.wait_s:.0f} s for the environments of sessions {outside[:4]}"
                ) from None

    def _patience(self) -> float | None:
        """How long to wait for a change: to the next deadline, or as long as waiting for environments may take."""
        waiting = [s.deadline for s in self.sessions if s.stage is not Stage.IDLE]
        if not waiting:
            return None
        return min(max(min(waiting) - self.now(), 0.0), self.wait_s) + 1e-3

    def _end_late(self) -> None:
        if not self._deadlines:
            return
        now = self.now()
        for session in [s for s in self.sessions if s.stage is not Stage.IDLE and s.deadline <= now]:
            self._metrics.deadlines += 1
            self._finish(session, StopReason.DEADLINE)

    def _admit(self) -> None:
        """House queued requests while there is room."""
        if self._paused is not None:
            return
        for session, cached in self.admission.house(self.sessions, self._num_working, self.epoch):
            assert session.request is not None
            place = session.resident.place
            self.records.begin(place, session.request, session.ids, self.reasoning_tokens)
            self.records.routes_start[place] = cached
            session.stage = Stage.PREFILL
            self.prefill.add(session)

    def _arrive(self, sessions: Sequence[Conversation]) -> None:
        """Contexts are whole: their conversations decode."""
        for session in sessions:
            session.stage = Stage.DECODE
        self.residence.start(session.resident for session in sessions)

    @property
    def _num_working(self) -> int:
        return len(self.prefill) + self.residence.num_decoding

    # Decoding.

    @torch.inference_mode()
    def _step(self) -> None:
        """One token for every decoding row."""
        began = time.perf_counter()
        records, B = self.records, self.residence.num_decoding
        places_B = self.residence.places[:B].copy()
        lengths_B = records.length[places_B]
        pages_B = self.residence.num_pages[places_B]
        for row in np.flatnonzero(lengths_B > pages_B * self.decoder.page_size):
            resident = self.residence.at[row]
            assert resident is not None
            self.residence.grow(resident, int(lengths_B[row]))
        last_B = records.ids[places_B, lengths_B - 1]
        logits, routes_BEK = self.decoder.step(last_B, self.residence.tables[places_B], lengths_B)
        sampled_B, logprobs_B, support_BS = self._sample(logits, places_B)
        self._metrics.model_s += time.perf_counter() - began
        tokens_B, forced_B = sampled_B, np.zeros(B, bool)
        if self.reasoning_tokens is not None:
            tokens_B, forced_B = records.budget.apply(places_B, sampled_B, last_B, self.reasoning_tokens)
        records.write(places_B, tokens_B, logprobs_B, forced_B, self.policy_version, routes_BEK, support_BS)
        forced = int(forced_B.sum())
        self._metrics.decode_steps += 1
        self._metrics.decoded_rows += B
        self._metrics.sampled_tokens += B - forced
        self._metrics.forced_tokens += forced
        stopped_B = records.stopped(places_B, tokens_B, self._stops)
        ended_B = stopped_B | (records.length[places_B] >= records.end[places_B])
        if ended_B.any():
            ended = [(self._at(row), bool(stopped_B[row])) for row in np.flatnonzero(ended_B).tolist()]
            self.residence.stop([session.resident for session, _ in ended])
            for session, stopped in ended:
                session.stage = Stage.ENDED
                self._finish(session, StopReason.STOP if stopped else StopReason.LENGTH)

    def _sample(self, logits: torch.Tensor, places_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The next token of each conversation, its log-probability, and its support where one was asked for."""
        records, B = self.records, len(places_B)
        temperature, u = np.ones(len(logits), np.float32), np.zeros(len(logits))
        temperature[:B], u[:B] = records.temperature[places_B], records.uniforms(places_B)
        on_device = lambda array: torch.from_numpy(array).to(logits.device)  # noqa: E731
        warp = records.warp(places_B, self.stop_ids, logits)
        ids, logprobs, support = sample(logits, on_device(temperature), on_device(u), warp)
        support_BS = None if support is None else support[:B].cpu().numpy()
        return ids[:B].cpu().numpy(), logprobs[:B].cpu().numpy(), support_BS

    async def _pace(self) -> None:
        """Before a step: let the environments run."""
        if not self.synchronous:
            await asyncio.sleep(0)

    def _at(self, row: int) -> Conversation:
        resident = self.residence.at[row]
        assert resident is not None
        return resident.session

    def _finish(self, session: Conversation, reason: StopReason) -> None:
        request, resident = session.request, session.resident
        assert request is not None
        partial = session.stage in (Stage.QUEUED, Stage.PREFILL)
        self._leave(session)
        place = resident.place
        if partial and not (resident.housed and self.records.length[place] > len(session.ids)):
            session.finish(GenerationResult.empty(request, reason), session.ids)
            self.residence.evict(resident)  # what it holds may be part of a context
            return
        result = self.records.result(place, request, reason)
        self._metrics.budgets_hit += result.budget_hit
        length = int(self.records.length[place])
        ids = self.records.ids[place, :length].copy()
        if partial:
            self.residence.evict(resident)
        else:
            resident.cached = length - 1
            self.residence.unpromise(resident)
        session.finish(result, ids)
