"""Grouped-query attention over a paged key-value cache, without positions.

Keys and values lie in a pool of pages; a row's table lists its pages in order. Several rows may list the same page (a common
prefix). Decoding reads pages where they lie: each page meets the queries of its owners, which leaves a log-sum-exp and a
weighted mean of values, and a row combines those of its pages (https://arxiv.org/abs/1805.02867, section 3.1). A row
thus costs what it holds, not what the longest row holds, and a page of many rows is read once. A page keeps its keys
transposed: the product of a few queries with them then takes half the time on a CPU.
"""

# Shapes: B rows, H query heads, J key-value heads, g = H / J, D head size, p page size, N pages of the pool, E pages read
# one owner each, U pages of several owners, O owners at most, P pages of the longest row, S segments, q new tokens of one.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_EMPTY = -1e30
"""The score of what may not be seen. Finite, so that a page of nothing else has no NaN."""
_IN_PLACE = 0.5
"""Pages [0, E) are read in place where at least this share of them is wanted, otherwise gathered."""


@dataclass(frozen=True)
class DecodeLayout:
    """Where the new token of each row goes and which pages each row sees, for all layers of one step."""

    lengths_B: Tensor
    page_B: Tensor
    offset_B: Tensor
    pages_E: Tensor | None
    """None: pages [0, E) as they lie."""
    rows_E: Tensor
    bias_E11p: Tensor
    shared_U: Tensor
    rows_UO: Tensor
    parts_BP: Tensor
    """For each page of each row, the part that it left; the last part is empty."""

    @staticmethod
    def build(
        tables_BP: np.ndarray, lengths_B: np.ndarray, page_size: int, device: torch.device | None = None
    ) -> DecodeLayout:
        """`lengths_B` counts the new token; a row of length 0 is padding and sees nothing."""
        B, counts_B = len(lengths_B), -(-lengths_B // page_size)
        row = np.repeat(np.arange(B), counts_B)
        slot = np.arange(len(row)) - np.repeat(np.cumsum(counts_B) - counts_B, counts_B)
        page = tables_BP[row, slot]
        order = np.argsort(page, kind="stable")
        first = np.flatnonzero(np.diff(page[order], prepend=-1))
        owners = np.diff(first, append=len(order))
        single = order[first[owners == 1]]
        parts = np.full((B, max(int(counts_B.max(initial=0)), 1)), -1)
        num_pages = int(page[single].max(initial=-1)) + 1
        in_place = len(single) >= _IN_PLACE * num_pages
        if not in_place:
            num_pages = len(single)
        at = page[single] if in_place else np.arange(len(single))
        rows_E, seen_E = np.zeros(num_pages, np.int64), np.zeros(num_pages, np.int64)
        rows_E[at], seen_E[at] = row[single], lengths_B[row[single]] - slot[single] * page_size
        parts[row[single], slot[single]] = at
        shared, most = owners > 1, int(owners.max(initial=1))
        rows_UO = np.zeros((int(shared.sum()), most), np.int64)
        for u, (start, count) in enumerate(zip(first[shared], owners[shared], strict=True)):
            entries = order[start : start + count]
            rows_UO[u, :count] = row[entries]
            parts[row[entries], slot[entries]] = num_pages + u * most + np.arange(count)
        parts[parts < 0] = num_pages + rows_UO.size
        last = np.maximum(lengths_B - 1, 0)
        to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
        hidden_Ep = np.arange(page_size) >= seen_E[:, None]
        return DecodeLayout(
            lengths_B=to(lengths_B),
            page_B=to(tables_BP[np.arange(B), last // page_size]),
            offset_B=to(last % page_size),
            pages_E=None if in_place else to(page[single]),
            rows_E=to(rows_E),
            bias_E11p=to((hidden_Ep * np.float32(_EMPTY))[:, None, None]),
            shared_U=to(page[order[first[shared]]]),
            rows_UO=to(rows_UO),
            parts_BP=to(parts),
        )


def paged_decode_attention_ref(
    q_BHD: Tensor, keys_NJDp: Tensor, values_NJpD: Tensor, tables_BP: np.ndarray, lengths_B: np.ndarray
) -> Tensor:
    """One query for each row over all that its pages hold. Returns [B, H * D]; zeros for rows of length 0."""
    B, H, D = q_BHD.shape
    out = q_BHD.new_zeros(B, H, D)
    for b in range(B):
        if not lengths_B[b]:
            continue
        table = torch.from_numpy(tables_BP[b]).to(q_BHD.device)
        keys = keys_NJDp[table].transpose(2, 3)
        k, v = (t.transpose(1, 2).flatten(0, 1)[: int(lengths_B[b])] for t in (keys, values_NJpD[table]))
        k, v = (t.repeat_interleave(H // t.shape[1], dim=1) for t in (k, v))
        weights = (torch.einsum("hd,khd->hk", q_BHD[b], k) / D**0.5).softmax(-1)
        out[b] = torch.einsum("hk,khd->hd", weights, v)
    return out.flatten(1)


def paged_decode_attention(
    q_BHD: Tensor, keys_NJDp: Tensor, values_NJpD: Tensor, layout: DecodeLayout, scale: float | None = None
) -> Tensor:
    """`paged_decode_attention_ref` by pages. The new token's key and value are already in their page; scores are scaled by
    `scale`, or D^-0.5."""
    B, H, D = q_BHD.shape
    J, g = keys_NJDp.shape[1], H // keys_NJDp.shape[1]
    q_Bx = (q_BHD * (D**-0.5 if scale is None else scale)).reshape(B, H * D)
    E = len(layout.rows_E)
    take = lambda t: t[:E] if layout.pages_E is None else t.index_select(0, layout.pages_E)  # noqa: E731
    q_EJgD = q_Bx.index_select(0, layout.rows_E).view(E, J, g, D)
    parts = [_part(q_EJgD, take(keys_NJDp), take(values_NJpD), layout.bias_E11p)]
    U, most = layout.rows_UO.shape
    if U:
        q_UJxD = q_Bx[layout.rows_UO].view(U, most, J, g, D).transpose(1, 2).reshape(U, J, most * g, D)
        mass, mean = _part(q_UJxD, keys_NJDp[layout.shared_U], values_NJpD[layout.shared_U], None)
        by_owner = lambda t: t.unflatten(2, (most, g)).transpose(1, 2).flatten(0, 1)  # noqa: E731
        parts.append((by_owner(mass), by_owner(mean)))
    mass, mean = parts[0]
    nothing = (mass.new_full((1, J, g), _EMPTY), mean.new_zeros(1, J, g, D))
    mass, mean = (
        torch.cat(t).flatten(1).index_select(0, layout.parts_BP.flatten()) for t in zip(*parts, nothing, strict=True)
    )
    share_BPJg1 = mass.view(B, -1, J, g, 1).softmax(1)
    return mean.view(B, -1, J, g, D).mul_(share_BPJg1).sum(1).view(B, H * D).to(q_BHD.dtype)


def _part(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """What each page leaves of its queries: the logarithm of the weights' sum, and the weighted mean of values."""
    scores = (q @ k).to(torch.promote_types(q.dtype, torch.float32))
    if bias is not None:
        scores += bias
    largest = scores.amax(-1)
    weights = scores.softmax(-1)
    # The largest weight is exp(largest - log-sum-exp): a second exponential is spared.
    return largest - weights.amax(-1).log_(), (weights.to(v.dtype) @ v).to(weights.dtype)


@dataclass(frozen=True)
class ExtendLayout:
    """Where new tokens of packed segments go, and what they see: their row's cached tokens and their segment up to
    themselves."""

    page_N: Tensor
    offset_N: Tensor
    segment_N: Tensor
    place_N: Tensor
    pages_SP: Tensor
    mask_S1qk: Tensor

    @staticmethod
    def build(
        tables_SP: np.ndarray, past_S: np.ndarray, new_S: np.ndarray, page_size: int, device: torch.device | None = None
    ) -> ExtendLayout:
        """Segment s adds new_S[s] tokens to the past_S[s] that its table's pages hold."""
        segment = np.repeat(np.arange(len(new_S)), new_S)
        place = np.arange(len(segment)) - np.repeat(np.cumsum(new_S) - new_S, new_S)
        position = past_S[segment] + place
        num_pages = int(-(-(past_S + new_S).max() // page_size))
        seen = past_S[:, None] + np.arange(new_S.max())
        mask = np.arange(num_pages * page_size) <= seen[:, :, None]
        to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
        return ExtendLayout(
            page_N=to(tables_SP[segment, position // page_size]),
            offset_N=to(position % page_size),
            segment_N=to(segment),
            place_N=to(place),
            pages_SP=to(tables_SP[:, :num_pages]),
            mask_S1qk=to(mask[:, None]),
        )


def paged_extend_attention(
    q_NHD: Tensor, keys_NJDp: Tensor, values_NJpD: Tensor, layout: ExtendLayout, scale: float | None = None
) -> Tensor:
    """Causal attention of packed new tokens over their rows' pages, which already hold them. Returns [N, H * D]."""
    S, _, q, _ = layout.mask_S1qk.shape
    q_SqHD = q_NHD.new_zeros(S, q, *q_NHD.shape[1:])
    q_SqHD[layout.segment_N, layout.place_N] = q_NHD
    keys = keys_NJDp[layout.pages_SP].transpose(3, 4)
    k, v = (t.transpose(1, 2).flatten(2, 3) for t in (keys, values_NJpD[layout.pages_SP]))
    y_SHqD = F.scaled_dot_product_attention(
        q_SqHD.transpose(1, 2),
        k,
        v,
        attn_mask=layout.mask_S1qk,
        enable_gqa=q_NHD.shape[1] != keys_NJDp.shape[1],
        scale=scale,
    )
    return y_SHqD.transpose(1, 2)[layout.segment_N, layout.place_N].flatten(1)
