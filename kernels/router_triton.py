"""router.py in Triton: one program takes a token's logits to scores, chosen experts and gates, and back.

Of experts that score alike the lowest is chosen; torch says nothing of their order.
"""

# Shapes: N tokens, E experts, K chosen experts of a token.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def route_forward(
    logit_p, bias_p, replay_p, score_p, chosen_p, gate_p, E, scale, K: tl.constexpr, REPLAY: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    lane, place = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_K)
    here = lane < E
    score = tl.sigmoid(tl.load(logit_p + row * E + lane, here, 0.0).to(tl.float32))
    tl.store(score_p + row * E + lane, score, here)
    wanted = tl.where(here, score + tl.load(bias_p + lane, here, 0.0).to(tl.float32), float("-inf"))
    chosen, picked = tl.zeros([BLOCK_K], tl.int64), tl.zeros([BLOCK_K], tl.float32)
    for k in range(K):
        best = tl.min(tl.where(wanted == tl.max(wanted, 0), lane, E - 1), 0)
        wanted = tl.where(lane == best, float("-inf"), wanted)
        taken = best.to(tl.int64)
        if REPLAY:
            recorded = tl.load(replay_p + row * K + k)
            taken = tl.where(recorded < 0, taken, recorded)
        chosen = tl.where(place == k, taken, chosen)
        picked = tl.where(place == k, tl.sum(tl.where(lane == taken, score, 0.0), 0), picked)
    gate = scale * picked / (tl.sum(picked, 0) + 1e-20)
    tl.store(chosen_p + row * K + place, chosen, place < K)
    tl.store(gate_p + row * K + place, gate, place < K)


@triton.jit
def route_backward(
    score_p,
    chosen_p,
    dgate_p,
    dscore_p,
    dlogit_p,
    E,
    scale,
    K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane, place = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_K)
    here, here_k = lane < E, place < K
    score = tl.load(score_p + row * E + lane, here, 0.0)
    chosen = tl.load(chosen_p + row * K + place, here_k, 0)
    picked = tl.load(score_p + row * E + chosen, here_k, 0.0)
    dgate = tl.load(dgate_p + row * K + place, here_k, 0.0).to(tl.float32)
    whole = tl.sum(picked, 0) + 1e-20
    dpicked = scale * (dgate - tl.sum(dgate * picked, 0) / whole) / whole
    dscore = tl.load(dscore_p + row * E + lane, here, 0.0).to(tl.float32)
    for k in range(K):
        taken = tl.sum(tl.where(place == k, chosen, 0), 0)
        dscore += tl.where(lane == taken, tl.sum(tl.where(place == k, dpicked, 0.0), 0), 0.0)
    tl.store(dlogit_p + row * E + lane, dscore * score * (1 - score), here)


_FLOATS = ("logit_p", "bias_p", "score_p", "gate_p", "dgate_p", "dscore_p", "dlogit_p")
_TYPES = {**dict.fromkeys(_FLOATS, "*fp32"), "chosen_p": "*i64", "replay_p": "*i64", "E": "i32", "scale": "fp32"}
_CONSTANTS = {"K": 6, "BLOCK_E": 128, "BLOCK_K": 8}
COMPILED = [
    (kernel, {name: kind for name, kind in _TYPES.items() if name in kernel.arg_names}, {**_CONSTANTS, **flags})
    for kernel, flags in ((route_forward, {"REPLAY": True}), (route_forward, {"REPLAY": False}), (route_backward, {}))
]
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""


def route_triton(
    logits_NE: Tensor, bias_E: Tensor, top_k: int, scale: float, replay_NK: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates [N, K], chosen experts [N, K] and scores [N, E] of fp32 logits."""
    return _Route.apply(logits_NE, bias_E, top_k, scale, replay_NK)  # type: ignore[no-any-return]


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, logits: Tensor, bias: Tensor, top_k: int, scale: float, replay: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = logits.contiguous()
        N, E = logits.shape
        scores, gates = torch.empty_like(logits), logits.new_empty(N, top_k)
        chosen = torch.empty(N, top_k, dtype=torch.int64, device=logits.device)
        recorded = chosen if replay is None else replay.to(torch.int64).contiguous()
        blocks = {"BLOCK_E": triton.next_power_of_2(E), "BLOCK_K": triton.next_power_of_2(top_k)}
        if N:
            route_forward[(N,)](
                logits, bias.contiguous(), recorded, scores, chosen, gates, E, scale, K=top_k, REPLAY=replay is not None, **blocks
            )  # fmt: skip
        ctx.save_for_backward(scores, chosen)
        ctx.scale, ctx.blocks = scale, blocks
        ctx.mark_non_differentiable(chosen)
        return gates, chosen, scores

    @staticmethod
    def backward(ctx: Any, dgates: Tensor, _: Any, dscores: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scores, chosen = ctx.saved_tensors
        N, E = scores.shape
        dlogits = torch.empty_like(scores)
        if N:
            route_backward[(N,)](
                scores,
                chosen,
                dgates.contiguous(),
                dscores.contiguous(),
                dlogits,
                E,
                ctx.scale,
                K=chosen.shape[1],
                **ctx.blocks,
            )
        return dlogits, None, None, None, None
