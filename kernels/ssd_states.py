"""The states between the chunks of a scan (ssd.py), along a forest of chunks."""

# Shapes: C chunks in order of their depth, G groups, N state size, X = heads of a group times head size.

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor


class States:
    """The state [G, N, X] after each chunk. That before a chunk is its parent's, read where it lies."""

    def __init__(self, after: Tensor, levels: Sequence[Tensor], initial: Tensor | None) -> None:
        """Without `initial`, sequences begin with zeros."""
        self.after, self.levels, self.initial = after, levels, initial
        starts = [0, *accumulate(len(parents) for parents in levels)]
        self.rows = [slice(*ends) for ends in pairwise(starts)]
        """The chunks of each depth."""
        # Most often the first chunks of a depth go on, each once: then their children's rows are a slice.
        self.straight = [
            bool((parents == torch.arange(len(parents), device=parents.device)).all()) for parents in levels
        ]

    def pass_on(self, kept: Tensor) -> None:
        """`after` holds what each chunk adds; depth by depth it becomes the state."""
        for depth, rows in enumerate(self.rows):
            if depth or self.initial is not None:
                self.after[rows].addcmul_(self._taken(depth, slice(0, rows.stop - rows.start)), kept[rows])

    def before(self, block: slice) -> Tensor:
        """The states before a block of chunks."""
        parts = []
        for depth, rows in enumerate(self.rows):
            start, stop = max(block.start, rows.start), min(block.stop, rows.stop)
            if start < stop:
                parts.append(self._taken(depth, slice(start - rows.start, stop - rows.start)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _taken(self, depth: int, part: slice) -> Tensor:
        """The states before a part of a depth's chunks."""
        parents = self.levels[depth][part]
        if not depth and self.initial is None:
            return self.after.new_zeros(len(parents), *self.after.shape[1:])
        above = self.after[self.rows[depth - 1]] if depth else self.initial
        assert above is not None
        return above[part] if self.straight[depth] else above.index_select(0, parents)

    def pass_back(self, dbefore: Tensor, kept: Tensor) -> Tensor:
        """The gradients of the states after each chunk, deepest first. `dbefore` is used up."""
        dafter = torch.empty_like(dbefore)
        dafter[self.rows[-1]] = 0
        for depth in reversed(range(1, len(self.rows))):
            below, here = self.rows[depth], dafter[self.rows[depth - 1]]
            if self.straight[depth]:
                count = below.stop - below.start
                torch.addcmul(dbefore[below], dafter[below], kept[below], out=here[:count])
                here[count:] = 0
            else:
                here.zero_().index_add_(0, self.levels[depth], dbefore[below].addcmul_(dafter[below], kept[below]))
        return dafter
