"""State-space duality: Mamba-2's scan as chunks of matrix products (https://arxiv.org/abs/2405.21060, section 6).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D x_t

Within a chunk the recurrence is a masked matrix product; between chunks a small state is passed on. Chunks form a forest
(see packing.py): all chunks of one depth pass their states at once, so the number of sequential steps is the depth of the
longest path, not the number of chunks.
"""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups (R = H/G heads each), N state size, S segments.

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
) -> tuple[Tensor, Tensor]:
    """The scan over a forest of chunks. Padded tokens have dt = 0: they neither decay the state nor add to it.

    `levels[d]` maps the chunks of depth d to their parents among depth d - 1 (level 0: to the rows of `initial_SHPN`,
    or to zeros without it). Returns y [C, Q, H, P] and each chunk's last state [C, H, P, N]; the states carry no gradient.
    """
    return _SSD.apply(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, tuple(levels), initial_SHPN)  # type: ignore[no-any-return]


class _SSD(torch.autograd.Function):
    """Forward and backward by hand: the backward makes the small decays and scores again and keeps the states alone."""

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
    ) -> tuple[Tensor, Tensor]:
        parts = _ChunkParts(x, dt, A, B, C)
        y_CHQP = parts.mixing() @ parts.X_CHQP
        before_CHPN, after_CHPN = _pass_states(parts, levels, initial)
        from_start = parts.per_head(parts.C_CGQN @ parts.by_group(before_CHPN).transpose(2, 3))
        y_CHQP.addcmul_(from_start, parts.decay_CHQ.exp().unsqueeze(3))
        ctx.save_for_backward(x, dt, A, B, C, before_CHPN)
        ctx.levels = levels
        ctx.mark_non_differentiable(after_CHPN)
        return y_CHQP.transpose(1, 2), after_CHPN

    @staticmethod
    def backward(ctx: Any, grad_CQHP: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dt, A, B, C, before_CHPN = ctx.saved_tensors
        parts = _ChunkParts(x, dt, A, B, C)
        H, P, N = before_CHPN.shape[1:]
        dy_CHQP = grad_CQHP.transpose(1, 2).contiguous()
        from_start_CHQ1 = parts.decay_CHQ.exp().unsqueeze(3)

        # Inside a chunk.
        mixing = parts.mixing()
        dX_CHQP = mixing.transpose(2, 3) @ dy_CHQP
        dmixing = dy_CHQP @ parts.X_CHQP.transpose(2, 3)
        through = dmixing * mixing
        ddecay_CHQ = through.sum(3) - through.sum(2)
        dscores = dmixing.mul_(parts.between_CHQQ).unflatten(1, (-1, H // B.shape[2])).sum(2)
        dC_CGQN = dscores @ parts.B_CGQN
        dB_CGQN = dscores.transpose(2, 3) @ parts.C_CGQN

        # From the state before a chunk.
        dy_start_CHQP = dy_CHQP * from_start_CHQ1
        dy_group = parts.to_group(dy_start_CHQP)
        before_group = parts.by_group(before_CHPN)
        dC_CGQN += dy_group @ before_group
        out_start = parts.per_head(parts.C_CGQN @ before_group.transpose(2, 3))
        ddecay_CHQ += torch.linalg.vecdot(dy_start_CHQP, out_start)
        dbefore_CHPN = (dy_group.transpose(2, 3) @ parts.C_CGQN).view(-1, H, P, N)

        # Back through the depths: a chunk's last state feeds its children's first.
        kept_CH = parts.decay_CHQ[:, :, -1].exp()
        sizes = [len(level) for level in ctx.levels]
        dbefores, keeps = dbefore_CHPN.split(sizes), kept_CH[:, :, None, None].split(sizes)
        dafters: list[Tensor] = []
        for depth in reversed(range(len(sizes))):
            dafter = torch.zeros_like(dbefores[depth])
            if dafters:
                deeper = torch.addcmul(dbefores[depth + 1], dafters[-1], keeps[depth + 1])
                dafter.index_add_(0, ctx.levels[depth + 1], deeper)
            dafters.append(dafter)
        dafter_CHPN = torch.cat(dafters[::-1])
        dkept_CH = (dafter_CHPN * before_CHPN).sum((2, 3)) * kept_CH

        # What each token added to its chunk's state.
        to_end_CHQ1 = parts.to_end_CHQ.unsqueeze(3)
        dafter_group = parts.by_group(dafter_CHPN)
        dadded_CHQP = parts.per_head(parts.B_CGQN @ dafter_group.transpose(2, 3)) * to_end_CHQ1
        dB_CGQN += parts.to_group(parts.X_CHQP * to_end_CHQ1) @ dafter_group
        dto_end_CHQ = torch.linalg.vecdot(dadded_CHQP, parts.X_CHQP)
        ddecay_CHQ -= dto_end_CHQ
        ddecay_CHQ[:, :, -1] += dto_end_CHQ.sum(2) + dkept_CH
        dX_CHQP += dadded_CHQP

        dlog_CQH = ddecay_CHQ.flip(2).cumsum(2).flip(2).transpose(1, 2)
        dX_CQHP = dX_CHQP.transpose(1, 2)
        ddt = torch.linalg.vecdot(dX_CQHP, x).addcmul_(dlog_CQH, A)
        dA = (dlog_CQH * dt).sum((0, 1))
        return dX_CQHP * dt.unsqueeze(3), ddt, dA, dB_CGQN.transpose(1, 2), dC_CGQN.transpose(1, 2), None, None


class _ChunkParts:
    """What forward and backward both need of the inputs: scaled inputs, decays, scores."""

    def __init__(self, x_CQHP: Tensor, dt_CQH: Tensor, A_H: Tensor, B_CQGN: Tensor, C_CQGN: Tensor) -> None:
        C, Q, H, P = x_CQHP.shape
        self.R = H // B_CQGN.shape[2]
        self.decay_CHQ = (dt_CQH * A_H).transpose(1, 2).cumsum(dim=2)  # log of the decay from the chunk's start
        self.X_CHQP = (x_CQHP * dt_CQH.unsqueeze(-1)).transpose(1, 2).contiguous()
        self.B_CGQN, self.C_CGQN = B_CQGN.transpose(1, 2), C_CQGN.transpose(1, 2)
        later = torch.ones(Q, Q, dtype=torch.bool, device=x_CQHP.device).triu(1)
        difference = self.decay_CHQ.unsqueeze(3) - self.decay_CHQ.unsqueeze(2)
        self.between_CHQQ = difference.masked_fill_(later, float("-inf")).exp_()
        self.to_end_CHQ = (self.decay_CHQ[:, :, -1:] - self.decay_CHQ).exp_()

    def mixing(self) -> Tensor:
        """Token i sees token j <= i by C_i . B_j, decayed by exp(decay_i - decay_j)."""
        scores_CGQQ = self.C_CGQN @ self.B_CGQN.transpose(2, 3)
        return self.between_CHQQ * scores_CGQQ.repeat_interleave(self.R, dim=1)

    def added(self) -> Tensor:
        """What each chunk adds to the state [C, H, P, N]."""
        group = self.to_group(self.X_CHQP * self.to_end_CHQ.unsqueeze(3)).transpose(2, 3) @ self.B_CGQN
        return group.view(group.shape[0], -1, self.X_CHQP.shape[3], group.shape[3])

    def by_group(self, state_CHPN: Tensor) -> Tensor:
        C, H, P, N = state_CHPN.shape
        return state_CHPN.reshape(C, H // self.R, self.R * P, N)

    def per_head(self, group_CGQX: Tensor) -> Tensor:
        """[C, G, Q, R * P] to [C, H, Q, P]."""
        C, G, Q, X = group_CGQX.shape
        return group_CGQX.view(C, G, Q, self.R, X // self.R).transpose(2, 3).reshape(C, G * self.R, Q, -1)

    def to_group(self, head_CHQP: Tensor) -> Tensor:
        """[C, H, Q, P] to [C, G, Q, R * P]."""
        C, H, Q, P = head_CHQP.shape
        return head_CHQP.view(C, H // self.R, self.R, Q, P).transpose(2, 3).reshape(C, -1, Q, self.R * P)


def _pass_states(parts: _ChunkParts, levels: Sequence[Tensor], initial: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state before and after each chunk, depth by depth."""
    sizes = [len(level) for level in levels]
    befores: list[Tensor] = []
    afters: list[Tensor] = []
    kept = parts.decay_CHQ[:, :, -1].exp()[:, :, None, None]
    for depth, (parents, added, keep) in enumerate(
        zip(levels, parts.added().split(sizes), kept.split(sizes), strict=True)
    ):
        if depth:
            before = afters[-1].index_select(0, parents)
        else:
            before = torch.zeros_like(added) if initial is None else initial.index_select(0, parents).to(added.dtype)
        befores.append(before)
        afters.append(torch.addcmul(added, before, keep))
    return torch.cat(befores), torch.cat(afters)


def ssd_step(x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor) -> Tensor:
    """One token for each of B sequences; `state_BHPN` is updated in place. Returns y [B, H, P]."""
    batch, H, P = x_BHP.shape
    G, N = B_BGN.shape[1:]
    state_BGXN = state_BHPN.view(batch, G, H // G * P, N)
    state_BHPN.mul_(torch.exp(dt_BH * A_H)[:, :, None, None])
    state_BGXN.addcmul_((x_BHP * dt_BH.unsqueeze(2)).reshape(batch, G, -1, 1), B_BGN.unsqueeze(2))
    return (state_BGXN @ C_BGN.unsqueeze(3)).view(batch, H, P)
