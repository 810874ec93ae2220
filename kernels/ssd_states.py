"""The states between the chunks of a scan (ssd.py), along a forest of chunks."""

# Shapes: C chunks in order of their depth, G groups, N state size, X = heads of a group times head size.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor


class States:
    """The state [G, N, X] after each chunk. That before a chunk is its parent's, read where it lies.

    Chunks lie in order of their depth, so a block of consecutive chunks finds all parents in blocks before it, or further up in itself.
    """

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

    def pieces(self, block: slice) -> Iterator[tuple[int, slice]]:
        """The chunks of a block depth by depth: the depth, and which of its chunks."""
        for depth, rows in enumerate(self.rows):
            start, stop = max(block.start, rows.start), min(block.stop, rows.stop)
            if start < stop:
                yield depth, slice(start - rows.start, stop - rows.start)

    def whole(self, depth: int, part: slice) -> slice:
        """A part of a depth's chunks among all."""
        start = self.rows[depth].start
        return slice(start + part.start, start + part.stop)

    def pass_on(self, block: slice, kept: Tensor) -> Tensor:
        """What a block's chunks add, in `after`, becomes the state after them. Returns the states before them."""
        parts = []
        for depth, part in self.pieces(block):
            parts.append(self._taken(depth, part))
            if depth or self.initial is not None:
                rows = self.whole(depth, part)
                self.after[rows].addcmul_(parts[-1], kept[rows])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def before(self, block: slice) -> Tensor:
        """The states before a block of chunks."""
        parts = [self._taken(depth, part) for depth, part in self.pieces(block)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _taken(self, depth: int, part: slice) -> Tensor:
        """The states before a part of a depth's chunks."""
        parents = self.levels[depth][part]
        if not depth and self.initial is None:
            return self.after.new_zeros(len(parents), *self.after.shape[1:])
        above = self.after[self.rows[depth - 1]] if depth else self.initial
        assert above is not None
        return above[part] if self.straight[depth] else above.index_select(0, parents)

    def gradient(self) -> StatesGradient:
        return StatesGradient(self)


class StatesGradient:
    """The gradient of the state after each chunk, which is complete when all its children have passed theirs back."""

    def __init__(self, states: States) -> None:
        self.states, self.after = states, torch.empty_like(states.after)
        for depth, rows in enumerate(states.rows):
            deepest = depth + 1 == len(states.rows)
            # Children in their parents' order write; all others add.
            written = 0 if deepest or not states.straight[depth + 1] else len(states.levels[depth + 1])
            self.after[rows][written:] = 0

    def pass_back(self, block: slice, dbefore: Tensor, kept: Tensor) -> Tensor:
        """Hand a block's part, by way of the states before its chunks and after them, to their parents. Blocks come last first.
        `dbefore` is used up. Returns the gradients of the states after the block."""
        states = self.states
        for depth, part in reversed(list(states.pieces(block))):
            if not depth:
                continue  # the initial states take no gradient
            rows, above = states.whole(depth, part), self.after[states.rows[depth - 1]]
            mine = dbefore[rows.start - block.start : rows.stop - block.start]
            if states.straight[depth]:
                torch.addcmul(mine, self.after[rows], kept[rows], out=above[part])
            else:
                above.index_add_(0, states.levels[depth][part], mine.addcmul_(self.after[rows], kept[rows]))
        return self.after[block]
