"""State-space duality: Mamba-2's scan as chunks of matrix products (https://arxiv.org/abs/2405.21060, section 6).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D x_t

Within a chunk the recurrence is a masked matrix product; between chunks a small state is passed on. Chunks form a forest
(see packing.py): all chunks of one depth pass their states at once, so the number of sequential steps is the depth of the
longest path, not the number of chunks.
"""

# Shapes: C chunks, c of a block, Q tokens of a chunk, H heads, P head size, G groups (R = H/G heads each), N state size, S segments,
# X = R P.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import external
from .backend import needs_gradient, uses_external, uses_triton
from .blocks import blocks
from .compiled import uses_compiled
from .ssd_cpu import ssd_chunks_cpu
from .ssd_states import States


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
    if uses_external("ssd_chunks", x_CQHP):
        return external.ssd_chunks(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, levels, initial_SHPN, last_S)
    Q, P, N = x_CQHP.shape[1], x_CQHP.shape[3], B_CQGN.shape[3]
    if uses_triton(dt_CQH, x_CQHP, A_H, B_CQGN, C_CQGN) and Q <= 256 and P <= 128 and N <= 256:
        from .ssd_triton import ssd_chunks_triton

        return ssd_chunks_triton(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, levels, initial_SHPN, last_S)
    if uses_compiled(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN):
        return ssd_chunks_cpu(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, levels, initial_SHPN, last_S)
    return _SSD.apply(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, tuple(levels), initial_SHPN, last_S)  # type: ignore[no-any-return]


class _SSD(torch.autograd.Function):
    """Forward and backward by hand, block by block of chunks: only states, inputs and outputs are ever whole. The backward makes the
    small decays and scores again.

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
        scan = _Scan(x, dt, A, B, C)
        y_CQHP, after = torch.empty(scan.shape, dtype=x.dtype, device=x.device), scan.new_states()
        states = States(after, levels, None if initial is None else scan.inward(initial))
        for block in scan.blocks():
            part = scan.part(block)
            torch.matmul(part.B_cGQN.transpose(2, 3), part.grouped(part.X_cQHP * part.to_end_cQH1), out=after[block])
            before = states.pass_on(block, scan.kept_CG1X)
            y_CQHP[block] = (part.mixing() @ part.by_time(part.X_cQHP)).transpose(1, 2)
            y_CQHP[block].addcmul_(part.by_head(part.C_cGQN @ before), part.from_start_cQH1)
        ctx.save_for_backward(x, dt, A, B, C, after, states.initial, y_CQHP)
        ctx.levels = levels
        if last is None:
            return y_CQHP, None
        last_states = scan.outward(after.index_select(0, last))
        ctx.mark_non_differentiable(last_states)
        return y_CQHP, last_states

    @staticmethod
    def backward(ctx: Any, grad_CQHP: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dt, A, B, C, after, initial, y = ctx.saved_tensors
        scan, states = _Scan(x, dt, A, B, C), States(after, ctx.levels, initial)
        grad_CQHP, gradient = grad_CQHP.contiguous(), states.gradient()
        dx, ddecay_CQH, ddt = torch.empty_like(grad_CQHP), torch.empty_like(dt), torch.empty_like(dt)
        dB, dC = (torch.empty(B.shape, dtype=B.dtype, device=B.device) for _ in range(2))
        for block in reversed(list(scan.blocks())):
            part, dy = scan.part(block), grad_CQHP[block]
            dy_start = part.grouped(dy * part.from_start_cQH1)
            end = gradient.pass_back(block, part.C_cGQN.transpose(2, 3) @ dy_start, scan.kept_CG1X)
            dX_cQHP, dB[block], dC[block] = part.gradients(dy, dy_start, states.before(block), end)
            ddt[block] = (dX_cQHP * x[block]).sum(3)
            # A decay up to token i scales its output up, its input down; that of the whole chunk scales the state after it.
            ddecay_CQH[block] = (y[block] * dy).sum(3).addcmul_(ddt[block], dt[block], value=-1)
            ddecay_CQH[block, -1] += scan.head_sums(end * after[block])
            torch.mul(dX_cQHP, dt[block].unsqueeze(3), out=dx[block])
        dlog_CQH = ddecay_CQH.flip(1).cumsum(1).flip(1)
        return dx, ddt.addcmul_(dlog_CQH, A), (dlog_CQH * dt).sum((0, 1)), dB, dC, None, None, None


class _Scan:
    """The inputs of a scan, cut into blocks of chunks."""

    def __init__(self, x_CQHP: Tensor, dt_CQH: Tensor, A_H: Tensor, B_CQGN: Tensor, C_CQGN: Tensor) -> None:
        self.x, self.dt, self.B, self.C = x_CQHP, dt_CQH, B_CQGN, C_CQGN
        self.shape, self.G, self.N = x_CQHP.shape, B_CQGN.shape[2], B_CQGN.shape[3]
        C, Q, H, P = self.shape
        self.R = H // self.G
        self.decay_CQH = (dt_CQH * A_H).cumsum(dim=1)  # log of the decay from the chunk's start
        kept_CH = self.decay_CQH[:, -1].exp()
        self.kept_CG1X = kept_CH.view(C, self.G, 1, self.R, 1).expand(-1, -1, -1, -1, P).reshape(C, self.G, 1, -1)
        self.seen_QQ = torch.ones(Q, Q, dtype=x_CQHP.dtype, device=x_CQHP.device).tril()

    def blocks(self) -> Iterator[slice]:
        _, Q, H, P = self.shape
        return blocks(self.x, max(Q, self.N) * H * P)

    def part(self, block: slice) -> _Part:
        return _Part(self, block)

    def new_states(self) -> Tensor:
        C, _, H, P = self.shape
        return self.x.new_empty(C, self.G, self.N, self.R * P)

    def head_sums(self, products: Tensor) -> Tensor:
        """[c, G, N, X] summed over each head's own: [c, H]."""
        c, P = len(products), self.shape[3]
        ones = products.new_ones(1, self.N)
        return (ones @ products).view(c, -1, P).sum(2)

    def inward(self, state_SHPN: Tensor) -> Tensor:
        """[S, H, P, N] to [S, G, N, X]."""
        return state_SHPN.unflatten(1, (self.G, self.R)).flatten(2, 3).transpose(2, 3)

    def outward(self, state_SGNX: Tensor) -> Tensor:
        """[S, G, N, X] to [S, H, P, N]."""
        return state_SGNX.transpose(2, 3).unflatten(2, (self.R, -1)).flatten(1, 2)


