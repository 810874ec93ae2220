"""The router of a mixture of experts: sigmoid scores, a bias that only selects, gates that add up.

    scores = sigmoid(x W_g);  chosen = top-k(scores + bias);  gates = scale * scores / sum of the chosen scores

The bias balances loads (https://arxiv.org/abs/2408.15664); the router is fp32 at least. With groups, a token first picks those
whose two best experts score highest together, and its experts among theirs (https://arxiv.org/abs/2412.19437, section 2.1.2). A
recorded choice can be replayed: the gates are computed from live scores, so gradients flow (https://arxiv.org/abs/2510.11370).
"""

# Shapes: N tokens, E experts, G groups of experts, K chosen experts of a token, d model.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import uses_triton
from .exact import exact_linear, exact_sigmoid


def route(
    x_Nd: Tensor,
    weight_Ed: Tensor,
    bias_E: Tensor,
    *,
    top_k: int,
    scale: float,
    num_groups: int = 1,
    groups_per_token: int = 1,
    replay_NK: Tensor | None = None,
    exact: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates [N, K], chosen experts [N, K] and scores [N, E] of each token. Rows of `replay_NK` that are -1 are routed anew. `exact`:
    a token's results are the same bits in whatever company (exact.py)."""
    precise = torch.promote_types(x_Nd.dtype, torch.float32)
    linear, sigmoid = (exact_linear, exact_sigmoid) if exact else (F.linear, torch.sigmoid)
    logits_NE = linear(x_Nd.to(precise), weight_Ed.to(precise))
    if not exact and groups_per_token >= num_groups and uses_triton(logits_NE, bias_E):
        from .router_triton import route_triton

        return route_triton(logits_NE, bias_E, top_k, scale, replay_NK)
    scores_NE = sigmoid(logits_NE)
    if replay_NK is None or bool((replay_NK < 0).any()):
        choice_NE = scores_NE.detach() + bias_E
        if groups_per_token < num_groups:
            choice_NE = _in_best_groups(choice_NE, num_groups, groups_per_token)
        live_NK = torch.topk(choice_NE, top_k, dim=-1).indices
        chosen_NK = live_NK if replay_NK is None else torch.where(replay_NK < 0, live_NK, replay_NK)
    else:
        chosen_NK = replay_NK
    picked_NK = scores_NE.gather(1, chosen_NK)
    return scale * picked_NK / (picked_NK.sum(dim=-1, keepdim=True) + 1e-20), chosen_NK, scores_NE


def _in_best_groups(choice_NE: Tensor, num_groups: int, groups_per_token: int) -> Tensor:
    """Experts outside of a token's best groups cannot be chosen."""
    choice_NGe = choice_NE.unflatten(1, (num_groups, -1))
    best_NG = choice_NGe.topk(2, dim=-1).values.sum(-1)
    picked = best_NG.topk(groups_per_token, dim=-1).indices
    dropped_NG = torch.ones_like(best_NG, dtype=torch.bool).scatter_(1, picked, False)
    return choice_NGe.masked_fill(dropped_NG.unsqueeze(2), float("-inf")).flatten(1)


def balance_loss(scores_NE: Tensor, chosen_NK: Tensor, counted_N: Tensor | None = None) -> Tensor:
    """The auxiliary loss E * sum_e f_e P_e of a layer: f_e the share of choices that fell on e, P_e its mean share of a token's
    scores (https://arxiv.org/abs/2101.03961, section 2.2; sigmoid scores are normalised first). It is 1 where loads are even.
    Tokens where `counted_N` is False, such as padding, are left out."""
    if counted_N is not None:
        scores_NE, chosen_NK = scores_NE[counted_N], chosen_NK[counted_N]
    num_experts = scores_NE.shape[1]
    counts_E = torch.bincount(chosen_NK.reshape(-1), minlength=num_experts).to(scores_NE.dtype)
    share_NE = scores_NE / (scores_NE.sum(1, keepdim=True) + 1e-20)
    return num_experts * (counts_E / max(chosen_NK.numel(), 1) * share_NE.mean(0)).sum()
