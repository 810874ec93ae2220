"""Sampling with per-request random streams: one uniform a token, a pure function of (request seed, token number).

What a request samples thus depends on nothing but its seed and its logits: not on slots, batches or other requests.
"""

# Shapes: B sequences, V vocabulary, S ids of the widest support.

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..kernels.compiled import uses_compiled
from ..kernels.decode_cpu import sample_rows

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def stream_seed(*parts: object) -> int:
    """A stable 64-bit seed from anything with a stable text form: (run, task, group, rollout, turn)."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniforms(seeds_B: np.ndarray, counters_B: np.ndarray) -> np.ndarray:
    """Uniforms in [0, 1) by the SplitMix64 finaliser (Steele, Lea, Flood 2014) of seed + counter * golden ratio."""
    with np.errstate(over="ignore"):
        z = seeds_B.astype(np.uint64) + (counters_B.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class Warp:
    """What narrows each row's distribution. None where no row asks for it."""

    top_k_B: Tensor | None = None
    """0: all."""
    top_p_B: Tensor | None = None
    banned_BV: Tensor | None = None
    """Tokens that may not be sampled."""


def sample(
    logits_BV: Tensor, temperature_B: Tensor, uniforms_B: Tensor, warp: Warp | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids [B] by inversion of the cumulative distribution, their log-probabilities, and the support [B, S] (ids by
    falling probability, -1 behind them; None: everything). Temperature 0 is greedy.

    The support is cut by top-k, then by top-p of what is left, and the probabilities are those within it.
    """
    if warp is None and uses_compiled(logits_BV):
        return *sample_rows(logits_BV, temperature_B, uniforms_B), None
    greedy_B = temperature_B == 0
    precise = torch.promote_types(logits_BV.dtype, torch.float32)
    logprobs_BV = logits_BV.to(precise) / torch.where(greedy_B, 1.0, temperature_B).unsqueeze(1)
    support_BS = None
    if warp is not None and warp.banned_BV is not None:
        logprobs_BV = logprobs_BV.masked_fill(warp.banned_BV, -math.inf)
    if warp is not None and warp.top_k_B is not None and warp.top_p_B is not None:
        logprobs_BV, support_BS = _narrow(logprobs_BV, warp.top_k_B, warp.top_p_B)
    logprobs_BV = logprobs_BV.log_softmax(-1)
    cumulative_BV = logprobs_BV.exp().cumsum(-1)
    # right=True finds the first entry above the target: a token of probability zero is never drawn.
    target_B1 = (uniforms_B.to(cumulative_BV.dtype) * cumulative_BV[:, -1]).unsqueeze(1)
    ids_B = torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(1).clamp_(max=logits_BV.shape[1] - 1)
    if bool(greedy_B.any()):
        ids_B = torch.where(greedy_B, logprobs_BV.argmax(-1), ids_B)
    picked_B = logprobs_BV.gather(1, ids_B.unsqueeze(1)).squeeze(1)
    return ids_B, torch.where(greedy_B, 0.0, picked_B), support_BS


def _narrow(scores_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> tuple[Tensor, Tensor]:
    """Scores with -inf outside each row's support, and the supports. A row that asks for all keeps all: its support is -1."""
    V = scores_BV.shape[1]
    full_B = (top_k_B == 0) & (top_p_B == 1)
    k_B = torch.where(top_k_B == 0, V, top_k_B).clamp(max=V)
    sorted_BV, ids_BV = scores_BV.sort(dim=-1, descending=True, stable=True)
    sorted_BV = sorted_BV.masked_fill(torch.arange(V, device=scores_BV.device) >= k_B.unsqueeze(1), -math.inf)
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV  # a token is kept while those above it do not reach top_p
    kept_BV = (before_BV < top_p_B.unsqueeze(1)) & (sorted_BV > -math.inf)
    widest = int(kept_BV[~full_B].sum(-1).max()) if not bool(full_B.all()) else 0
    support_BS = torch.where(kept_BV & ~full_B.unsqueeze(1), ids_BV, -1)[:, :widest]
    dropped_BV = torch.empty_like(kept_BV).scatter_(1, ids_BV, ~kept_BV)
    return scores_BV.masked_fill(dropped_BV & ~full_B.unsqueeze(1), -math.inf), support_BS
