"""State-space duality: Mamba-2's scan as chunks of matrix products (https://arxiv.org/abs/2405.21060, section 6).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D x_t

Within a chunk the recurrence is a masked matrix product; between chunks a small state is passed on. Chunks form a forest
(see packing.py): all chunks of one depth pass their states at once, so the number of sequential steps is the depth of the
longest path, not the number of chunks.
"""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups (R = H/G heads each), N state size, S segments.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ssd_ref(x_LHP: Tensor, dt_LH: Tensor, A_H: Tensor, B_LGN: Tensor, C_LGN: Tensor, state_HPN: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The recurrence itself over one sequence of L tokens, in the inputs' precision. Returns y [L, H, P] and the state."""
    L, H, P = x_LHP.shape
    R = H // B_LGN.shape[1]
    B_LHN, C_LHN = B_LGN.repeat_interleave(R, dim=1), C_LGN.repeat_interleave(R, dim=1)
    state = x_LHP.new_zeros(H, P, B_LGN.shape[2]) if state_HPN is None else state_HPN
    ys = []
    for t in range(L):
        decay_H = torch.exp(dt_LH[t] * A_H)
        state = decay_H[:, None, None] * state + torch.einsum("hp,hn->hpn", dt_LH[t, :, None] * x_LHP[t], B_LHN[t])
        ys.append(torch.einsum("hpn,hn->hp", state, C_LHN[t]))
    return torch.stack(ys), state


def ssd_chunks(
    x_CQHP: Tensor,
    dt_CQH: Tensor,
    A_H: Tensor,
    B_CQGN: Tensor,
    C_CQGN: Tensor,
    levels: Sequence[Tensor],
    initial_SHPN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The scan over a forest of chunks. Padded tokens have dt = 0: they neither decay the state nor add to it.

    `levels[d]` maps the chunks of depth d to their parents among depth d - 1 (level 0: to the rows of `initial_SHPN`,
    or to zeros without it). Returns y [C, Q, H, P] and each chunk's last state [C, H, P, N].
    """
    C, Q, H, P = x_CQHP.shape
    G, N = B_CQGN.shape[2:]
    R = H // G
    decay_CHQ = (dt_CQH * A_H).cumsum(dim=1).transpose(1, 2)  # log of the decay from the chunk's start
    X_CHQP = (x_CQHP * dt_CQH.unsqueeze(-1)).transpose(1, 2)
    B_CGQN, C_CGQN = B_CQGN.transpose(1, 2), C_CQGN.transpose(1, 2)

    # Inside a chunk: token i sees token j <= i, decayed by exp(decay_i - decay_j).
    scores_CGQQ = C_CGQN @ B_CGQN.transpose(2, 3)
    later = torch.ones(Q, Q, dtype=torch.bool, device=x_CQHP.device).triu(1)
    between_CHQQ = (decay_CHQ.unsqueeze(3) - decay_CHQ.unsqueeze(2)).masked_fill(later, float("-inf")).exp()
    mixing = (scores_CGQQ.unsqueeze(2) * between_CHQQ.view(C, G, R, Q, Q)).view(C, H, Q, Q)
    y_CHQP = mixing @ X_CHQP

    # Between chunks: what each chunk adds to the state, then the states of each depth from those of the depth before.
    to_end_CHQ = (decay_CHQ[:, :, -1:] - decay_CHQ).exp()
    added = (X_CHQP * to_end_CHQ.unsqueeze(3)).transpose(2, 3).reshape(C, G, R * P, Q) @ B_CGQN
    added_CHPN = added.view(C, H, P, N)
    kept_CH11 = decay_CHQ[:, :, -1].exp()[:, :, None, None]
    befores: list[Tensor] = []
    afters: list[Tensor] = []
    sizes = [len(level) for level in levels]
    pieces = zip(levels, added_CHPN.split(sizes), kept_CH11.split(sizes), strict=True)
    for depth, (parents, added_piece, kept_piece) in enumerate(pieces):
        if depth:
            before = afters[-1].index_select(0, parents)
        elif initial_SHPN is not None:
            before = initial_SHPN.index_select(0, parents)
        else:
            before = torch.zeros_like(added_piece)
        befores.append(before)
        afters.append(torch.addcmul(added_piece, before, kept_piece))
    before_CGXN = torch.cat(befores).view(C, G, R * P, N)
    from_start = (C_CGQN @ before_CGXN.transpose(2, 3)).view(C, G, Q, R, P).transpose(2, 3).reshape(C, H, Q, P)
    y_CHQP = torch.addcmul(y_CHQP, from_start, decay_CHQ.exp().unsqueeze(3))
    return y_CHQP.transpose(1, 2), torch.cat(afters)


def ssd_step(x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor) -> Tensor:
    """One token for each of B sequences; `state_BHPN` is updated in place. Returns y [B, H, P]."""
    batch, H, P = x_BHP.shape
    G, N = B_BGN.shape[1:]
    state_BGXN = state_BHPN.view(batch, G, H // G * P, N)
    state_BHPN.mul_(torch.exp(dt_BH * A_H)[:, :, None, None])
    state_BGXN.addcmul_((x_BHP * dt_BH.unsqueeze(2)).reshape(batch, G, -1, 1), B_BGN.unsqueeze(2))
    return (state_BGXN @ C_BGN.unsqueeze(3)).view(batch, H, P)
