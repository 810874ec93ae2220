"""Attention over a sliding window, decoded from a ring: the last w tokens of a row lie at their position modulo w.

A row's memory and a step's cost are bounded by the window, whatever the context's length. Over packed segments the window is one
more mask (`packed_attention`).
"""

# Shapes: R rows of a cache, B rows of a step, H query heads, J key-value heads, g = H / J, D head size, w window, S segments,
# q new tokens of the longest, N packed new tokens, p = w - 1 tokens before a segment.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import needs_gradient, uses_triton

WIDEST_HEAD = 256
"""Head size up to which a Triton program holds whole rows."""


def sliding_window_attention_ref(q_LHD: Tensor, k_LJD: Tensor, v_LJD: Tensor, window: int) -> Tensor:
    """Each of a sequence's tokens over itself and the window - 1 before it. Returns [L, H, D]."""
    L, H, D = q_LHD.shape
    k_LHD, v_LHD = (t.repeat_interleave(H // t.shape[1], dim=1) for t in (k_LJD, v_LJD))
    scores_HLL = torch.einsum("qhd,khd->hqk", q_LHD, k_LHD) / D**0.5
    seen = torch.ones(L, L, dtype=torch.bool, device=q_LHD.device).tril().triu(1 - window)
    return torch.einsum("hqk,khd->qhd", scores_HLL.masked_fill(~seen, float("-inf")).softmax(-1), v_LHD)


def ring_decode_attention(q_BHD: Tensor, keys_BJDw: Tensor, values_BJwD: Tensor, lengths_B: Tensor) -> Tensor:
    """One query for each row over its ring, where the new token already lies. `lengths_B` counts it; rows of length 0 see their
    first place, and are not to be read. Returns [B, H * D]."""
    B, H, D = q_BHD.shape
    J, w = keys_BJDw.shape[1], keys_BJDw.shape[3]
    if keys_BJDw.is_contiguous() and values_BJwD.is_contiguous() and not needs_gradient(q_BHD, keys_BJDw, values_BJwD):
        if D <= WIDEST_HEAD and uses_triton(q_BHD, keys_BJDw, values_BJwD):
            from .sliding_window_decode_triton import ring_decode_attention_triton

            return ring_decode_attention_triton(q_BHD, keys_BJDw, values_BJwD, lengths_B)
    scores_BJgw = (q_BHD * D**-0.5).view(B, J, H // J, D) @ keys_BJDw
    scores_BJgw = scores_BJgw.to(torch.promote_types(q_BHD.dtype, torch.float32))
    empty_Bw = torch.arange(w, device=q_BHD.device) >= lengths_B.clamp(min=1).unsqueeze(1)
    weights = scores_BJgw.masked_fill_(empty_Bw[:, None, None], float("-inf")).softmax(-1)
    return (weights.to(values_BJwD.dtype) @ values_BJwD).view(B, H * D)


@dataclass(frozen=True)
class RingLayout:
    """Where new tokens of packed segments go in their rows' rings, and what they see there and among themselves."""

    positions_N: Tensor
    segment_N: Tensor
    place_N: Tensor
    before_Sp: Tensor
    """Places in the ring of the p tokens before each segment, in order; 0 where there are none."""
    mask_S1qk: Tensor
    kept_K: Tensor
    """The new tokens that are still in the window at the end, and where they go:"""
    row_K: Tensor
    ring_K: Tensor

    @staticmethod
    def build(
        rows_S: np.ndarray, past_S: np.ndarray, new_S: np.ndarray, window: int, device: torch.device | None = None
    ) -> RingLayout:
        """Segment s adds new_S[s] tokens to the past_S[s] that row rows_S[s] has seen."""
        segment = np.repeat(np.arange(len(new_S)), new_S)
        place = np.arange(len(segment)) - np.repeat(np.cumsum(new_S) - new_S, new_S)
        position = past_S[segment] + place
        before = past_S[:, None] - (window - 1) + np.arange(window - 1)
        query = past_S[:, None] + np.arange(new_S.max())
        key = np.concatenate([np.where(before < 0, -(10**9), before), query], axis=1)
        mask = (key[:, None] <= query[:, :, None]) & (key[:, None] > query[:, :, None] - window)
        kept = np.flatnonzero(place >= new_S[segment] - window)
        to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
        return RingLayout(
            positions_N=to(position),
            segment_N=to(segment),
            place_N=to(place),
            before_Sp=to(np.maximum(before, 0) % window),
            mask_S1qk=to(mask[:, None]),
            kept_K=to(kept),
            row_K=to(rows_S[segment[kept]]),
            ring_K=to(position[kept] % window),
        )


def ring_extend_attention(
    q_NHD: Tensor,
    k_NJD: Tensor,
    v_NJD: Tensor,
    keys_RJDw: Tensor,
    values_RJwD: Tensor,
    rows_S: Tensor,
    layout: RingLayout,
) -> Tensor:
    """Windowed attention of packed new tokens over their rows' rings and themselves; the rings then hold them. [N, H * D]."""
    S, _, q, _ = layout.mask_S1qk.shape
    spread = lambda t: t.new_zeros(S, q, *t.shape[1:]).index_put((layout.segment_N, layout.place_N), t)  # noqa: E731
    index = layout.before_Sp[:, None, None]  # [S, 1, 1, p]
    J, D = k_NJD.shape[1:]
    old_k = keys_RJDw[rows_S].gather(3, index.expand(S, J, D, -1)).transpose(2, 3)
    old_v = values_RJwD[rows_S].gather(2, index.transpose(2, 3).expand(S, J, -1, D))
    k, v = (torch.cat([old, spread(new).transpose(1, 2)], dim=2) for old, new in ((old_k, k_NJD), (old_v, v_NJD)))
    y_SHqD = F.scaled_dot_product_attention(
        spread(q_NHD).transpose(1, 2), k, v, attn_mask=layout.mask_S1qk, enable_gqa=q_NHD.shape[1] != J
    )
    keys_RJDw[layout.row_K, :, :, layout.ring_K] = k_NJD[layout.kept_K]
    values_RJwD[layout.row_K, :, layout.ring_K] = v_NJD[layout.kept_K]
    return y_SHqD.transpose(1, 2)[layout.segment_N, layout.place_N].flatten(1)
