"""The five mixers of a hybrid layer. Each has two forms that compute the same function:

    forward(x_Nd, packing, ...)   all tokens of packed segments at once: training and prefill
    step(x_Bd, state)             one token for each of B sequences: decoding

Parameter names are those of transformers' `nemotron_h`, so its weights load by name.
"""

# Shapes: N packed tokens, B sequences, S segments, C chunks, Q tokens of a chunk, d model, H heads, P head size,
# G groups, n state size, E experts, K experts of a token.

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.attention import packed_attention
from ..kernels.conv1d import causal_conv1d_chunks, causal_conv1d_step
from ..kernels.experts import experts
from ..kernels.gather import gather_rows
from ..kernels.norm import gated_rms_norm, rms_norm
from ..kernels.packing import Packing
from ..kernels.paged_attention import DecodeLayout, ExtendLayout, paged_decode_attention, paged_extend_attention
from ..kernels.rotary import rotary
from ..kernels.router import route
from ..kernels.sliding_window import RingLayout, ring_decode_attention, ring_extend_attention
from ..kernels.ssd import ssd_chunks, ssd_step
from .cache import MambaState, Pages, Ring
from .config import HybridConfig


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Mamba2(nn.Module):
    """Mamba-2 (https://arxiv.org/abs/2405.21060): projection, short convolution, scan, gate, norm, projection."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.in_proj = nn.Linear(c.hidden_size, c.mamba_size + c.conv_size + c.mamba_num_heads, bias=False)
        self.conv1d = nn.Conv1d(c.conv_size, c.conv_size, c.conv_kernel, groups=c.conv_size)
        self.dt_bias = nn.Parameter(torch.empty(c.mamba_num_heads))
        self.A_log = nn.Parameter(torch.empty(c.mamba_num_heads))
        self.D = nn.Parameter(torch.empty(c.mamba_num_heads))
        self.norm = RMSNorm(c.mamba_size, c.norm_eps)
        self.out_proj = nn.Linear(c.mamba_size, c.hidden_size, bias=False)

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
        z_Nx, rows = self.in_proj(x_Nd).split([c.mamba_size, c.conv_size + c.mamba_num_heads], dim=1)
        taps_CX = packing.taps_CX
        initial = None
        if state is None:
            taps_CX = torch.where(taps_CX < packing.num_tokens, taps_CX, -1)  # sequences begin with zeros
        else:
            inputs = state.inputs_RXD[rows_S]
            rows = torch.cat([rows, F.pad(inputs.flatten(0, 1), (0, c.mamba_num_heads))])
            initial = state.state_RHPN[rows_S]
        gathered_CXx = gather_rows(rows, taps_CX).to(self._precise)
        inputs_CXx, dt_CXH = gathered_CXx.split([c.conv_size, c.mamba_num_heads], dim=2)
        xBC_CQx = causal_conv1d_chunks(inputs_CXx, self._taps, self._bias)
        dt_CQH = F.softplus(dt_CXH[:, c.conv_kernel - 1 :] + self.dt_bias)
        dt_CQH = dt_CQH.clamp(min=c.time_step_min) * packing.valid_CQ.unsqueeze(2)
        x_CQHP, B_CQGn, C_CQGn = self._split(xBC_CQx)
        last_S = None if state is None else packing.last_chunk_S
        decay_H = -torch.exp(self.A_log)
        y_CQHP, states_SHPn = ssd_chunks(x_CQHP, dt_CQH, decay_H, B_CQGn, C_CQGn, packing.levels, initial, last_S)
        y_CQHP = torch.addcmul(y_CQHP, x_CQHP, self.D.unsqueeze(1))
        y_Nx = gather_rows(y_CQHP.reshape(-1, c.mamba_size), packing.token_slots_N)
        if state is not None:
            assert states_SHPn is not None
            state.state_RHPN[rows_S] = states_SHPn.to(state.state_RHPN.dtype)
            state.inputs_RXD[rows_S] = gather_rows(rows, packing.tails_SX)[..., : c.conv_size]
        return self._out(y_Nx, z_Nx)

    def step(self, x_Bd: Tensor, state: MambaState) -> Tensor:
        c = self.config
        z_Bx, xBC_Bx, dt_BH = self.in_proj(x_Bd).split([c.mamba_size, c.conv_size, c.mamba_num_heads], dim=1)
        xBC_Bx = causal_conv1d_step(xBC_Bx.to(self._precise), self._taps, self._bias, state.inputs_RXD)
        dt_BH = F.softplus(dt_BH + self.dt_bias).clamp_(min=c.time_step_min)
        x_BHP, B_BGn, C_BGn = self._split(xBC_Bx)
        y_BHP = ssd_step(x_BHP, dt_BH, -torch.exp(self.A_log), B_BGn, C_BGn, state.state_RHPN)
        return self._out(y_BHP.addcmul_(x_BHP, self.D.unsqueeze(1)).reshape(-1, c.mamba_size), z_Bx)

    def _out(self, y: Tensor, z: Tensor) -> Tensor:
        c = self.config
        normed = gated_rms_norm(y, z.to(self._precise), self.norm.weight, c.norm_eps, c.mamba_num_groups)
        return self.out_proj(normed.to(z.dtype))

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


class Attention(nn.Module):
    """Grouped-query attention; order comes from the Mamba layers, so there are no positions."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)

    def forward(self, x_Nd: Tensor, packing: Packing) -> Tensor:
        return self.o_proj(packed_attention(*self._project(x_Nd), packing))

    def extend(self, x_Nd: Tensor, pages: Pages, layout: ExtendLayout) -> Tensor:
        """Prefill: new tokens join their sequences' pages and see what these hold up to themselves."""
        q_NHD, k_NJD, v_NJD = self._project(x_Nd)
        pages.keys_NJDp[layout.page_N, :, :, layout.offset_N] = k_NJD
        pages.values_NJpD[layout.page_N, :, layout.offset_N] = v_NJD
        return self.o_proj(paged_extend_attention(q_NHD, pages.keys_NJDp, pages.values_NJpD, layout))

    def step(self, x_Bd: Tensor, pages: Pages, layout: DecodeLayout) -> Tensor:
        q_BHD, k_BJD, v_BJD = self._project(x_Bd)
        pages.keys_NJDp[layout.page_B, :, :, layout.offset_B] = k_BJD
        pages.values_NJpD[layout.page_B, :, layout.offset_B] = v_BJD
        return self.o_proj(paged_decode_attention(q_BHD, pages.keys_NJDp, pages.values_NJpD, layout))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        heads = (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)
        q, k, v = (t.unflatten(-1, (h, c.head_dim)) for t, h in zip((q, k, v), heads, strict=True))
        return q, k, v


