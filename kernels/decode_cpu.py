"""A decode step's layers in C (cpu/): what its structures hold, and the call. Tensors that are given are kept, as C has their addresses.

The call holds no lock of Python's, so parts of a batch are decoded at once in threads; a row's bits are the same in whatever company.
"""

# Shapes: B rows, V vocabulary, L layers with experts, K experts of a token, P pages of a table.

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .compiled import Room, Structure, fields, in_threads, library

_ROWS_OF_A_THREAD = 8


class MambaLayer(Structure):
    """`Mamba` of layers.h."""

    letter: ClassVar = "M"
    _fields_ = fields(
        "H P G N K", "eps least_dt", "in_p taps bias dt_bias A_log D norm out_p inputs states"
    )  # fmt: skip


class AttentionLayer(Structure):
    """`Attention` of layers.h, over pages or over each row's window."""

    letter: ClassVar = "*"
    _fields_ = fields("H J D p is_window", "theta", "qkv_p out_p keys values")


class ExpertsLayer(Structure):
    """`Experts` of layers.h."""

    letter: ClassVar = "E"
    _fields_ = fields("E K f l s", "scale", "router_p bias up_p down_p shared_up_p shared_down_p into_p out_of_p")


class MLPLayer(Structure):
    """`Mlp` of layers.h."""

    letter: ClassVar = "-"
    _fields_ = fields("s", "", "up_p down_p")


Mixer = MambaLayer | AttentionLayer | ExpertsLayer | MLPLayer


class _Layer(Structure):
    _fields_ = fields("letter", "", "norm mixer")


class _Step(ctypes.Structure):
    _fields_ = fields("first B table_stride", "", "ids tables lengths logits routes scratch")


class DecodeModel(Structure):
    """`Model` of layers.h: embeddings, layers (each a norm and a mixer), a last norm, a head."""

    _fields_ = fields("d V num_layers num_routed K", "eps", "embeddings norm head_p layers")

    def __init__(
        self,
        layers: Sequence[tuple[Tensor, Mixer]],
        *,
        embeddings: Tensor,
        norm: Tensor,
        head_p: Tensor,
        eps: float,
        top_k: int,
    ) -> None:
        routed = [mixer for _, mixer in layers if isinstance(mixer, ExpertsLayer)]
        parts = [_Layer(letter=ord(mixer.letter), norm=norm, mixer=mixer) for norm, mixer in layers]
        self.parts = parts
        array = (_Layer * len(parts))(*parts)
        super().__init__(
            d=embeddings.shape[1], V=embeddings.shape[0], num_layers=len(parts), num_routed=len(routed),
            K=top_k, eps=eps, embeddings=embeddings, norm=norm, head_p=head_p, layers=array,  # type: ignore[arg-type]
        )  # fmt: skip
        loaded = library()
        assert loaded is not None
        self._scratch, self._decode = loaded.swannery_scratch, loaded.swannery_decode
        self._scratch.restype, self._scratch.argtypes = (
            ctypes.c_int64,
            [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64],
        )
        self._decode.restype, self._decode.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p]
        self._room = Room()

    def decode(
        self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray, page_size: int
    ) -> tuple[Tensor, np.ndarray]:
        """One token for each of the first B rows, which then hold lengths_B tokens. Logits [B, V] and routes [B, L, K]."""
        B = len(ids_B)
        ids, tables, lengths = (np.ascontiguousarray(a, np.int64) for a in (ids_B, tables_BP, lengths_B))
        logits, routes = (
            torch.empty(B, self.V, dtype=torch.float32, device="cpu"),
            np.empty((B, self.num_routed, self.K), np.int64),
        )
        num_threads = max(min(torch.get_num_threads(), B // _ROWS_OF_A_THREAD), 1)
        tokens = -(-int(lengths.max(initial=1)) // page_size) * page_size
        edges, at = [B * part // num_threads for part in range(num_threads + 1)], ctypes.addressof(self)

        def part(thread: int) -> None:
            first, last = edges[thread : thread + 2]
            step = _Step(
                first, last - first, tables.shape[1], ids[first:].ctypes.data, tables[first:].ctypes.data,
                lengths[first:].ctypes.data, logits[first:].data_ptr(), routes[first:].ctypes.data,
                self._room.at(self._scratch(at, last - first, tokens)),
            )  # fmt: skip
            self._decode(at, ctypes.addressof(step))

        in_threads(part, num_threads)
        return logits, routes


def sample_rows(logits_BV: Tensor, temperature_B: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [B] by inversion of the cumulative distribution, and their log-probabilities; temperature 0 is greedy."""
    loaded, (B, V) = library(), logits_BV.shape
    assert loaded is not None
    logits, temperature, uniforms = (
        logits_BV.contiguous(),
        temperature_B.float().contiguous(),
        uniforms_B.double().contiguous(),
    )
    ids, logprobs, weights = logits.new_empty(B, dtype=torch.int64), logits.new_empty(B), logits.new_empty(V)
    sizes, tensors = map(ctypes.c_int64, (B, V)), (logits, temperature, uniforms, weights, ids, logprobs)
    loaded.swannery_sample(*sizes, *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors))
    return ids, logprobs
