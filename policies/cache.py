"""The recurrent cache: for each sequence a Mamba state of fixed size and a key-value history for each attention layer.

Rows are slots. The engine keeps the slots that decode at the front, so a decode step works on views and copies nothing.
"""

# Shapes: B slots, T capacity in tokens, X = K - 1 convolution inputs, H heads, P head size, N state, J key-value heads.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import HybridConfig


@dataclass(frozen=True)
class MambaState:
    inputs_BXD: Tensor
    state_BHPN: Tensor
    """fp32 whatever the model's precision: bf16 here costs up to 4 nats in a token's log-probability."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs_BXD, self.state_BHPN

    def front(self, n: int) -> MambaState:
        return MambaState(self.inputs_BXD[:n], self.state_BHPN[:n])


@dataclass(frozen=True)
class AttentionState:
    keys_BJTD: Tensor
    values_BJTD: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.keys_BJTD, self.values_BJTD


class Cache:
    """State of `num_slots` sequences of at most `capacity` tokens, for every layer of a model."""

    def __init__(self, config: HybridConfig, num_slots: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.num_slots, self.capacity = config, num_slots, capacity
        self.lengths_B = torch.zeros(num_slots, dtype=torch.int64)
        self.layers: list[MambaState | AttentionState | None] = []
        state_dtype = torch.promote_types(dtype, torch.float32)
        for letter in config.pattern:
            if letter == "M":
                shape = (num_slots, config.mamba_num_heads, config.mamba_head_dim, config.ssm_state_size)
                inputs = torch.zeros(num_slots, config.conv_kernel - 1, config.conv_size, dtype=dtype)
                self.layers.append(MambaState(inputs, torch.zeros(shape, dtype=state_dtype)))
            elif letter == "*":
                shape = (num_slots, config.num_key_value_heads, capacity, config.head_dim)
                self.layers.append(AttentionState(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)))
            else:
                self.layers.append(None)

    def mamba(self, layer: int) -> MambaState:
        state = self.layers[layer]
        assert isinstance(state, MambaState)
        return state

    def attention(self, layer: int) -> AttentionState:
        state = self.layers[layer]
        assert isinstance(state, AttentionState)
        return state

    def clear(self, slots: Tensor) -> None:
        """Begin anew in these slots. Keys need no clearing: what lies beyond a slot's length is never seen."""
        self.lengths_B[slots] = 0
        for layer in self.layers:
            if isinstance(layer, MambaState):
                for tensor in layer.tensors():
                    tensor[slots] = 0

    def copy(self, source: Tensor, target: Tensor) -> None:
        """target[i] becomes source[i]; sources are read before any target is written."""
        longest = int(self.lengths_B[source].max()) if len(source) else 0
        self.lengths_B[target] = self.lengths_B[source]
        for layer in self.layers:
            if layer is None:
                continue
            for tensor in layer.tensors():
                if isinstance(layer, AttentionState):
                    tensor[target, :, :longest] = tensor[source, :, :longest]
                else:
                    tensor[target] = tensor[source]

    @property
    def num_bytes(self) -> int:
        return sum(t.nbytes for layer in self.layers if layer is not None for t in layer.tensors())
