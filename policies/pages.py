"""Pages of a key-value cache: who holds which, what is promised, and which prefixes are kept.

    reserve(n) --take()--> page --share / release--> free again

A page is held by a count of owners: sessions that begin alike, and the prefix cache. Reservations make admission safe: what a
request may need is promised to it, so nothing that runs is ever thrown out for room.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .engine import MediaSpan


class PagePool:
    """Counts owners of pages. The lowest free page is taken first, so the pages in use lie close together."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages))
        self._owners = np.zeros(num_pages, np.int32)
        self.reserved = 0

    @property
    def num_free(self) -> int:
        """Pages that are neither held nor promised."""
        return len(self._free) - self.reserved

    @property
    def num_held(self) -> int:
        return self.num_pages - len(self._free)

    def reserve(self, count: int) -> bool:
        """Promise pages; False where there are not as many."""
        if count > self.num_free:
            return False
        self.reserved += count
        return True

    def unreserve(self, count: int) -> None:
        self.reserved -= count

    def take(self) -> int:
        """One of the promised pages."""
        assert self.reserved > 0, "a page is taken of those that were reserved"
        self.reserved -= 1
        page = heapq.heappop(self._free)
        self._owners[page] = 1
        return page

    def share(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._owners[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._owners[page] -= 1
            assert self._owners[page] >= 0
            if self._owners[page] == 0:
                heapq.heappush(self._free, int(page))


@dataclass(eq=False)
class Prefix:
    """A context that was computed: its ids, its pages, and the row that keeps its recurrent state (None: it has none)."""

    epoch: int
    ids: np.ndarray
    media: tuple[MediaSpan, ...]
    pages: list[int]
    routes: np.ndarray
    """Experts chosen at each of its positions [len(ids), E, K]."""
    row: int | None = None


@dataclass
class PrefixCache:
    """Prefixes by recency. Those made by other weights than the present are never found: an epoch is part of the key."""

    pool: PagePool
    page_size: int
    rows: list[int]
    """Free rows for recurrent states; as many prefixes are kept as there were rows."""
    recurrent: bool
    kept: OrderedDict[int, Prefix] = field(default_factory=OrderedDict)

    def longest(self, epoch: int, ids: np.ndarray, media: tuple[MediaSpan, ...]) -> tuple[Prefix | None, int]:
        """The prefix that spares most of a context, and how many tokens. A recurrent state spares all of its own or none."""
        best, spared = None, 0
        for prefix in self.kept.values():
            n = len(prefix.ids)
            if prefix.epoch != epoch or (self.recurrent and (n > len(ids) or prefix.ids[-1] != ids[n - 1])):
                continue
            common = common_length(prefix.ids, ids)
            for span in {*prefix.media} ^ {*media}:  # positions are alike only where their media are
                common = min(common, span.offset)
            usable = common if common == n or not self.recurrent else 0
            if usable > spared:
                best, spared = prefix, usable
        if best is not None:
            self.kept.move_to_end(id(best))
        return best, spared

    def add(self, prefix: Prefix) -> bool:
        """Keep a prefix, for the one that was not used for longest where there is no row. The caller fills its row."""
        if not self.rows and not self.drop_oldest():
            return False
        prefix.row = self.rows.pop()
        self.pool.share(prefix.pages)
        self.kept[id(prefix)] = prefix
        return True

    def drop_oldest(self) -> bool:
        if not self.kept:
            return False
        _, prefix = self.kept.popitem(last=False)
        self._forget(prefix)
        return True

    def drop_all(self) -> None:
        while self.drop_oldest():
            pass

    def _forget(self, prefix: Prefix) -> None:
        assert prefix.row is not None
        self.rows.append(prefix.row)
        self.pool.release(prefix.pages)


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """How many ids two contexts begin with alike."""
    n = min(len(one), len(other))
    differs = one[:n] != other[:n]
    return int(differs.argmax()) if differs.any() else n
