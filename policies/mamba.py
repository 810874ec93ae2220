"""Mamba-2 (https://arxiv.org/abs/2405.21060): projection, short convolution, scan, gate, norm, projection.

forward(x_Nd, packing, ...)   all tokens of packed segments at once: training and prefill, by the chunked form
step(x_Bd, state)             one token for each of B sequences: decoding, by the recurrence
replay, replay_step           both by the chunked form, bit for bit alike (exact_replay.py)
"""

# Shapes: N packed tokens, B sequences, S segments, C chunks, Q tokens of a chunk, M tokens of a replay, d model, H heads,
# P head size, G groups, n state size, x channels of the convolution.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.conv1d import causal_conv1d_chunks, causal_conv1d_step
from ..kernels.exact import exact_linear, exact_softplus
from ..kernels.gather import gather_rows
from ..kernels.linear import linear
from ..kernels.norm import gated_rms_norm
from ..kernels.packing import Packing
from ..kernels.ssd import ssd_chunks, ssd_step
from .cache import MambaState
from .config import HybridConfig
from .exact_replay import ReplayLayout, ReplayState
from .layers import Linear, RMSNorm


class Mamba2(nn.Module):
    """Where `exact` is set its projections, norm and convolution are the same bits for one token as for many."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config, self.exact = config, False
        c = config
        self.in_proj = Linear(c.hidden_size, c.mamba_size + c.conv_size + c.mamba_num_heads)
        self.conv1d = nn.Conv1d(c.conv_size, c.conv_size, c.conv_kernel, groups=c.conv_size)
        self.dt_bias = nn.Parameter(torch.empty(c.mamba_num_heads))
        self.A_log = nn.Parameter(torch.empty(c.mamba_num_heads))
        self.D = nn.Parameter(torch.empty(c.mamba_num_heads))
        self.norm = RMSNorm(c.mamba_size, c.norm_eps)
        self.out_proj = Linear(c.mamba_size, c.hidden_size)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """A = -1, -2, ... by head; steps log-uniform in [time_step_min, time_step_max]."""
        c = self.config
        self.A_log.copy_(torch.log(torch.arange(1, c.mamba_num_heads + 1)))
        self.D.fill_(1.0)
        low, high = math.log(c.time_step_min), math.log(c.time_step_max)
        dt = torch.exp(torch.rand(c.mamba_num_heads, generator=generator) * (high - low) + low).clamp(min=1e-4)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        bound = c.conv_kernel**-0.5
        self.conv1d.weight.uniform_(-bound, bound, generator=generator)
        self._bias.zero_()

    def forward(
        self, x_Nd: Tensor, packing: Packing, state: MambaState | None = None, rows_S: Tensor | None = None
    ) -> Tensor:
        """With a state, segment s continues the sequence in row rows_S[s] and leaves its own state there."""
        c = self.config
        z_Nx, rows = self._in(x_Nd)
        if state is None:
            # Sequences begin with zeros.
            taps_CX = torch.where(packing.taps_CX < packing.num_tokens, packing.taps_CX, -1)
            y_Nx, _ = self._scan(rows, taps_CX, packing)
            return self._out(y_Nx, z_Nx)
        inputs = state.inputs_RXD[rows_S]
        rows = torch.cat([rows, F.pad(inputs.flatten(0, 1), (0, c.mamba_num_heads))])
        initial = state.state_RHPN[rows_S]
        y_Nx, states_SHPn = self._scan(rows, packing.taps_CX, packing, initial, packing.last_chunk_S)
        assert states_SHPn is not None
        state.state_RHPN[rows_S] = states_SHPn.to(state.state_RHPN.dtype)
        state.inputs_RXD[rows_S] = gather_rows(rows, packing.tails_SX)[..., : c.conv_size]
        return self._out(y_Nx, z_Nx)

    def replay(self, x_Nd: Tensor, layout: ReplayLayout, state: ReplayState, rows_S: Tensor) -> Tensor:
        """`forward` with a state, of the exact mode: unfinished chunks are computed again from their beginning."""
        z_Nx, rows = self._in(x_Nd)
        inputs_SXx, initial = state.inputs_RXx[rows_S], state.state_RHPn[rows_S]
        rows = torch.cat([inputs_SXx.flatten(0, 1), rows]).index_select(0, layout.take_M)
        rows = torch.cat([rows, inputs_SXx[:, : self.config.conv_kernel - 1].flatten(0, 1)])
        packing = layout.packing
        y_Mx, states_SHPn = self._scan(rows, packing.taps_CX, packing, initial, layout.whole_S)
        assert states_SHPn is not None
        state.state_RHPn[rows_S] = torch.where(layout.has_whole_S[:, None, None, None], states_SHPn, initial)
        state.inputs_RXx[rows_S] = gather_rows(rows, layout.left_SX)
        return self._out(y_Mx.index_select(0, layout.new_N), z_Nx)

    def step(self, x_Bd: Tensor, state: MambaState) -> Tensor:
        c = self.config
        z_Bx, rows = self._in(x_Bd)
        xBC_Bx, dt_BH = rows.split([c.conv_size, c.mamba_num_heads], dim=1)
        xBC_Bx = causal_conv1d_step(xBC_Bx.to(self._precise), self._taps, self._bias, state.inputs_RXD)
        dt_BH = F.softplus(dt_BH + self.dt_bias).clamp_(min=c.time_step_min)
        x_BHP, B_BGn, C_BGn = self._split(xBC_Bx)
        y_BHP = ssd_step(x_BHP, dt_BH, -torch.exp(self.A_log), B_BGn, C_BGn, state.state_RHPN)
        return self._out(y_BHP.addcmul_(x_BHP, self.D.unsqueeze(1)).reshape(-1, c.mamba_size), z_Bx)

    def replay_step(self, x_Bd: Tensor, state: ReplayState, lengths_B: Tensor) -> Tensor:
        """`step` of the exact mode: each row's unfinished chunk by the chunked form. `lengths_B` counts the new token."""
        c = self.config
        z_Bx, rows = self._in(x_Bd)
        places_B = (lengths_B - 1).clamp(min=0) % c.chunk_size
        state.append(rows, places_B, c.conv_kernel)
        each_B = torch.arange(len(x_Bd), device=x_Bd.device)
        come_BQ = torch.arange(c.chunk_size, device=x_Bd.device) <= places_B.unsqueeze(1)
        y_BQHP, states_BHPn = self._scan_chunks(state.inputs_RXx, come_BQ, (each_B,), state.state_RHPn, each_B)
        assert states_BHPn is not None
        state.finish(places_B, states_BHPn, c.conv_kernel)
        return self._out(y_BQHP[each_B, places_B].flatten(1), z_Bx)

    def _in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gate, and what the convolution and the steps' softplus are fed with."""
        c, weight = self.config, self.in_proj.weight
        sizes = [c.mamba_size, c.conv_size + c.mamba_num_heads]
        if self.exact:
            gate, rows = exact_linear(x, weight).split(sizes, dim=1)
        elif torch.is_grad_enabled():  # two products: the gradient of one would be put together from its parts
            gate, rows = (linear(x, part) for part in weight.split(sizes))
        else:
            gate, rows = linear(x, weight).split(sizes, dim=1)
        return gate, rows

    def _scan(
        self,
        rows: Tensor,
        taps_CX: Tensor,
        packing: Packing,
        initial_SHPn: Tensor | None = None,
        last_S: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Convolution and scan of packed tokens [N, H * P], and the states after the chunks `last_S`."""
        gathered_CXx = gather_rows(rows, taps_CX)
        y_CQHP, states_SHPn = self._scan_chunks(gathered_CXx, packing.valid_CQ, packing.levels, initial_SHPn, last_S)
        return gather_rows(y_CQHP.reshape(-1, self.config.mamba_size), packing.token_slots_N), states_SHPn

    def _scan_chunks(
        self,
        inputs_CXx: Tensor,
        valid_CQ: Tensor,
        levels: Sequence[Tensor],
        initial_SHPn: Tensor | None,
        last_S: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        c = self.config
        xBC_CXx, dt_CXH = inputs_CXx.to(self._precise).split([c.conv_size, c.mamba_num_heads], dim=2)
        xBC_CQx = causal_conv1d_chunks(xBC_CXx, self._taps, self._bias, exact=self.exact)
        softplus = exact_softplus if self.exact else F.softplus
        dt_CQH = softplus(dt_CXH[:, c.conv_kernel - 1 :] + self.dt_bias)
        dt_CQH = dt_CQH.clamp(min=c.time_step_min) * valid_CQ.unsqueeze(2)
        x_CQHP, B_CQGn, C_CQGn = self._split(xBC_CQx)
        decay_H = -torch.exp(self.A_log)
        y_CQHP, states_SHPn = ssd_chunks(x_CQHP, dt_CQH, decay_H, B_CQGn, C_CQGn, levels, initial_SHPn, last_S)
        return torch.addcmul(y_CQHP, x_CQHP, self.D.unsqueeze(1)), states_SHPn

    def _out(self, y: Tensor, z: Tensor) -> Tensor:
        c = self.config
        gate, groups = z.to(self._precise), c.mamba_num_groups
        normed = gated_rms_norm(y, gate, self.norm.weight, c.norm_eps, groups, exact=self.exact).to(z.dtype)
        return exact_linear(normed, self.out_proj.weight) if self.exact else self.out_proj(normed)

    @property
    def _precise(self) -> torch.dtype:
        """Of the scan and its convolution (precision.py)."""
        return self.A_log.dtype

    @property
    def _taps(self) -> Tensor:
        return self.conv1d.weight.squeeze(1).to(self._precise)

    @property
    def _bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias.to(self._precise)

    def _split(self, xBC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        size = c.mamba_num_groups * c.ssm_state_size
        x, B, C = xBC.split([c.mamba_size, size, size], dim=-1)
        groups = (c.mamba_num_groups, c.ssm_state_size)
        return x.unflatten(-1, (c.mamba_num_heads, c.mamba_head_dim)), B.unflatten(-1, groups), C.unflatten(-1, groups)
