"""A HybridModel's decode step in C (kernels/decode_cpu.py), on a CPU in fp32: the same function as HybridModel.step and its logits.

Weights are packed once and again when they change. What the C form has not (exact replay, groups of experts, other precisions)
is left to the torch form, for the whole model.
"""

# Shapes: B rows, P pages of a table, V vocabulary, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..kernels.compiled import pack, uses_compiled
from ..kernels.decode_cpu import AttentionLayer, DecodeModel, ExpertsLayer, MambaLayer, MLPLayer
from .cache import Cache, MambaState
from .hybrid import HybridModel, Layer
from .mamba import Mamba2
from .mixers import MLP, Attention, MoE, WindowAttention


def can_compile(model: HybridModel) -> bool:
    """Whether the step of this model, as it is now, has a form in C here."""
    config = model.config
    return (
        config.expert_groups_per_token >= config.num_expert_groups
        and not model.exact
        and uses_compiled(*model.parameters())
    )


class CompiledStep:
    """The step of a model that `can_compile`, on a cache."""

    def __init__(self, model: HybridModel, cache: Cache) -> None:
        self.model, self.cache = model, cache
        self._weights = list(model.state_dict(keep_vars=True).values())
        self._packed: tuple[DecodeModel, int] | None = None

    def step(self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """One token for each of the cache's first B rows, which then hold lengths_B tokens: logits [B, V] and routes [B, E, K]."""
        return self._fresh().decode(ids_B, tables_BP, lengths_B, self.cache.page_size)

    def refresh(self) -> None:
        """Pack the weights anew: they changed in a way that leaves no trace, as fused optimizers change them."""
        self._packed = None

    def _fresh(self) -> DecodeModel:
        """The packed model, of the weights that are there now."""
        now = sum([weight._version for weight in self._weights])
        if self._packed is None or self._packed[1] != now:
            self._packed = self._pack(), now
        return self._packed[0]

    @property
    def num_bytes(self) -> int:
        """Of the packed weights: about as many as the model has."""
        return sum(weight.nbytes for weight in self._weights if weight.dim() > 1)

    @torch.no_grad()
    def _pack(self) -> DecodeModel:
        model = self.model
        layers = [(layer.norm.weight.detach(), self._mixer(index, layer)) for index, layer in enumerate(model.layers)]
        return DecodeModel(
            layers, embeddings=model.embeddings.weight.detach(), norm=model.norm_f.weight.detach(), head_p=pack(model.lm_head.weight),
            eps=model.config.norm_eps, top_k=model.config.experts_per_token,
        )  # fmt: skip

    def _mixer(self, index: int, layer: Layer) -> MambaLayer | AttentionLayer | ExpertsLayer | MLPLayer:
        mixer = layer.mixer
        if isinstance(mixer, Mamba2):
            return self._mamba(mixer, index)
        if isinstance(mixer, Attention):
            return self._attention(mixer, index)
        if isinstance(mixer, MoE):
            return self._experts(mixer)
        assert isinstance(mixer, MLP)
        up, down = mixer.up_proj.weight, mixer.down_proj.weight
        return MLPLayer(s=len(up), up_p=pack(up), down_p=pack(down))

    def _mamba(self, mixer: Mamba2, index: int) -> MambaLayer:
        c, state = self.model.config, self.cache.mamba(index)
        assert isinstance(state, MambaState) and mixer.conv1d.bias is not None
        return MambaLayer(
            H=c.mamba_num_heads, P=c.mamba_head_dim, G=c.mamba_num_groups, N=c.ssm_state_size, K=c.conv_kernel, eps=c.norm_eps,
            least_dt=c.time_step_min, in_p=pack(mixer.in_proj.weight), taps=mixer.conv1d.weight.detach().squeeze(1).T.contiguous(),
            bias=mixer.conv1d.bias.detach(), dt_bias=mixer.dt_bias.detach(), A_log=mixer.A_log.detach(), D=mixer.D.detach(),
            norm=mixer.norm.weight.detach(), out_p=pack(mixer.out_proj.weight), inputs=state.inputs_RXD, states=state.state_RHPN,
        )  # fmt: skip

    def _attention(self, mixer: Attention, index: int) -> AttentionLayer:
        c, windowed = self.model.config, isinstance(mixer, WindowAttention)
        if windowed:
            ring = self.cache.ring(index)
            size, keys, values = c.window_size, ring.keys_RJDw, ring.values_RJwD
        else:
            pages = self.cache.pages(index)
            size, keys, values = self.cache.page_size, pages.keys_NJDp, pages.values_NJpD
        qkv = torch.cat([mixer.q_proj.weight, mixer.k_proj.weight, mixer.v_proj.weight])
        return AttentionLayer(
            H=c.num_attention_heads, J=c.num_key_value_heads, D=c.head_dim, p=size, is_window=windowed, theta=c.rope_theta,
            qkv_p=pack(qkv), out_p=pack(mixer.o_proj.weight), keys=keys, values=values,
        )  # fmt: skip

    def _experts(self, mixer: MoE) -> ExpertsLayer:
        c, latent = self.model.config, self.model.config.latent_size
        shared, into, out_of = mixer.shared_experts, mixer.fc1_latent_proj, mixer.fc2_latent_proj
        return ExpertsLayer(
            E=c.num_experts, K=c.experts_per_token, f=c.expert_size, l=latent or c.hidden_size, s=c.shared_expert_size,
            scale=c.routed_scaling_factor, router_p=pack(mixer.gate.weight), bias=mixer.gate.e_score_correction_bias,
            up_p=pack(mixer.experts.up_proj), down_p=pack(mixer.experts.down_proj), shared_up_p=pack(shared.up_proj.weight),
            shared_down_p=pack(shared.down_proj.weight), into_p=pack(into.weight) if latent else None,  # type: ignore[arg-type]
            out_of_p=pack(out_of.weight) if latent else None,  # type: ignore[arg-type]
        )  # fmt: skip
