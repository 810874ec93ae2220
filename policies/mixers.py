"""The mixers of a hybrid layer beside Mamba-2 (mamba.py). Each has two forms that compute the same function:

    forward(x_Nd, packing, ...)   all tokens of packed segments at once: training and prefill
    step(x_Bd, state)             one token for each of B sequences: decoding

Parameter names are those of transformers' `nemotron_h`, so its weights load by name.
"""

# Shapes: N packed tokens, B sequences, S segments, d model, H query heads, J key-value heads, D head size, w window,
# E experts, K experts of a token.

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.attention import packed_attention
from ..kernels.experts import experts
from ..kernels.packing import Packing
from ..kernels.paged_attention import DecodeLayout, ExtendLayout, paged_decode_attention, paged_extend_attention
from ..kernels.relu_squared import relu_squared
from ..kernels.rotary import rotary
from ..kernels.router import route
from ..kernels.sliding_window import RingLayout, ring_decode_attention, ring_extend_attention
from .cache import Pages, Ring
from .config import HybridConfig
from .layers import Linear


class Attention(nn.Module):
    """Grouped-query attention; order comes from the Mamba layers, so there are no positions."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.q_proj = Linear(c.hidden_size, c.num_attention_heads * c.head_dim)
        self.k_proj = Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.v_proj = Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.o_proj = Linear(c.num_attention_heads * c.head_dim, c.hidden_size)

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
        self.up_proj = Linear(hidden_size, size)
        self.down_proj = Linear(size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(relu_squared(self.up_proj(x)))


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
        self.config, self.exact = config, False
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = MLP(config.hidden_size, config.shared_expert_size)
        latent = config.latent_size
        self.fc1_latent_proj = Linear(config.hidden_size, latent) if latent else nn.Identity()
        self.fc2_latent_proj = Linear(latent, config.hidden_size) if latent else nn.Identity()

    def forward(self, x_Nd: Tensor, replay_NK: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The output, the experts [N, K] that were chosen and the router's scores [N, E]. `replay_NK` holds a recorded choice, -1
        where there is none."""
        gates_NK, chosen_NK, scores_NE = route(
            x_Nd,
            self.gate.weight,
            self.gate.e_score_correction_bias,
            top_k=self.config.experts_per_token,
            scale=self.config.routed_scaling_factor,
            num_groups=self.config.num_expert_groups,
            groups_per_token=self.config.expert_groups_per_token,
            replay_NK=replay_NK,
            exact=self.exact,
        )
        latent_Nl = self.fc1_latent_proj(x_Nd)
        routed = experts(latent_Nl, gates_NK, chosen_NK, self.experts.up_proj, self.experts.down_proj)
        return self.fc2_latent_proj(routed) + self.shared_experts(x_Nd), chosen_NK, scores_NE
