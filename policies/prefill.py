"""Computing contexts in a batching engine: alike ones once, long ones in pieces, between the steps of those that decode."""

from __future__ import annotations

import time

import torch

from .conversation import Conversation, Housed
from .decoder import Piece
from .engine import EngineMetrics
from .residence import Residence

GATHER_STEPS = 4


class Prefill:
    """The conversations whose contexts are being computed, in the order in which they were housed."""

    def __init__(
        self,
        residence: Residence[Housed],
        metrics: EngineMetrics,
        *,
        num_slots: int,
        num_tokens: int,
        all_at_once: bool,
    ) -> None:
        """A batch has up to `num_tokens`. Its sum is computed at a time, or `all_at_once` all there is."""
        self.residence, self.metrics, self.records = residence, metrics, residence.records
        self.decoder, self.num_slots = residence.decoder, num_slots
        self.num_tokens, self.all_at_once = num_tokens, all_at_once
        self.sessions: list[Conversation] = []
        self._steps_since = 0

    def __len__(self) -> int:
        return len(self.sessions)

    def add(self, session: Conversation) -> None:
        """Compute all but the last token, which decodes."""
        session.target = len(session.ids) - 1
        self.sessions.append(session)

    def add_anew(self, session: Conversation, epoch: int) -> None:
        """Compute the state of a request in flight by the present weights, with what it has sampled so far."""
        self.begin_anew(session, epoch)
        self.sessions.append(session)

    def begin_anew(self, session: Conversation, epoch: int) -> None:
        place = session.resident.place
        self.residence.forget(session.resident)
        session.resident.epoch = epoch
        session.target = int(self.records.length[place]) - 1
        if session.target >= len(session.ids):
            session.goes_alone()
        self.records.routes_start[place] = 0

    def remove(self, session: Conversation) -> None:
        self.sessions.remove(session)

    def advance(self) -> list[Conversation]:
        """Compute what is due; those whose contexts are whole now. While most slots decode, a few contexts are waited for: a
        call costs as much for one as for many."""
        busy = 2 * self.residence.num_decoding > self.num_slots and not self.all_at_once
        self._steps_since += 1
        if busy and self._steps_since < GATHER_STEPS and 16 * len(self.sessions) < self.num_slots:
            return []
        arrived: list[Conversation] = []
        if self.sessions:
            self._steps_since = 0
        while self.sessions:
            batch = self._batch()
            self._compute([(session, take) for session, take in batch if take])
            arrived += self._whole([s for s, _ in batch if s.resident.cached == s.target])
            if not self.all_at_once:
                break
        return arrived

    def _batch(self) -> list[tuple[Conversation, int]]:
        """What is computed next, and how many tokens of each. A context that another one leads with is left to follow it."""
        batch, room, leading, page_size = [], self.num_tokens, set(), self.decoder.page_size
        for session in self.sessions:
            missing = session.target - session.resident.cached
            if session.resident.cached == 0 and missing and session.key in leading:
                continue
            take = missing if missing <= room else room // page_size * page_size
            if missing and not take:
                break
            leading.add(session.key)
            batch.append((session, take))
            room -= take
        return batch

    @torch.inference_mode()
    def _compute(self, batch: list[tuple[Conversation, int]]) -> None:
        if not batch:
            return
        pieces = []
        for session, take in batch:
            resident, place = session.resident, session.resident.place
            self.residence.grow(resident, resident.cached + take)
            ids = self.records.ids[place, resident.cached : resident.cached + take]
            pieces.append(Piece(resident.row, self.residence.tables[place], resident.cached, ids))
        began = time.perf_counter()
        routes = self.decoder.prefill(pieces)
        self.metrics.model_s += time.perf_counter() - began
        at = 0
        for session, take in batch:
            resident = session.resident
            self.records.routes[resident.place, resident.cached : resident.cached + take] = routes[at : at + take]
            resident.cached += take
            at += take
        self.metrics.prefill_tokens += at

    def _whole(self, sessions: list[Conversation]) -> list[Conversation]:
        """Contexts are whole: those who wait for the same one get a copy, and all of them leave."""
        arrived = []
        for session in sessions:
            arrived.append(session)
            if not session.shares:
                continue
            assert session.request is not None
            self.residence.keep(session.resident, session.request.media)
            for other in self.sessions:
                if other is not session and other.resident.cached == 0 and other.target and other.key == session.key:
                    self.residence.follow(other.resident, session.resident)
                    self.metrics.shared_tokens += session.resident.cached
                    arrived.append(other)
        gone = set(arrived)
        self.sessions = [s for s in self.sessions if s not in gone]
        return arrived
