"""A decode step's layers in C (cpu/): what its structures hold, and the call. Tensors that are given are kept, as C has their addresses.

The call holds no lock of Python's, so parts of a batch are decoded at once in threads; a row's bits are the same in whatever company.
"""

# Shapes: B rows, V vocabulary, L layers with experts, K experts of a token, P pages of a table.

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .compiled import library

_ROWS_OF_A_THREAD = 8


class _Structure(ctypes.Structure):
    """A structure of layers.h: numbers first, then addresses; tensors for the addresses, or None."""

    def __init__(self, **values: float | Tensor | ctypes.Structure | None) -> None:
        names = {name for name, *_ in self._fields_}
        assert names == set(values), f"{type(self).__name__}: {names ^ set(values)}"
        self.kept = values
        super().__init__(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous() and value.device.type == "cpu" and value.dtype in (torch.float32, torch.int64)
        return value.data_ptr()
    return ctypes.addressof(value) if isinstance(value, ctypes.Structure | ctypes.Array) else value


def _fields(integers: str, doubles: str, addresses: str) -> list[tuple[str, Any]]:
    kinds = (integers, ctypes.c_int64), (doubles, ctypes.c_double), (addresses, ctypes.c_void_p)
    return [(name, kind) for names, kind in kinds for name in names.split()]


class MambaLayer(_Structure):
    """`Mamba` of layers.h."""

    letter: ClassVar = "M"
    _fields_ = _fields(
        "H P G N K", "eps least_dt", "in_p taps bias dt_bias A_log D norm out_p inputs states"
    )  # fmt: skip


class AttentionLayer(_Structure):
    """`Attention` of layers.h."""

    letter: ClassVar = "*"
    _fields_ = _fields("H J D p", "", "qkv_p out_p keys values")


class ExpertsLayer(_Structure):
    """`Experts` of layers.h."""

    letter: ClassVar = "E"
    _fields_ = _fields("E K f l s", "scale", "router_p bias up_p down_p shared_up_p shared_down_p into_p out_of_p")


class MLPLayer(_Structure):
    """`Mlp` of layers.h."""

    letter: ClassVar = "-"
    _fields_ = _fields("s", "", "up_p down_p")


Mixer = MambaLayer | AttentionLayer | ExpertsLayer | MLPLayer


class _Layer(_Structure):
    _fields_ = _fields("letter", "", "norm mixer")


class _Step(ctypes.Structure):
    _fields_ = _fields("first B table_stride", "", "ids tables lengths logits routes scratch")


class DecodeModel(_Structure):
    """`Model` of layers.h: embeddings, layers (each a norm and a mixer), a last norm, a head."""

    _fields_ = _fields("d V num_layers num_routed K", "eps", "embeddings norm head_p layers")

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
        self._memory: list[Tensor] = []
        self._threads: ThreadPoolExecutor | None = None

    def decode(
        self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray, page_size: int
    ) -> tuple[Tensor, np.ndarray]:
        """One token for each of the first B rows, which then hold lengths_B tokens. Logits [B, V] and routes [B, L, K]."""
        B = len(ids_B)
        ids, tables, lengths = (np.ascontiguousarray(a, np.int64) for a in (ids_B, tables_BP, lengths_B))
        logits, routes = torch.empty(B, self.V), np.empty((B, self.num_routed, self.K), np.int64)
        num_threads = max(min(torch.get_num_threads(), B // _ROWS_OF_A_THREAD), 1)
        tokens = -(-int(lengths.max(initial=1)) // page_size) * page_size
        edges = np.linspace(0, B, num_threads + 1).astype(int).tolist()
        steps = [
            _Step(
                first, last - first, tables.shape[1], ids[first:].ctypes.data, tables[first:].ctypes.data,
                lengths[first:].ctypes.data, logits[first:].data_ptr(), routes[first:].ctypes.data,
                self._room(thread, last - first, tokens),
            )
            for thread, (first, last) in enumerate(zip(edges, edges[1:], strict=False))
        ]  # fmt: skip
        at = ctypes.addressof(self)
        if num_threads == 1:
            self._decode(at, ctypes.addressof(steps[0]))
        else:
            self._threads = self._threads or ThreadPoolExecutor(torch.get_num_threads(), "swannery-decode")
            list(self._threads.map(lambda step: self._decode(at, ctypes.addressof(step)), steps))
        return logits, routes

    def _room(self, thread: int, rows: int, tokens: int) -> int:
        """The address of a thread's memory to work in."""
        wanted = int(self._scratch(ctypes.addressof(self), rows, tokens))
        if thread == len(self._memory):
            self._memory.append(torch.empty(0))
        if len(self._memory[thread]) < wanted:
            self._memory[thread] = torch.empty(math.ceil(wanted * 1.25))
        return self._memory[thread].data_ptr()


def sample_rows(logits_BV: Tensor, temperature_B: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [B] by inversion of the cumulative distribution, and their log-probabilities; temperature 0 is greedy."""
    loaded, (B, V) = library(), logits_BV.shape
    assert loaded is not None
    logits, temperature, uniforms = (
        logits_BV.contiguous(),
        temperature_B.float().contiguous(),
        uniforms_B.double().contiguous(),
    )
    ids, logprobs, weights = torch.empty(B, dtype=torch.int64), torch.empty(B), torch.empty(V)
    sizes, tensors = map(ctypes.c_int64, (B, V)), (logits, temperature, uniforms, weights, ids, logprobs)
    loaded.swannery_sample(*sizes, *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors))
    return ids, logprobs
