"""Packing: N tokens of many sequences in one flat row, and the index plan that keeps them apart.

Sequences are cut into *segments*. A segment may continue a parent, so a prompt is computed once and each of a group's
rollouts hangs from it: the packed row is a forest, and a path from a root is one sequence.

    lengths, parents --Packing.build--> chunks (for the scan), taps (for the convolution), buckets (for attention)

Token-wise layers ignore all of this. No segment is padded to another's length: a chunk's last tokens (at most
chunk_size - 1 a segment) are padded inside the scan alone, and attention buckets hold segments of similar length.
"""

# Shapes: N packed tokens, S segments, C chunks, Q tokens of a chunk, K convolution kernel, s segments of a bucket.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionBucket:
    """Segments of similar length, laid out side by side. Index -1 is padding."""

    queries_sq: Tensor
    """Packed index of each query."""
    keys_sk: Tensor
    """Packed index of each key: the ancestors' tokens, then the segment's own."""
    mask_s1qk: Tensor
    """True where a query may see a key."""
    segments_s: Tensor

    def mask(self, window: int | None) -> Tensor:
        """What a query may see of the last `window` tokens, itself included: a path's keys lie in their order."""
        if window is None or window >= self.mask_s1qk.shape[3]:
            return self.mask_s1qk
        last_s1q1 = self.mask_s1qk.sum(3, keepdim=True)
        keys_k = torch.arange(self.mask_s1qk.shape[3], device=self.mask_s1qk.device)
        return self.mask_s1qk & (keys_k >= last_s1q1 - window)


