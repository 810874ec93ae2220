"""Grouped-query attention without positions over a packed forest; that over a cache is in paged_attention.py.

Order comes from the Mamba layers, so no positional encoding is applied (Nemotron 3).
"""

# Shapes: N packed tokens, L tokens of one sequence, s segments, q queries, k keys, H query heads, J key-value heads, D head size.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_cpu import forest_attention
from .backend import uses_triton
from .compiled import uses_compiled
from .gather import gather_rows
from .packing import AttentionBucket, Packing
from .sliding_window import WIDEST_HEAD


def attention_ref(q_LHD: Tensor, k_LJD: Tensor, v_LJD: Tensor) -> Tensor:
    """Causal attention over one sequence. Returns [L, H, D]."""
    L, H, D = q_LHD.shape
    k_LHD, v_LHD = (t.repeat_interleave(H // k_LJD.shape[1], dim=1) for t in (k_LJD, v_LJD))
    scores_HLL = torch.einsum("qhd,khd->hqk", q_LHD, k_LHD) / D**0.5
    future = torch.ones(L, L, dtype=torch.bool, device=q_LHD.device).triu(1)
    return torch.einsum("hqk,khd->qhd", scores_HLL.masked_fill(future, float("-inf")).softmax(-1), v_LHD)


def packed_attention(
    q_NHD: Tensor, k_NJD: Tensor, v_NJD: Tensor, packing: Packing, window: int | None = None
) -> Tensor:
    """Each token sees its own path: its ancestors' tokens and its segment's up to itself, of these the last `window`. Returns
    [N, H * D]."""
    if uses_compiled(q_NHD, k_NJD, v_NJD):
        return forest_attention(q_NHD, k_NJD, v_NJD, packing, window)
    N, H, D = q_NHD.shape
    J = k_NJD.shape[1]
    in_triton = D <= WIDEST_HEAD and uses_triton(q_NHD, k_NJD, v_NJD)
    q_Nx, kv_Nx = q_NHD.reshape(N, -1), torch.cat([k_NJD.reshape(N, -1), v_NJD.reshape(N, -1)], dim=1)
    outputs, places = [], []
    for bucket in packing.buckets:
        s, q = bucket.queries_sq.shape
        q_sHqD = gather_rows(q_Nx, bucket.queries_sq).view(s, q, H, D).transpose(1, 2)
        k_sJkD, v_sJkD = gather_rows(kv_Nx, bucket.keys_sk).view(s, -1, 2, J, D).permute(2, 0, 3, 1, 4).unbind(0)
        if in_triton:
            from .sliding_window_triton import window_attention_triton

            y_sHqD = window_attention_triton(q_sHqD, k_sJkD, v_sJkD, _last_seen(bucket), window)
        else:
            mask = bucket.mask(window)
            y_sHqD = F.scaled_dot_product_attention(q_sHqD, k_sJkD, v_sJkD, attn_mask=mask, enable_gqa=True)
        outputs.append(y_sHqD.transpose(1, 2).reshape(s * q, H * D))
        places.append(bucket.queries_sq.reshape(-1))
    place = torch.cat(places)
    row_N = torch.empty(N, dtype=torch.int64, device=place.device)
    real = place >= 0
    row_N[place[real]] = torch.arange(len(place), device=place.device)[real]
    return gather_rows(torch.cat(outputs), row_N)


def _last_seen(bucket: AttentionBucket) -> Tensor:
    """How many of its path's keys each query [s, q] sees, before any window; 0 for padding."""
    real_sq = bucket.queries_sq >= 0
    past_s = (bucket.keys_sk >= 0).sum(1) - real_sq.sum(1)
    return torch.where(real_sq, past_s.unsqueeze(1) + real_sq.cumsum(1), 0)
