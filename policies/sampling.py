"""Sampling with per-request random streams: one uniform a token, a pure function of (request seed, token number).

What a request samples thus depends on nothing but its seed and its logits: not on slots, batches or other requests.
"""

# Shapes: B sequences, V vocabulary.

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

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


def sample(logits_BV: Tensor, temperature_B: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [B] by inversion of the cumulative distribution, and their log-probabilities. Temperature 0 is greedy."""
    greedy_B = temperature_B == 0
    scaled_BV = logits_BV / torch.where(greedy_B, 1.0, temperature_B).unsqueeze(1)
    logprobs_BV = scaled_BV.log_softmax(-1)
    cumulative_BV = logprobs_BV.exp().cumsum(-1)
    # right=True finds the first entry above the target: a token of probability zero is never drawn.
    target_B1 = (uniforms_B.to(cumulative_BV.dtype) * cumulative_BV[:, -1]).unsqueeze(1)
    ids_B = torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(1).clamp_(max=logits_BV.shape[1] - 1)
    if bool(greedy_B.any()):
        ids_B = torch.where(greedy_B, logits_BV.argmax(-1), ids_B)
    picked_B = logprobs_BV.gather(1, ids_B.unsqueeze(1)).squeeze(1)
    return ids_B, torch.where(greedy_B, 0.0, picked_B)
