"""SimulatedEngine: an engine without a network, for benchmarks and chaos tests of what stands around it.

Completions come from a table of bigrams, or from a script; their lengths from a distribution or a trace; time passes as a real
engine's would. The scheduler, budgets, pauses and deadlines are the real ones, and log-probabilities are true numbers. Under
`virtual_time` hours of simulated rollouts take seconds, the same each time. Faults happen on demand.
"""

# Shapes: B decoding conversations, V vocabulary.

from __future__ import annotations

import asyncio
import csv
import math
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from .batching import BatchingEngine
from .budget import ReasoningTokens
from .conversation import Conversation, Stage
from .decoder import Piece
from .engine import GenerationRequest
from .sampling import stream_seed, uniforms
from .weights import copy_weights

T = TypeVar("T")
Script = Callable[[Sequence[int], GenerationRequest], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds that things take: a decode step of n conversations step_s + n * row_s, a context token prefill_token_s."""

    step_s: float = 0.0
    row_s: float = 0.0
    prefill_token_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LogNormal:
    """Lengths exp(N(log(median), sigma)), at least 1, drawn by each request's seed."""

    median: float
    sigma: float

    def length(self, request: GenerationRequest, number: int) -> int:
        one, two = uniforms(np.array([request.seed % 2**64], np.uint64).repeat(2), np.array([2**40, 2**40 + 1]))
        normal = math.sqrt(-2 * math.log(1 - one)) * math.cos(2 * math.pi * two)  # Box and Muller
        return max(1, round(self.median * math.exp(self.sigma * normal)))


@dataclass(frozen=True)
class Trace:
    """Lengths in the order of requests, again from the beginning when all are used."""

    lengths: Sequence[int]

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError("a trace holds at least one length, each at least 1")

    @staticmethod
    def read(path: Path, column: str = "length") -> Trace:
        """A CSV file's column. ValueError names the row that is no length."""
        lengths = []
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                if not (row.get(column) or "").isdecimal() or int(row[column]) < 1:
                    raise ValueError(
                        f"{path}, row {number}: {column} is a count of at least 1, got {row.get(column)!r}"
                    )
                lengths.append(int(row[column]))
        return Trace(lengths)

    def length(self, request: GenerationRequest, number: int) -> int:
        return self.lengths[number % len(self.lengths)]


class InjectedFault(RuntimeError):
    """A fault that was asked for."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong: with the share `share` of requests (drawn by their seeds), or at the request or step of number `at`.

    dies: the engine stops at decode step `at`; raises: a request raises InjectedFault; hangs: a request is never served (give
    it a deadline); slow: a request begins `delay_s` late.
    """

    kind: Literal["dies", "raises", "hangs", "slow"]
    at: int | None = None
    share: float = 0.0
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind == "dies" and self.at is None:
            raise ValueError("an engine dies at a step: Fault(kind='dies', at=100)")
        if not 0 <= self.share <= 1 or (self.at is None) is (self.share == 0):
            raise ValueError(f"a fault has a number `at` or a share in (0, 1], got at={self.at}, share={self.share}")

    def strikes(self, request: GenerationRequest, number: int) -> bool:
        if self.at is not None:
            return number == self.at
        return stream_seed("fault", self.kind, request.seed) / 2**64 < self.share


class BigramDecoder:
    """A policy whose next token depends on the last one alone. Weights: {"logits": [V, V]}."""

    recurrent, num_experts, route_shape, row_bytes, page_bytes = False, 1, (0, 0), 0, 1

    def __init__(self, logits_VV: Tensor, *, num_rows: int, num_pages: int, page_size: int = 64) -> None:
        self.logits_VV, self.vocab_size = logits_VV, logits_VV.shape[1]
        self.num_rows, self.num_pages, self.page_size = num_rows, num_pages, page_size

    def prefill(self, pieces: Sequence[Piece]) -> np.ndarray:
        return np.zeros((sum(len(piece.ids) for piece in pieces), 0, 0), np.uint8)

    def step(self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray) -> tuple[Tensor, np.ndarray]:
        return self.logits_VV[torch.from_numpy(ids_B)], np.zeros((len(ids_B), 0, 0), np.uint8)

    def clear_rows(self, rows: np.ndarray) -> None:
        """There is no state."""

    def copy_rows(self, source: np.ndarray, target: np.ndarray) -> None:
        """There is no state."""

    def copy_pages(self, source: np.ndarray, target: np.ndarray) -> None:
        """There is no state."""

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        copy_weights({"logits": self.logits_VV}, weights)


class SimulatedEngine(BatchingEngine):
    """Serves bigrams. `lengths` decides when a completion stops by itself; `script` what it says (then it stops when all is
    said); without both, sampling alone does. Faults that happened are counted in `faults_struck` by kind."""

    def __init__(
        self,
        *,
        vocab_size: int = 64,
        stop_ids: Sequence[int] = (0,),
        reasoning_tokens: ReasoningTokens | None = None,
        num_slots: int = 64,
        capacity: int = 4096,
        synchronous: bool = False,
        pace: Pace | None = None,
        lengths: LogNormal | Trace | None = None,
        script: Script | None = None,
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        logits = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed))
        num_pages = num_slots * -(-capacity // 64)
        super().__init__(
            BigramDecoder(logits, num_rows=num_slots + 64, num_pages=num_pages),
            stop_ids=stop_ids,
            reasoning_tokens=reasoning_tokens,
            num_slots=num_slots,
            capacity=capacity,
            synchronous=synchronous,
        )
        self.pace, self.lengths, self.script, self.faults = pace, lengths, script, faults
        self.faults_struck: dict[str, int] = {}
        self._plans: dict[int, Sequence[int]] = {}
        self._lengths: dict[int, int] = {}
        self._delays: dict[int, float] = {}
        self._paced = 0

    def submit(self, session: Conversation, request: GenerationRequest, ids: np.ndarray) -> None:
        number, self._delays[session.number] = self._tickets, 0.0
        for fault in self.faults:
            if fault.kind == "dies" or not fault.strikes(request, number):
                continue
            self.faults_struck[fault.kind] = self.faults_struck.get(fault.kind, 0) + 1
            if fault.kind == "raises":
                self._tickets += 1
                raise InjectedFault(f"request {number} raises, as was asked")
            self._delays[session.number] = math.inf if fault.kind == "hangs" else fault.delay_s
        super().submit(session, request, ids)
        if self.script is not None:
            self._plans[session.number] = [*self.script(ids.tolist(), request), int(self.stop_ids[0])]
        elif self.lengths is not None and request.stop_ids is None:
            self._lengths[session.number] = max(self.lengths.length(request, number), request.min_new_tokens)

    def _enqueue(self, session: Conversation) -> None:
        delay_s, ticket = self._delays[session.number], session.ticket
        if delay_s == 0:
            super()._enqueue(session)
        elif delay_s < math.inf:
            later = lambda: super(SimulatedEngine, self)._enqueue(session)  # noqa: E731
            waits = lambda: session.stage is Stage.QUEUED and session.ticket == ticket  # noqa: E731
            asyncio.get_running_loop().call_later(delay_s, lambda: later() if waits() else None)

    def forget(self, session: Conversation) -> None:
        self._plans.pop(session.number, None)
        self._lengths.pop(session.number, None)
        self._delays.pop(session.number, None)
        super().forget(session)

    def _step(self) -> None:
        if any(fault.kind == "dies" and fault.at == self._metrics.decode_steps for fault in self.faults):
            self.faults_struck["dies"] = 1
            raise InjectedFault(f"the engine dies at step {self._metrics.decode_steps}, as was asked")
        super()._step()

    def _sample(self, logits: Tensor, places_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        ids_B, logprobs_B, support = super()._sample(logits, places_B)
        if not self._plans and not self._lengths:
            return ids_B, logprobs_B, support
        scaled = logits / torch.from_numpy(self.records.temperature[places_B]).clamp(min=1e-6).unsqueeze(1)
        scored = scaled.log_softmax(-1).numpy()
        for row, place in enumerate(places_B.tolist()):
            session = self._at(row)
            said = int(self.records.length[place] - self.records.start[place])
            wanted = self._wanted(session, said, int(ids_B[row]))
            if wanted != ids_B[row]:
                ids_B[row], logprobs_B[row] = wanted, scored[row, wanted]
        return ids_B, logprobs_B, support

    def _wanted(self, session: Conversation, said: int, sampled: int) -> int:
        stop = int(self.stop_ids[0])
        if plan := self._plans.get(session.number):
            return plan[min(said, len(plan) - 1)]
        length = self._lengths.get(session.number)
        if length is None:
            return sampled
        if said + 1 >= length:
            return stop
        return sampled if sampled not in self.stop_ids else (stop + 1) % self.decoder.vocab_size

    async def _pace(self) -> None:
        """The time of what was prefilled since, and of the step to come: results are there when it has passed."""
        pace, tokens = self.pace or Pace(), self._metrics.prefill_tokens - self._paced
        self._paced += tokens
        rows = self.residence.num_decoding
        await asyncio.sleep(tokens * pace.prefill_token_s + (pace.step_s + rows * pace.row_s if rows else 0.0))


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: where nothing is ready, the clock jumps to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        elif not ready and timeout is None:
            raise RuntimeError("virtual time: everybody waits, and no timer is set")
        return ready


def virtual_time(main: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, float]:
    """Run a coroutine on a loop whose clock jumps over all waiting; its result, and the seconds that passed on that clock."""
    selector = _Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main()), selector.now
