"""HybridModel: the Mamba-Transformer mixture-of-experts language model, `h <- h + Mixer(RMSNorm(h))` a layer.

    forward(ids, packing)                 training: packed segments, a forest
    forward(ids, packing, place)          prefill: segments continue cached sequences
    step(ids, cache, layout)              decoding: one token for each of the first B rows

All three give the hidden states before the head and the experts that were chosen, so that a caller computes logits only
where it needs them and can replay the routes.
"""

# Shapes: N packed tokens, B sequences, S segments, d model, E mixture-of-experts layers, K experts of a token, V vocabulary.

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.linear_logprobs import linear_logprobs, weighted_logprobs
from ..kernels.packing import Packing
from ..kernels.paged_attention import DecodeLayout, ExtendLayout
from ..kernels.sliding_window import RingLayout
from .balance import ExpertLoads
from .cache import Cache
from .config import HybridConfig
from .exact_replay import ReplayLayout, ReplayState
from .layers import Linear, RMSNorm
from .mamba import Mamba2
from .mixers import MLP, Attention, MoE, WindowAttention


@dataclass(frozen=True)
class CachePlace:
    """Where the segments of a prefill continue: segment s in row rows_S[s], its pages and rings as the layouts say."""

    cache: Cache
    rows_S: Tensor
    pages: ExtendLayout | None
    rings: RingLayout | None
    """None where the model has no such layers."""
    replay: ReplayLayout | None
    """Of an exact cache."""

    @staticmethod
    def build(
        cache: Cache, rows_S: np.ndarray, tables_SP: np.ndarray, past_S: np.ndarray, new_S: np.ndarray
    ) -> CachePlace:
        """Segment s adds new_S[s] tokens to the past_S[s] that its row and its table's pages hold."""
        config, device = cache.config, cache.device
        pages = ExtendLayout.build(tables_SP, past_S, new_S, cache.page_size, device) if "*" in config.pattern else None
        rings = RingLayout.build(rows_S, past_S, new_S, config.window_size, device) if "W" in config.pattern else None
        replay = ReplayLayout.build(config, past_S, new_S, device) if cache.exact and "M" in config.pattern else None
        return CachePlace(cache, torch.from_numpy(rows_S).to(device), pages, rings, replay)


class Layer(nn.Module):
    def __init__(self, config: HybridConfig, letter: str) -> None:
        super().__init__()
        self.letter = letter
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mixer: Mamba2 | Attention | WindowAttention | MoE | MLP = {
            "M": lambda: Mamba2(config),
            "*": lambda: Attention(config),
            "W": lambda: WindowAttention(config),
            "E": lambda: MoE(config),
            "-": lambda: MLP(config.hidden_size, config.mlp_size),
        }[letter]()


