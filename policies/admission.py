"""Who is housed next in a batching engine: returning conversations, then newcomers, each in its order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator

from .conversation import Conversation, Housed, Stage
from .engine import EngineMetrics
from .residence import Residence


class Admission:
    """The requests that wait for room. In synchronous mode each queue is in the order of its sessions.

    Those whose state is here go first: newcomers that wait for their rows would otherwise keep them waiting.
    """

    patience_s, idle_patience_s = 1.0, 0.05
    """A session that is idle for less is not put out: while others work, and while nobody does."""

    def __init__(
        self, residence: Residence[Housed], metrics: EngineMetrics, *, num_slots: int, capacity: int, synchronous: bool
    ) -> None:
        self.residence, self.metrics = residence, metrics
        self.num_slots, self.capacity, self.synchronous = num_slots, capacity, synchronous
        self.returning: deque[Conversation] = deque()
        self.newcomers: deque[Conversation] = deque()

    def __len__(self) -> int:
        return len(self.returning) + len(self.newcomers)

    def add(self, session: Conversation) -> None:
        (self.returning if session.resident.housed else self.newcomers).append(session)

    def remove(self, session: Conversation) -> None:
        for queue in (self.returning, self.newcomers):
            if session in queue:
                queue.remove(session)

    def house(
        self, sessions: Iterable[Conversation], num_working: int, epoch: int
    ) -> Iterator[tuple[Conversation, int]]:
        """Those that there is room for, out of their queue and with a place, and how many of their tokens their own state
        already held. `num_working` requests are being computed as this begins."""
        for queue in (self.returning, self.newcomers):
            if self.synchronous and queue:
                ordered = sorted(queue, key=lambda s: (s.order, s.number))
                queue.clear()
                queue.extend(ordered)
            while queue:
                cached = self._house(queue[0], sessions, num_working, epoch)
                if cached is None:
                    break
                num_working += 1
                yield queue.popleft(), cached

    def _house(
        self, session: Conversation, sessions: Iterable[Conversation], num_working: int, epoch: int
    ) -> int | None:
        request, resident = session.request, session.resident
        assert request is not None
        if resident.housed and resident.epoch != epoch:
            self.residence.forget(resident)
        most = min(self.capacity, len(session.ids) + request.max_new_tokens)
        while True:
            cached = resident.cached
            housed, spared = self.residence.house(resident, session.ids[:-1], request.media, most, epoch)
            if housed:
                self.metrics.shared_tokens += spared + cached
                return cached
            if not self._evict_idle(sessions, num_working):
                return None

    def _evict_idle(self, sessions: Iterable[Conversation], num_working: int) -> bool:
        """Make room of the session that was idle for longest. Computing its state anew costs more than waiting, so newcomers
        wait while half of the slots work, or while it may come back at once."""
        if 2 * num_working >= self.num_slots:
            return False
        idle = [s for s in sessions if s.stage is Stage.IDLE and s.resident.housed]
        oldest = min(idle, key=lambda s: s.idle_since, default=None)
        patience_s = self.patience_s if num_working else self.idle_patience_s
        if oldest is None or asyncio.get_running_loop().time() - oldest.idle_since < patience_s:
            return False
        self.residence.evict(oldest.resident)
        self.metrics.evicted += 1
        return True