class _Part:
    """What forward and backward both need of a block of c chunks: scaled inputs, decays, scores."""

    def __init__(self, scan: _Scan, block: slice) -> None:
        self.scan = scan
        self.X_cQHP = scan.x[block] * scan.dt[block].unsqueeze(3)
        self.shape = self.X_cQHP.shape
        self.B_cGQN, self.C_cGQN = (t[block].transpose(1, 2) for t in (scan.B, scan.C))
        self.decay_cQH = scan.decay_CQH[block]
        self.to_end_cQH1 = (self.decay_cQH[:, -1:] - self.decay_cQH).exp_().unsqueeze(3)
        self.from_start_cQH1 = self.decay_cQH.exp().unsqueeze(3)

    @property
    def between_cHQQ(self) -> Tensor:
        """exp(decay_i - decay_j) for tokens j <= i, else 0: by a product, since exp(-inf) takes ten times as long as exp(0)."""
        decay_cHQ = self.decay_cQH.transpose(1, 2).contiguous()
        difference = decay_cHQ.unsqueeze(3) - decay_cHQ.unsqueeze(2)
        return difference.clamp_max_(0).exp_().mul_(self.scan.seen_QQ)

    def mixing(self, between_cHQQ: Tensor | None = None) -> Tensor:
        """Token i sees token j <= i by C_i . B_j, decayed by exp(decay_i - decay_j)."""
        scores_cGQQ = self.C_cGQN @ self.B_cGQN.transpose(2, 3)
        between = (self.between_cHQQ if between_cHQQ is None else between_cHQQ).unflatten(1, (self.scan.G, -1))
        return (between * scores_cGQQ.unsqueeze(2)).flatten(1, 2)

    def gradients(
        self, dy_cQHP: Tensor, dy_start_cGQX: Tensor, before: Tensor, dafter: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of X = x dt, of B and of C. `dy_start` is dy decayed from the chunk's start."""
        # Inside a chunk.
        dy_cHQP, between = self.by_time(dy_cQHP), self.between_cHQQ
        dX_cHQP = self.mixing(between).transpose(2, 3) @ dy_cHQP
        dmixing = dy_cHQP @ self.by_time(self.X_cQHP).transpose(2, 3)
        dscores = dmixing.mul_(between).unflatten(1, (self.scan.G, -1)).sum(2)
        dC_cGQN = dscores @ self.B_cGQN
        dB_cGQN = dscores.transpose(2, 3) @ self.C_cGQN
        # From the state before a chunk, and into that after it.
        dC_cGQN += dy_start_cGQX @ before.transpose(2, 3)
        dB_cGQN += self.grouped(self.X_cQHP * self.to_end_cQH1) @ dafter.transpose(2, 3)
        dX_cQHP = self.by_head(self.B_cGQN @ dafter).mul_(self.to_end_cQH1).add_(dX_cHQP.transpose(1, 2))
        return dX_cQHP, dB_cGQN.transpose(1, 2), dC_cGQN.transpose(1, 2)

    def by_time(self, x_cQHP: Tensor) -> Tensor:
        """[c, Q, H, P] to [c, H, Q, P]."""
        return x_cQHP.transpose(1, 2).contiguous()

    def grouped(self, x_cQHP: Tensor) -> Tensor:
        """[c, Q, H, P] to [c, G, Q, X]."""
        return x_cQHP.unflatten(2, (self.scan.G, -1)).flatten(3).transpose(1, 2)

    def by_head(self, x_cGQX: Tensor) -> Tensor:
        """[c, G, Q, X] to [c, Q, H, P]."""
        return x_cGQX.transpose(1, 2).reshape(self.shape)


def ssd_step(x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor) -> Tensor:
    """One token for each of B sequences; `state_BHPN` is updated in place. Returns y [B, H, P]."""
    inputs = (x_BHP, dt_BH, A_H, B_BGN, C_BGN)
    if state_BHPN.dtype is torch.float32 and state_BHPN.is_contiguous() and not needs_gradient(*inputs, state_BHPN):
        if uses_external("ssd_step", x_BHP):
            return external.ssd_step(*inputs, state_BHPN)
        if uses_triton(state_BHPN, *inputs):
            from .ssd_triton import ssd_step_triton

            return ssd_step_triton(*inputs, state_BHPN)
    batch, H, P = x_BHP.shape
    G, N = B_BGN.shape[1:]
    state_BGXN = state_BHPN.view(batch, G, H // G * P, N)
    state_BHPN.mul_(torch.exp(dt_BH * A_H)[:, :, None, None])
    state_BGXN.addcmul_((x_BHP * dt_BH.unsqueeze(2)).reshape(batch, G, -1, 1), B_BGN.unsqueeze(2))
    return (state_BGXN @ C_BGN.unsqueeze(3)).view(batch, H, P)
