"""Who lives where in a batching engine's cache: places, rows and pages of conversations, and the prefixes they share.

    rows      [decoding | others | free]   [kept prefixes]
    pages     held by conversations and prefixes, promised to conversations

A conversation that was admitted has a place, a row and the promise of every page it may need. The rows that decode are kept at
the front by swapping, so that a step runs over them in place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from .decoder import Decoder
from .engine import MediaSpan
from .pages import PagePool, Prefix, PrefixCache
from .records import Records


@dataclass(eq=False)
class Resident:
    """A conversation's part of the cache."""

    place: int = -1
    row: int = -1
    pages: list[int] = field(default_factory=list)
    promised: int = 0
    cached: int = 0
    """How many of its tokens the state holds."""
    epoch: int = -1
    """Of the weights that began the state."""

    @property
    def housed(self) -> bool:
        return self.place >= 0


R = TypeVar("R", bound=Resident)


class Residence(Generic[R]):
    """Houses residents in a decoder's cache. `num_slots` rows are for conversations, those behind them for prefixes."""

    def __init__(self, decoder: Decoder, records: Records, num_slots: int, capacity: int) -> None:
        self.decoder, self.records, self.page_size = decoder, records, decoder.page_size
        self.pool = PagePool(decoder.num_pages)
        kept = list(range(num_slots, decoder.num_rows))
        self.prefixes = PrefixCache(self.pool, decoder.page_size, kept, decoder.recurrent)
        self.tables = np.zeros((num_slots, -(-capacity // decoder.page_size)), np.int64)
        self.num_pages = np.zeros(num_slots, np.int64)
        """Pages of each place."""
        self.at: list[R | None] = [None] * num_slots
        self.num_decoding = 0
        self.places = np.zeros(num_slots, np.int64)
        """The place of the resident of each row."""
        self._free_places = list(range(num_slots - 1, -1, -1))
        self._left: dict[R, int] = {}
        """The rows that swapped residents left, until their states are moved."""

    # Moving in and out.

    def pages_of(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def house(
        self, resident: R, ids: np.ndarray, media: tuple[MediaSpan, ...], most: int, epoch: int
    ) -> tuple[bool, int]:
        """Give a resident what it needs to reach `most` tokens, and what a kept prefix of `ids` spares it.

        Returns whether there was room (kept prefixes make way; nothing else does), and how many tokens were spared.
        """
        fresh = not resident.housed
        if fresh and not self._free_places:
            return False, 0
        prefix, spared = self.prefixes.longest(epoch, ids, media) if resident.cached == 0 else (None, 0)
        shared = prefix.pages[: spared // self.page_size] if prefix is not None else []
        self.pool.share(shared)  # so that they stay if their prefix makes way
        need = self.pages_of(most) - len(resident.pages) - len(shared) - resident.promised
        while need > 0 and not self.pool.reserve(need):
            if not self.prefixes.drop_oldest():
                self.pool.release(shared)
                return False, 0
            if prefix is not None and id(prefix) not in self.prefixes.kept:
                self.pool.release(shared)
                return self.house(resident, ids, media, most, epoch)
        if need < 0:
            self.pool.unreserve(-need)
        resident.promised += need
        if fresh:
            resident.place = self._free_places.pop()
            resident.row = self.at.index(None, self.num_decoding)
            self.at[resident.row] = resident
        if resident.cached == 0:
            resident.epoch = epoch
            if prefix is not None:
                assert prefix.row is not None
                self._adopt(resident, shared, prefix.pages, spared, prefix.row, prefix.routes)
            elif self.decoder.recurrent:
                self.decoder.clear_rows(np.array([resident.row]))
        return True, spared

    def follow(self, resident: R, leader: R) -> None:
        """Begin with all that a leader has computed."""
        shared = leader.pages[: leader.cached // self.page_size]
        self.pool.share(shared)
        self.pool.unreserve(len(shared))
        resident.promised -= len(shared)
        self._adopt(resident, shared, leader.pages, leader.cached, leader.row, self.records.routes[leader.place])

    def _adopt(
        self, resident: R, shared: list[int], pages: list[int], num_tokens: int, row: int, routes: np.ndarray
    ) -> None:
        assert not resident.pages
        for page in shared:
            self._add_page(resident, page)
        if num_tokens % self.page_size:  # the page that both would write to is copied
            self.grow(resident, num_tokens)
            self.decoder.copy_pages(np.array([pages[len(shared)]]), np.array([resident.pages[-1]]))
        if self.decoder.recurrent:
            self.decoder.copy_rows(np.array([row]), np.array([resident.row]))
        self.records.routes[resident.place, :num_tokens] = routes[:num_tokens]
        resident.cached = num_tokens

    def keep(self, resident: R, media: tuple[MediaSpan, ...]) -> None:
        """Keep what a resident has computed for others that begin alike. It goes on writing behind it, in the same page."""
        n, place = resident.cached, resident.place
        pages = resident.pages[: self.pages_of(n)]
        ids, routes = self.records.ids[place, :n].copy(), self.records.routes[place, :n].copy()
        prefix = Prefix(resident.epoch, ids, media, pages, routes)
        if n and self.prefixes.add(prefix) and self.decoder.recurrent:
            self.decoder.copy_rows(np.array([resident.row]), np.array([prefix.row]))

    def grow(self, resident: R, num_tokens: int) -> None:
        """Take promised pages until there is one for each of the first `num_tokens`."""
        while len(resident.pages) < self.pages_of(num_tokens):
            self._add_page(resident, self.pool.take())
            resident.promised -= 1

    def forget(self, resident: R) -> None:
        """Give up a resident's state, but not its place, its row or the promise of as many pages."""
        self.pool.release(resident.pages)
        self.pool.reserved += len(resident.pages)  # just released, so there are as many
        resident.promised += len(resident.pages)
        resident.pages.clear()
        self.num_pages[resident.place] = 0
        resident.cached = 0
        if self.decoder.recurrent:
            self.decoder.clear_rows(np.array([resident.row]))

    def unpromise(self, resident: R) -> None:
        """Give back what was promised and not needed."""
        self.pool.unreserve(resident.promised)
        resident.promised = 0

    def evict(self, resident: R) -> None:
        """A resident that does not decode moves out."""
        if not resident.housed:
            return
        assert resident.row >= self.num_decoding
        self.unpromise(resident)
        self.pool.release(resident.pages)
        resident.pages = []
        self.num_pages[resident.place] = 0
        self.at[resident.row] = None
        self._free_places.append(resident.place)
        resident.place = resident.row = -1
        resident.cached, resident.epoch = 0, -1

    # The rows that decode.

    def start(self, residents: Iterable[R]) -> None:
        """Move residents into the zone that decodes."""
        for resident in residents:
            self._swap(resident.row, self.num_decoding)
            self.num_decoding += 1
        self._move()

    def stop(self, residents: Iterable[R]) -> None:
        """Move residents out of it."""
        for resident in residents:
            self.num_decoding -= 1
            self._swap(resident.row, self.num_decoding)
        self._move()

    def _swap(self, a: int, b: int) -> None:
        self.at[a], self.at[b] = self.at[b], self.at[a]
        for row in (a, b):
            resident = self.at[row]
            if resident is not None:
                self._left.setdefault(resident, resident.row)
                resident.row = row
                self.places[row] = resident.place

    def _move(self) -> None:
        """Move states to where swaps put their residents, all at once."""
        moved = [(left, resident.row) for resident, left in self._left.items() if left != resident.row]
        if moved and self.decoder.recurrent:
            self.decoder.copy_rows(*(np.array(rows) for rows in zip(*moved, strict=True)))
        self._left.clear()

    def _add_page(self, resident: R, page: int) -> None:
        self.tables[resident.place, len(resident.pages)] = page
        resident.pages.append(page)
        self.num_pages[resident.place] = len(resident.pages)
