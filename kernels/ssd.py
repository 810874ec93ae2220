"""State-space duality: Mamba-2's scan as chunks of matrix products (https://arxiv.org/abs/2405.21060, section 6).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D x_t

Within a chunk the recurrence is a masked matrix product; between chunks a small state is passed on. Chunks form a forest
(see packing.py): all chunks of one depth pass their states at once, so the number of sequential steps is the depth of the
longest path, not the number of chunks.
"""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups (R = H/G heads each), N state size, S segments, X = R P.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def ssd_ref(
    x_LHP: Tensor, dt_LH: Tensor, A_H: Tensor, B_LGN: Tensor, C_LGN: Tensor, state_HPN: Tensor | None = None
) -> tuple[Tensor, Tensor]:
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
    last_S: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The scan over a forest of chunks. Padded tokens have dt = 0: they neither decay the state nor add to it.

    `levels[d]` maps the chunks of depth d to their parents among depth d - 1 (level 0: to the rows of `initial_SHPN`,
    or to zeros without it). Returns y [C, Q, H, P] and the states [S, H, P, N] after the chunks `last_S`, without gradient.
    """
    return _SSD.apply(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, tuple(levels), initial_SHPN, last_S)  # type: ignore[no-any-return]


class _SSD(torch.autograd.Function):
    """Forward and backward by hand: the backward makes the small decays and scores again and keeps the states alone.

    Inside, a state is [C, G, N, X] with X = R * P, the layout in which tokens bring their heads: products with states need no
    transposed copies then.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        levels: tuple[Tensor, ...],
        initial: Tensor | None,
        last: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        parts = _ChunkParts(x, dt, A, B, C)
        added = parts.B_CGQN.transpose(2, 3) @ parts.grouped(parts.X_CQHP * parts.to_end_CQH1)
        before, after = _pass_states(added, parts.kept_CG1X, levels, None if initial is None else parts.inward(initial))
        y_CQHP = parts.by_head(parts.C_CGQN @ before)
        inside_CHQP = parts.mixing() @ parts.X_CHQP
        y_CQHP = y_CQHP.mul_(parts.from_start_CQH1).add_(inside_CHQP.transpose(1, 2))
        ctx.save_for_backward(x, dt, A, B, C, before)
        ctx.levels = levels
        states = None if last is None else parts.outward(after.index_select(0, last))
        if states is not None:
            ctx.mark_non_differentiable(states)
        return y_CQHP, states

    @staticmethod
    def backward(ctx: Any, grad_CQHP: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dt, A, B, C, before = ctx.saved_tensors
        parts = _ChunkParts(x, dt, A, B, C)
        R, P = parts.R, x.shape[3]
        grad_CQHP = grad_CQHP.contiguous()

        # Inside a chunk.
        dy_CHQP, X_CHQP = grad_CQHP.transpose(1, 2).contiguous(), parts.X_CHQP
        mixing = parts.mixing()
        dX_CHQP = mixing.transpose(2, 3) @ dy_CHQP
        dmixing = dy_CHQP @ X_CHQP.transpose(2, 3)
        through = mixing.mul_(dmixing)
        ddecay_CQH = (through.sum(3) - through.sum(2)).transpose(1, 2)
        dscores = dmixing.mul_(parts.between_CHQQ).unflatten(1, (-1, R)).sum(2)
        dC_CGQN = dscores @ parts.B_CGQN
        dB_CGQN = dscores.transpose(2, 3) @ parts.C_CGQN

        # From the state before a chunk.
        dy_start = grad_CQHP * parts.from_start_CQH1
        dy_start_CGQX = parts.grouped(dy_start)
        dC_CGQN += dy_start_CGQX @ before.transpose(2, 3)
        out_start = parts.by_head(parts.C_CGQN @ before)
        ddecay_CQH += out_start.mul_(dy_start).sum(3)
        dbefore = parts.C_CGQN.transpose(2, 3) @ dy_start_CGQX

        # Back through the depths: a chunk's last state feeds its children's first.
        dafter = _pass_back(dbefore, parts.kept_CG1X, ctx.levels)
        dkept_CGX = (dafter * before).sum(2) * parts.kept_CG1X.squeeze(2)
        dkept_CH = dkept_CGX.unflatten(2, (R, P)).sum(3).flatten(1)

        # What each token added to its chunk's state.
        scaled = parts.X_CQHP * parts.to_end_CQH1
        dB_CGQN += parts.grouped(scaled) @ dafter.transpose(2, 3)
        dadded = parts.by_head(parts.B_CGQN @ dafter)
        dto_end_CQH = scaled.mul_(dadded).sum(3)
        ddecay_CQH -= dto_end_CQH
        ddecay_CQH[:, -1] += dto_end_CQH.sum(1) + dkept_CH
        dX_CQHP = dadded.mul_(parts.to_end_CQH1).add_(dX_CHQP.transpose(1, 2))

        dlog_CQH = ddecay_CQH.flip(1).cumsum(1).flip(1)
        ddt = (dX_CQHP * x).sum(3).addcmul_(dlog_CQH, A)
        dA = (dlog_CQH * dt).sum((0, 1))
        dx = dX_CQHP.mul_(dt.unsqueeze(3))
        return dx, ddt, dA, dB_CGQN.transpose(1, 2), dC_CGQN.transpose(1, 2), None, None, None


class _ChunkParts:
    """What forward and backward both need of the inputs: scaled inputs, decays, scores."""

    def __init__(self, x_CQHP: Tensor, dt_CQH: Tensor, A_H: Tensor, B_CQGN: Tensor, C_CQGN: Tensor) -> None:
        self.shape, self.G = x_CQHP.shape, B_CQGN.shape[2]
        C, Q, H, P = self.shape
        self.R = H // self.G
        decay_CQH = (dt_CQH * A_H).cumsum(dim=1)  # log of the decay from the chunk's start
        self.X_CQHP = x_CQHP * dt_CQH.unsqueeze(3)
        self.X_CHQP = self.X_CQHP.transpose(1, 2).contiguous()
        self.B_CGQN, self.C_CGQN = B_CQGN.transpose(1, 2), C_CQGN.transpose(1, 2)
        later = torch.ones(Q, Q, dtype=torch.bool, device=x_CQHP.device).triu(1)
        decay_CHQ = decay_CQH.transpose(1, 2).contiguous()
        difference = decay_CHQ.unsqueeze(3) - decay_CHQ.unsqueeze(2)
        self.between_CHQQ = difference.masked_fill_(later, float("-inf")).exp_()
        self.to_end_CQH1 = (decay_CQH[:, -1:] - decay_CQH).exp_().unsqueeze(3)
        self.from_start_CQH1 = decay_CQH.exp().unsqueeze(3)
        kept_CH = decay_CQH[:, -1].exp()
        self.kept_CG1X = kept_CH.view(C, self.G, 1, self.R, 1).expand(-1, -1, -1, -1, P).reshape(C, self.G, 1, -1)

    def mixing(self) -> Tensor:
        """Token i sees token j <= i by C_i . B_j, decayed by exp(decay_i - decay_j)."""
        scores_CGQQ = self.C_CGQN @ self.B_CGQN.transpose(2, 3)
        between = self.between_CHQQ.unflatten(1, (self.G, self.R))
        return (between * scores_CGQQ.unsqueeze(2)).flatten(1, 2)

    def grouped(self, x_CQHP: Tensor) -> Tensor:
        """[C, Q, H, P] to [C, G, Q, X]."""
        C, Q, _, P = self.shape
        return x_CQHP.view(C, Q, self.G, self.R * P).transpose(1, 2)

    def by_head(self, x_CGQX: Tensor) -> Tensor:
        """[C, G, Q, X] to [C, Q, H, P]."""
        return x_CGQX.transpose(1, 2).reshape(self.shape)

    def inward(self, state_SHPN: Tensor) -> Tensor:
        """[S, H, P, N] to [S, G, N, X]."""
        return state_SHPN.unflatten(1, (self.G, self.R)).flatten(2, 3).transpose(2, 3)

    def outward(self, state_SGNX: Tensor) -> Tensor:
        """[S, G, N, X] to [S, H, P, N]."""
        return state_SGNX.transpose(2, 3).unflatten(2, (self.R, -1)).flatten(1, 2)


def _pass_states(
    added: Tensor, kept: Tensor, levels: Sequence[Tensor], initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The state before and after each chunk, depth by depth; `added` becomes the latter."""
    before, above, start = torch.empty_like(added), slice(0, 0), 0
    for depth, parents in enumerate(levels):
        rows = slice(start, start + len(parents))
        if depth:
            torch.index_select(added[above], 0, parents, out=before[rows])
        elif initial is None:
            before[rows] = 0
        else:
            before[rows] = initial.index_select(0, parents)
        added[rows].addcmul_(before[rows], kept[rows])
        above, start = rows, rows.stop
    return before, added


def _pass_back(dbefore: Tensor, kept: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """The gradients of the states after each chunk, deepest first. `dbefore` is used up."""
    dafter, below, end = torch.empty_like(dbefore), slice(0, 0), len(dbefore)
    for depth in reversed(range(len(levels))):
        rows = slice(end - len(levels[depth]), end)
        dafter[rows] = 0
        if depth + 1 < len(levels):
            dbefore[below].addcmul_(dafter[below], kept[below])
            dafter[rows].index_add_(0, levels[depth + 1], dbefore[below])
        below, end = rows, rows.start
    return dafter


def ssd_step(x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor) -> Tensor:
    """One token for each of B sequences; `state_BHPN` is updated in place. Returns y [B, H, P]."""
    batch, H, P = x_BHP.shape
    G, N = B_BGN.shape[1:]
    state_BGXN = state_BHPN.view(batch, G, H // G * P, N)
    state_BHPN.mul_(torch.exp(dt_BH * A_H)[:, :, None, None])
    state_BGXN.addcmul_((x_BHP * dt_BH.unsqueeze(2)).reshape(batch, G, -1, 1), B_BGN.unsqueeze(2))
    return (state_BGXN @ C_BGN.unsqueeze(3)).view(batch, H, P)
