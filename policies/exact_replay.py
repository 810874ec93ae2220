"""Exact replay: decoding by Mamba layers whose every bit is that of a prefill of the whole sequence.

A recurrent step and the chunked form round differently, and a rollout's log-probabilities then differ from the learner's in their
last digits. In this mode a row keeps the state at the end of its last whole chunk and what the unfinished chunk was fed with, and a
step computes that chunk again by the chunked form, where chunks begin at multiples of `chunk_size` from the sequence's start. The
projections, the convolution, the norm and the router are the same bits for one row as for many (kernels/exact.py). Attention and
experts are not: their sums still depend on the company.

    model.exact = True          the mixers compute so, and a cache made for the model holds a ReplayState for each row

Sources of the idea: vLLM's RFC 55524 and Megatron's batch_invariant_decode. A step costs up to chunk_size times the scan of a
recurrent one.
"""

# Shapes: R rows of a cache, B rows of a step, S segments, X = K - 1 + Q: the inputs of a chunk of Q tokens with the K - 1 before it,
# x = conv_size + H numbers of each, H heads, P head size, n state size.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..kernels.packing import Packing
from .config import HybridConfig


@dataclass(frozen=True)
class ReplayState:
    """What a row holds in place of a MambaState."""

    inputs_RXx: Tensor
    """Of the unfinished chunk. What lies behind its tokens is not read."""
    state_RHPn: Tensor
    """At the end of the last whole chunk, fp32."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs_RXx, self.state_RHPn

    def front(self, n: int) -> ReplayState:
        return ReplayState(self.inputs_RXx[:n], self.state_RHPn[:n])

    def append(self, inputs_Bx: Tensor, places_B: Tensor, conv_kernel: int) -> None:
        """The inputs of one more token, which is the places_B-th of its row's chunk."""
        rows_B = torch.arange(len(inputs_Bx), device=inputs_Bx.device)
        self.inputs_RXx[rows_B, conv_kernel - 1 + places_B] = inputs_Bx

    def finish(self, places_B: Tensor, states_BHPn: Tensor, conv_kernel: int) -> None:
        """Chunks whose last token has come leave their state, and their last inputs stand before the next chunk's."""
        chunk_size = self.inputs_RXx.shape[1] - (conv_kernel - 1)
        rows = (places_B == chunk_size - 1).nonzero().squeeze(1)
        self.state_RHPn[rows] = states_BHPn[rows].to(self.state_RHPn.dtype)
        self.inputs_RXx[rows, : conv_kernel - 1] = self.inputs_RXx[rows, chunk_size:]


@dataclass(frozen=True)
class ReplayLayout:
    """A prefill in which each segment first repeats the tokens of its row's unfinished chunk."""

    packing: Packing
    take_M: Tensor
    """The packing's M tokens among the rows' inputs [S * X], flattened, and the N new tokens behind them."""
    new_N: Tensor
    """The new tokens among the M."""
    has_whole_S: Tensor
    """Whether a chunk ends in this segment, and the last that does:"""
    whole_S: Tensor
    left_SX: Tensor
    """What the rows hold afterwards, in the numbering of `Packing.taps_CX`; -1 is nothing."""

    @staticmethod
    def build(
        config: HybridConfig, past_S: np.ndarray, new_S: np.ndarray, device: torch.device | None = None
    ) -> ReplayLayout:
        Q, K = config.chunk_size, config.conv_kernel
        X, S = K - 1 + Q, len(new_S)
        begun_S = past_S % Q
        lengths_S = begun_S + new_S
        packing = Packing.build(lengths_S.tolist(), chunk_size=Q, conv_kernel=K, device=device or "cpu")
        segment_M = np.repeat(np.arange(S), lengths_S)
        start_S, new_start_S = np.cumsum(lengths_S) - lengths_S, np.cumsum(new_S) - new_S
        place_M = np.arange(len(segment_M)) - start_S[segment_M]
        again_M = place_M < begun_S[segment_M]
        new_M = S * X + new_start_S[segment_M] + place_M - begun_S[segment_M]
        take_M = np.where(again_M, segment_M * X + K - 1 + place_M, new_M)
        ended_S = lengths_S // Q * Q
        place_SX = ended_S[:, None] - (K - 1) + np.arange(X)
        before_SX = len(segment_M) + (K - 1) * np.arange(S)[:, None] + K - 1 + place_SX
        left_SX = np.where(place_SX < 0, before_SX, start_S[:, None] + place_SX)
        left_SX[place_SX >= lengths_S[:, None]] = -1
        to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
        last_S = to(start_S + np.maximum(ended_S, 1) - 1)
        return ReplayLayout(
            packing=packing,
            take_M=to(take_M),
            new_N=to(np.flatnonzero(~again_M)),
            has_whole_S=to(ended_S > 0),
            whole_S=packing.token_slots_N[last_S] // Q,
            left_SX=to(left_SX),
        )