class WindowAttention(Attention):
    """Grouped-query attention over a sliding window, with rotary positions."""

    def forward(self, x_Nd: Tensor, packing: Packing) -> Tensor:
        q_NHD, k_NJD, v_NJD = self._turned(x_Nd, packing.positions_N)
        return self.o_proj(packed_attention(q_NHD, k_NJD, v_NJD, packing, self.config.window_size))

    def extend_ring(self, x_Nd: Tensor, ring: Ring, rows_S: Tensor, layout: RingLayout) -> Tensor:
        """Prefill: new tokens see their rows' rings and themselves, and the rings then hold the last of them."""
        q_NHD, k_NJD, v_NJD = self._turned(x_Nd, layout.positions_N)
        y_Nx = ring_extend_attention(q_NHD, k_NJD, v_NJD, ring.keys_RJDw, ring.values_RJwD, rows_S, layout)
        return self.o_proj(y_Nx)

    def step_ring(self, x_Bd: Tensor, ring: Ring, lengths_B: Tensor) -> Tensor:
        """`ring` holds the rows of the step, `lengths_B` counts the new token."""
        positions_B = (lengths_B - 1).clamp(min=0)
        q_BHD, k_BJD, v_BJD = self._turned(x_Bd, positions_B)
        rows_B, places_B = torch.arange(len(x_Bd), device=x_Bd.device), positions_B % self.config.window_size
        ring.keys_RJDw[rows_B, :, :, places_B] = k_BJD
        ring.values_RJwD[rows_B, :, places_B] = v_BJD
        return self.o_proj(ring_decode_attention(q_BHD, ring.keys_RJDw, ring.values_RJwD, lengths_B))

    def _turned(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._project(x)
        theta = self.config.rope_theta
        return rotary(q, positions, theta), rotary(k, positions, theta), v


class MLP(nn.Module):
    """W_down relu(W_up x)^2."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(hidden_size, size, bias=False)
        self.down_proj = nn.Linear(size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(torch.relu(self.up_proj(x)).square())


class Router(nn.Module):
    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.num_experts))
        self.e_score_correction_bias: Tensor


class Experts(nn.Module):
    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        c, size = config, config.latent_size or config.hidden_size
        self.up_proj = nn.Parameter(torch.empty(c.num_experts, c.expert_size, size))
        self.down_proj = nn.Parameter(torch.empty(c.num_experts, size, c.expert_size))


class MoE(nn.Module):
    """Routed experts beside one shared expert. With a latent size the routed ones work between two projections, while router and
    shared expert see the whole (LatentMoE, https://arxiv.org/abs/2601.18089)."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = MLP(config.hidden_size, config.shared_expert_size)
        latent = config.latent_size
        self.fc1_latent_proj = nn.Linear(config.hidden_size, latent, bias=False) if latent else nn.Identity()
        self.fc2_latent_proj = nn.Linear(latent, config.hidden_size, bias=False) if latent else nn.Identity()

    def forward(self, x_Nd: Tensor, replay_NK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output and the experts that were chosen. `replay_NK` holds a recorded choice, -1 where there is none."""
        gates_NK, chosen_NK, _ = route(
            x_Nd,
            self.gate.weight,
            self.gate.e_score_correction_bias,
            top_k=self.config.experts_per_token,
            scale=self.config.routed_scaling_factor,
            num_groups=self.config.num_expert_groups,
            groups_per_token=self.config.expert_groups_per_token,
            replay_NK=replay_NK,
        )
        latent_Nl = self.fc1_latent_proj(x_Nd)
        routed = experts(latent_Nl, gates_NK, chosen_NK, self.experts.up_proj, self.experts.down_proj)
        return self.fc2_latent_proj(routed) + self.shared_experts(x_Nd), chosen_NK