@dataclass(frozen=True)
class Packing:
    """The index plan of one packed row. Build it with `Packing.build`."""

    num_tokens: int
    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    chunk_size: int
    taps_CX: Tensor
    """X = K - 1 + Q: the tokens that a chunk's convolution reads. Below N packed tokens; from N on, row
    N + (K - 1) * segment + i of the segments' initial convolution inputs; -1 is padding."""
    valid_CQ: Tensor
    token_slots_N: Tensor
    """Where each packed token lies in the flattened [C * Q] layout."""
    positions_N: Tensor
    """Each token's position on its path."""
    levels: tuple[Tensor, ...]
    """levels[d] holds, for each chunk of depth d, its parent's place among the chunks of depth d - 1 (level 0: its
    segment). Chunks are sorted by depth."""
    last_chunk_S: Tensor
    tails_SX: Tensor
    """The last K - 1 convolution inputs of each path, in the numbering of `taps_CX`."""
    num_buckets: int

    @cached_property
    def buckets(self) -> tuple[AttentionBucket, ...]:
        """Made when they are asked for: what attends by segments (attention_cpu.py) or to a cache does without."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        return tuple(
            AttentionBucket(
                *(torch.from_numpy(np.ascontiguousarray(array)).to(self.taps_CX.device) for array in bucket)
            )
            for bucket in _attention_plan(self.lengths, self.parents, starts, self.num_buckets)
        )

    @staticmethod
    def build(
        lengths: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        chunk_size: int = 16,
        conv_kernel: int = 4,
        num_buckets: int = 4,
        device: torch.device | str = "cpu",
    ) -> Packing:
        """Plan segments of `lengths` tokens that lie one after another; `parents[s]` is an earlier segment or -1."""
        parents = tuple(parents) if parents is not None else (-1,) * len(lengths)
        lengths = tuple(int(n) for n in lengths)
        if not lengths or min(lengths) < 1 or len(parents) != len(lengths):
            raise ValueError(f"each of at least one segment needs a token and a parent, got lengths {lengths[:8]}")
        if any(not -1 <= parent < s for s, parent in enumerate(parents)):
            raise ValueError("a segment's parent must come before it")
        starts = np.concatenate([[0], np.cumsum(lengths)])
        taps, valid, slots, levels, last_chunk, tails = _chunk_plan(lengths, parents, starts, chunk_size, conv_kernel)
        to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
        return Packing(
            num_tokens=int(starts[-1]),
            lengths=lengths,
            parents=parents,
            chunk_size=chunk_size,
            taps_CX=to(taps),
            valid_CQ=to(valid),
            token_slots_N=to(slots),
            positions_N=to(_positions(lengths, parents)),
            levels=tuple(to(level) for level in levels),
            last_chunk_S=to(last_chunk),
            tails_SX=to(tails),
            num_buckets=num_buckets,
        )


def _positions(lengths: tuple[int, ...], parents: tuple[int, ...]) -> np.ndarray:
    before: list[int] = []
    for parent in parents:
        before.append(before[parent] + lengths[parent] if parent >= 0 else 0)
    return np.concatenate([past + np.arange(n) for past, n in zip(before, lengths, strict=True)])


def _chunk_plan(
    lengths: tuple[int, ...], parents: tuple[int, ...], starts: np.ndarray, Q: int, K: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]:
    S, N, halo = len(lengths), int(starts[-1]), K - 1
    lengths_S = np.array(lengths)
    chunks_S = -(-lengths_S // Q)
    first_depth_S = np.zeros(S, dtype=np.int64)
    before_SX = np.empty((S, halo), dtype=np.int64)  # the inputs before a segment's first token
    tails_SX = np.empty((S, halo), dtype=np.int64)
    for s, parent in enumerate(parents):
        if parent >= 0:
            first_depth_S[s] = first_depth_S[parent] + chunks_S[parent]
            before_SX[s] = tails_SX[parent]
        else:
            before_SX[s] = N + halo * s + np.arange(halo)
        own = np.arange(max(int(starts[s]), int(starts[s + 1]) - halo), int(starts[s + 1]))
        tails_SX[s] = np.concatenate([before_SX[s], own])[len(own) :]

    segment_C = np.repeat(np.arange(S), chunks_S)
    number_C = np.arange(len(segment_C)) - np.repeat(np.cumsum(chunks_S) - chunks_S, chunks_S)
    depth_C = first_depth_S[segment_C] + number_C
    order = np.argsort(depth_C, kind="stable")
    place_C = np.empty_like(order)  # where each chunk, in segment order, lies among the sorted ones
    place_C[order] = np.arange(len(order))
    first_S = np.cumsum(chunks_S) - chunks_S
    last_chunk_S = place_C[first_S + chunks_S - 1]

    offset_CX = number_C[:, None] * Q + np.arange(-halo, Q)[None, :]
    inside = (offset_CX >= 0) & (offset_CX < lengths_S[segment_C][:, None])
    taps_CX = np.where(inside, starts[segment_C][:, None] + offset_CX, -1)
    ahead = offset_CX < 0
    taps_CX[ahead] = before_SX[segment_C][:, :halo][ahead[:, :halo]] if halo else 0
    token_offset_N = np.arange(N) - np.repeat(starts[:-1], lengths_S)
    chunk_N = place_C[np.repeat(first_S, lengths_S) + token_offset_N // Q]
    slots_N = chunk_N * Q + token_offset_N % Q

    level_starts = np.searchsorted(depth_C[order], np.arange(depth_C.max() + 2))
    before_C = np.where(number_C > 0, np.roll(place_C, 1), -1)  # the chunk before, among the sorted
    roots = number_C == 0
    parent_of = np.array(parents)[segment_C]
    before_C[roots] = np.where(parent_of[roots] >= 0, last_chunk_S[parent_of[roots]], -1)
    before_sorted = before_C[order]
    levels = [segment_C[order][: level_starts[1]]]
    for d in range(1, len(level_starts) - 1):
        levels.append(before_sorted[level_starts[d] : level_starts[d + 1]] - level_starts[d - 1])
    return taps_CX[order], inside[order][:, halo:], slots_N, levels, last_chunk_S, tails_SX


def _attention_plan(
    lengths: tuple[int, ...], parents: tuple[int, ...], starts: np.ndarray, num_buckets: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    paths: list[np.ndarray] = []
    for s, parent in enumerate(parents):
        own = np.arange(int(starts[s]), int(starts[s + 1]))
        paths.append(np.concatenate([paths[parent], own]) if parent >= 0 else own)
    order = sorted(range(len(lengths)), key=lambda s: (len(paths[s]), lengths[s]))
    buckets = []
    for members in np.array_split(np.array(order), min(num_buckets, len(order))):
        queries = np.full((len(members), max(lengths[s] for s in members)), -1)
        keys = np.full((len(members), max(len(paths[s]) for s in members)), -1)
        for row, s in enumerate(members):
            queries[row, : lengths[s]] = np.arange(int(starts[s]), int(starts[s + 1]))
            keys[row, : len(paths[s])] = paths[s]
        past = np.array([len(paths[s]) - lengths[s] for s in members])
        q, k = np.arange(queries.shape[1]), np.arange(keys.shape[1])
        # A padded query sees the first key: its row is never read, and no row is empty.
        last_seen = np.where(queries >= 0, past[:, None] + q[None, :], 0)
        mask = k[None, None, :] <= last_seen[:, :, None]
        buckets.append((queries, keys, mask[:, None], members))
    return buckets