class HybridModel(nn.Module):
    """Untied embeddings, the layers of `config.pattern`, a final norm and a head."""

    def __init__(self, config: HybridConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers: Iterable[Layer] = nn.ModuleList(Layer(config, letter) for letter in config.pattern)  # type: ignore[assignment]
        self.norm_f = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.exact = False
        self.reset_parameters(seed)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Normal weights; the projections that write to the residual stream are scaled by layers^-0.5."""
        if self.lm_head.weight.is_meta:
            return
        generator = torch.Generator().manual_seed(seed)
        std = self.config.init_std or 0.9 * self.config.hidden_size**-0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            writes = name.endswith(self._writers)
            parameter.normal_(0.0, std * (len(self.config.pattern) ** -0.5 if writes else 1.0), generator=generator)
        self.embeddings.weight.normal_(0.0, self.config.embedding_std, generator=generator)
        for layer in self.layers:
            if isinstance(layer.mixer, Mamba2):
                layer.mixer.reset_parameters(generator)

    @property
    def _writers(self) -> tuple[str, ...]:
        """The projections that write to the residual stream."""
        routed = "fc2_latent_proj.weight" if self.config.latent_size else "experts.down_proj"
        return "out_proj.weight", "o_proj.weight", "down_proj.weight", routed

    @property
    def exact(self) -> bool:
        """Whether Mamba-2 layers and routers give the same bits in decoding and prefill (exact_replay.py). Caches made for the
        model are to be of the same mind."""
        return self._exact

    @exact.setter
    def exact(self, exact: bool) -> None:
        self._exact = exact
        for module in self.modules():
            if isinstance(module, Mamba2 | MoE | RMSNorm):
                module.exact = exact

    def forward(
        self,
        ids_N: Tensor,
        packing: Packing,
        *,
        routes_NEK: Tensor | None = None,
        place: CachePlace | None = None,
        scores: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Hidden states [N, d] and routes [N, E, K]. With a place in a cache, its sequences are continued there. Each router's
        scores [N, experts] are appended to `scores`, for an auxiliary loss."""
        h_Nd = F.embedding(ids_N, self.embeddings.weight)
        routes: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x_Nd, mixer = layer.norm(h_Nd), layer.mixer
            if isinstance(mixer, Mamba2):
                state = None if place is None else place.cache.mamba(index)
                if place is not None and isinstance(state, ReplayState):
                    assert place.replay is not None
                    y_Nd = mixer.replay(x_Nd, place.replay, state, place.rows_S)
                else:
                    y_Nd = mixer(x_Nd, packing, state, None if place is None else place.rows_S)
            elif isinstance(mixer, Attention):
                if place is None:
                    y_Nd = mixer(x_Nd, packing)
                elif isinstance(mixer, WindowAttention):
                    assert place.rings is not None
                    y_Nd = mixer.extend_ring(x_Nd, place.cache.ring(index), place.rows_S, place.rings)
                else:
                    assert place.pages is not None
                    y_Nd = mixer.extend(x_Nd, place.cache.pages(index), place.pages)
            elif isinstance(mixer, MoE):
                replay_NK = None if routes_NEK is None else routes_NEK[:, len(routes)]
                y_Nd, chosen_NK, scores_Ne = mixer(x_Nd, replay_NK)
                routes.append(chosen_NK)
                if scores is not None:
                    scores.append(scores_Ne)
            else:
                y_Nd = mixer(x_Nd)
            h_Nd = h_Nd + y_Nd
        return self.norm_f(h_Nd), self._stack(routes, len(ids_N))

    def step(self, ids_B: Tensor, cache: Cache, layout: DecodeLayout) -> tuple[Tensor, Tensor]:
        """Hidden states [B, d] and routes [B, E, K] for one more token in each of the cache's first B rows."""
        B = len(ids_B)
        h_Bd = F.embedding(ids_B, self.embeddings.weight)
        routes: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x_Bd, mixer = layer.norm(h_Bd), layer.mixer
            if isinstance(mixer, Mamba2):
                state = cache.mamba(index).front(B)
                if isinstance(state, ReplayState):
                    h_Bd += mixer.replay_step(x_Bd, state, layout.lengths_B)
                else:
                    h_Bd += mixer.step(x_Bd, state)
            elif isinstance(mixer, WindowAttention):
                h_Bd += mixer.step_ring(x_Bd, cache.ring(index).front(B), layout.lengths_B)
            elif isinstance(mixer, Attention):
                h_Bd += mixer.step(x_Bd, cache.pages(index), layout)
            elif isinstance(mixer, MoE):
                y_Bd, chosen_BK, _ = mixer(x_Bd)
                routes.append(chosen_BK)
                h_Bd += y_Bd
            else:
                h_Bd += mixer(x_Bd)
        return self.norm_f(h_Bd), self._stack(routes, B)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden.to(self.lm_head.weight.dtype), self.lm_head.weight)

    def logprobs(
        self, hidden_Nd: Tensor, targets_N: Tensor, temperature_N: Tensor, support_NS: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each target and the entropy of its distribution, without keeping the logits."""
        return linear_logprobs(hidden_Nd, self.lm_head.weight, targets_N, temperature_N, support_NS)

    def weighted_logprobs(
        self,
        hidden_Nd: Tensor,
        targets_N: Tensor,
        temperature_N: Tensor,
        coefficients_N: Tensor,
        support_NS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """sum_n coefficient_n log p_n in one pass, and beside it log-probabilities and entropies, which have no gradient."""
        return weighted_logprobs(hidden_Nd, self.lm_head.weight, targets_N, temperature_N, coefficients_N, support_NS)

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def head(self) -> Tensor:
        return self.lm_head.weight

    def plan(self, lengths: Sequence[int], parents: Sequence[int]) -> Packing:
        """The index plan of packed segments, with chunks and convolutions of this model's sizes."""
        config = self.config
        return Packing.build(lengths, parents, chunk_size=config.chunk_size, conv_kernel=config.conv_kernel)

    def loads(self) -> ExpertLoads:
        """A count of what its experts were given, still empty."""
        return ExpertLoads(self.config.num_moe_layers, self.config.num_experts)

    def routers(self) -> list[MoE]:
        return [cast(MoE, layer.mixer) for layer in self.layers if isinstance(layer.mixer, MoE)]

    @torch.no_grad()
    def balance(self, loads: ExpertLoads, rate: float) -> None:
        """Move each layer's selection bias by `rate` towards even loads: those of a whole optimizer step, of all processes."""
        for layer, moe in enumerate(self.routers()):
            bias_E = moe.gate.e_score_correction_bias
            bias_E += rate * loads.bias_step(layer).to(bias_E.device)

    def _stack(self, routes: list[Tensor], num_tokens: int) -> Tensor:
        if not routes:
            device = self.lm_head.weight.device
            return torch.zeros(num_tokens, 0, self.config.experts_per_token, dtype=torch.int64, device=device)
        return torch.stack(routes, dim=1)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """A name for weights: the hash of every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
