"""The recurrent cache: for each row a Mamba state and a ring of each sliding window, both of fixed size, and a pool of
key-value pages for each attention layer that sees all.

A sequence owns one row and a list of pages. The engine keeps the rows that decode at the front, so that a decode step works
on views and copies nothing; pages lie where they lie (kernels/paged_attention.py).
"""

# Shapes: R rows, X = K - 1 convolution inputs, H heads, P head size, N pages or state size, J key-value heads, p page size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import HybridConfig
from .exact_replay import ReplayState

PAGE_SIZE = 64
"""Tokens of a page: 32 are wasted on average, and a page's matrix product is large enough to be worth its call."""


@dataclass(frozen=True)
class MambaState:
    inputs_RXD: Tensor
    state_RHPN: Tensor
    """fp32 whatever the model's precision: bf16 here costs up to 4 nats in a token's log-probability."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs_RXD, self.state_RHPN

    def front(self, n: int) -> MambaState:
        return MambaState(self.inputs_RXD[:n], self.state_RHPN[:n])


@dataclass(frozen=True)
class Pages:
    keys_NJDp: Tensor
    values_NJpD: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.keys_NJDp, self.values_NJpD


@dataclass(frozen=True)
class Ring:
    """The last w tokens of each row in a sliding-window layer, each at its position modulo w."""

    keys_RJDw: Tensor
    values_RJwD: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.keys_RJDw, self.values_RJwD

    def front(self, n: int) -> Ring:
        return Ring(self.keys_RJDw[:n], self.values_RJwD[:n])


class Cache:
    """State of `num_rows` sequences and `num_pages` pages for every layer of a model."""

    def __init__(
        self,
        config: HybridConfig,
        num_rows: int,
        num_pages: int,
        *,
        page_size: int = PAGE_SIZE,
        exact: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """An `exact` cache holds what exact replay needs (exact_replay.py)."""
        self.config, self.exact, self.num_rows, self.num_pages = config, exact, num_rows, num_pages
        self.page_size = page_size
        self.device = torch.device(device)
        self.layers: list[MambaState | ReplayState | Ring | Pages | None] = []
        for letter in config.pattern:
            if letter == "M":
                inputs, state = _mamba_shapes(config, exact)
                self.layers.append(
                    (ReplayState if exact else MambaState)(
                        untouched_zeros((num_rows, *inputs), dtype, device),
                        untouched_zeros((num_rows, *state), torch.promote_types(dtype, torch.float32), device),
                    )
                )
            elif letter == "W":
                J, w, D = config.num_key_value_heads, config.window_size, config.head_dim
                shapes = (num_rows, J, D, w), (num_rows, J, w, D)
                self.layers.append(Ring(*(untouched_zeros(shape, dtype, device) for shape in shapes)))
            elif letter == "*":
                J, p, D = config.num_key_value_heads, page_size, config.head_dim
                shapes = (num_pages, J, D, p), (num_pages, J, p, D)
                self.layers.append(Pages(*(untouched_zeros(shape, dtype, device) for shape in shapes)))
            else:
                self.layers.append(None)

    def mamba(self, layer: int) -> MambaState | ReplayState:
        state = self.layers[layer]
        assert isinstance(state, MambaState | ReplayState)
        return state

    def ring(self, layer: int) -> Ring:
        state = self.layers[layer]
        assert isinstance(state, Ring)
        return state

    def pages(self, layer: int) -> Pages:
        state = self.layers[layer]
        assert isinstance(state, Pages)
        return state

    def row_tensors(self) -> list[Tensor]:
        return [
            tensor
            for layer in self.layers
            if isinstance(layer, MambaState | ReplayState | Ring)
            for tensor in layer.tensors()
        ]

    def clear_rows(self, rows: Tensor) -> None:
        """Begin anew in these rows. Pages need no clearing: what lies beyond a row's length is never seen."""
        for tensor in self.row_tensors():
            tensor[rows] = 0

    def copy_rows(self, source: Tensor, target: Tensor) -> None:
        """target[i] becomes source[i]; sources are read before any target is written."""
        for tensor in self.row_tensors():
            tensor[target] = tensor[source]

    def copy_pages(self, source: Tensor, target: Tensor) -> None:
        for layer in self.layers:
            if isinstance(layer, Pages):
                for tensor in layer.tensors():
                    tensor[target] = tensor[source]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for layer in self.layers if layer is not None for tensor in layer.tensors())


def untouched_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros that take no memory on a CPU until they are written: a cache is rarely full."""
    if torch.device(device).type != "cpu" or 0 in shape:
        return torch.zeros(*shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(torch.Size(shape).numel() * dtype.itemsize, np.uint8)).view(dtype).view(*shape)


def cache_bytes(
    config: HybridConfig, *, page_size: int = PAGE_SIZE, exact: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[int, int]:
    """Bytes of one row and of one page, over all layers."""
    inputs, state = _mamba_shapes(config, exact)
    state_dtype = torch.promote_types(dtype, torch.float32)
    row = torch.Size(inputs).numel() * dtype.itemsize + torch.Size(state).numel() * state_dtype.itemsize
    token = 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize
    rows = config.pattern.count("M") * row + config.pattern.count("W") * token * config.window_size
    return rows, config.pattern.count("*") * token * page_size


def _mamba_shapes(config: HybridConfig, exact: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before, state = config.conv_kernel - 1, (config.mamba_num_heads, config.mamba_head_dim, config.ssm_state_size)
    if exact:
        return (before + config.chunk_size, config.conv_size + config.mamba_num_heads), state
    return (before, config.conv_size), state
