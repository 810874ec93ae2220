"""NativeEngine: a hybrid policy served on its recurrent cache by continuous batching (batching.py)."""

# Shapes: B rows, S segments of a prefill, N packed tokens, P pages of a table, V vocabulary, E mixture-of-experts layers,
# K experts of a token.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.packing import Packing
from ..kernels.paged_attention import DecodeLayout
from .batching import BatchingEngine
from .budget import ReasoningTokens
from .cache import PAGE_SIZE, Cache, cache_bytes
from .compiled_step import CompiledStep, can_compile
from .decoder import Piece
from .hybrid import CachePlace, HybridModel
from .weights import copy_weights

ROW_MULTIPLE = 16
"""Synchronous decode batches are padded to a multiple of this: matrix products of other sizes differ in the last bits."""
MAX_PREFIXES = 32


class HybridDecoder:
    """A HybridModel on a Cache."""

    def __init__(self, model: HybridModel, *, num_rows: int, num_pages: int, row_multiple: int) -> None:
        config, dtype = model.config, model.embeddings.weight.dtype
        self.model, self.device, self.row_multiple = model, model.embeddings.weight.device, row_multiple
        self.vocab_size, self.num_experts = config.vocab_size, config.num_experts
        self.route_shape = (config.num_moe_layers, config.experts_per_token)
        self.recurrent = bool(set(config.pattern) & set("MW"))
        self.num_rows, self.num_pages, self.page_size = num_rows, num_pages, PAGE_SIZE
        self.row_bytes, self.page_bytes = cache_bytes(config, exact=model.exact, dtype=dtype)
        # One page more, where the padding of a batch writes.
        self.cache = Cache(config, num_rows, num_pages + 1, exact=model.exact, dtype=dtype, device=self.device)
        self.compiled = CompiledStep(model, self.cache) if can_compile(model) else None

    def prefill(self, pieces: Sequence[Piece]) -> np.ndarray:
        new_S = np.array([len(piece.ids) for piece in pieces])
        tables_SP = np.stack([piece.table_P for piece in pieces])
        past_S = np.array([piece.past for piece in pieces])
        config = self.model.config
        packing = Packing.build(
            new_S.tolist(),
            chunk_size=config.chunk_size,
            conv_kernel=config.conv_kernel,
            device=self.device,
        )
        place = CachePlace.build(self.cache, np.array([piece.row for piece in pieces]), tables_SP, past_S, new_S)
        ids_N = torch.from_numpy(np.concatenate([piece.ids for piece in pieces])).to(self.device)
        _, routes_NEK = self.model(ids_N, packing, place=place)
        return routes_NEK.cpu().numpy()

    def step(self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray) -> tuple[Tensor, np.ndarray]:
        if self.compiled is not None:
            return self.compiled.step(ids_B, tables_BP, lengths_B)
        B = len(ids_B)
        padding = min(-B % self.row_multiple, self.num_rows - B)
        if padding:
            ids_B, lengths_B = np.pad(ids_B, (0, padding)), np.pad(lengths_B, (0, padding))
            tables_BP = np.pad(tables_BP, ((0, padding), (0, 0)), constant_values=self.num_pages)
        layout = DecodeLayout.build(tables_BP, lengths_B, self.page_size, self.device)
        rest = [(t[B : B + padding], t[B : B + padding].clone()) for t in self.cache.row_tensors()] if padding else []
        for rows, _ in rest:  # experts group all rows together, so what lies here must not depend on others' states
            rows.zero_()
        hidden_Bd, routes_BEK = self.model.step(torch.from_numpy(ids_B).to(self.device), self.cache, layout)
        for rows, kept in rest:
            rows.copy_(kept)
        return self.model.logits(hidden_Bd), routes_BEK[:B].cpu().numpy()

    def clear_rows(self, rows: np.ndarray) -> None:
        self.cache.clear_rows(torch.from_numpy(rows).to(self.device))

    def copy_rows(self, source: np.ndarray, target: np.ndarray) -> None:
        self.cache.copy_rows(torch.from_numpy(source).to(self.device), torch.from_numpy(target).to(self.device))

    def copy_pages(self, source: np.ndarray, target: np.ndarray) -> None:
        self.cache.copy_pages(torch.from_numpy(source).to(self.device), torch.from_numpy(target).to(self.device))

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        copy_weights(self.model.state_dict(), weights)
        if self.compiled is not None:
            self.compiled.refresh()


class NativeEngine(BatchingEngine):
    """Serves one HybridModel. Use as `async with NativeEngine(...) as engine`.

    `cache_bytes` bounds the cache: states of `num_slots` conversations and of kept prefixes, and as many pages as fit; None
    takes what `num_slots` conversations of `capacity` tokens can need. ValueError where it holds not even one of these.
    """

    def __init__(
        self,
        model: HybridModel,
        *,
        stop_ids: Sequence[int],
        reasoning_tokens: ReasoningTokens | None,
        num_slots: int = 256,
        capacity: int = 512,
        cache_bytes: int | None = None,
        synchronous: bool = True,
        prefill_tokens: int = 4096,
        wait_s: float = 300.0,
    ) -> None:
        self.model = model
        multiple = ROW_MULTIPLE if synchronous else 1
        num_slots = -(-num_slots // multiple) * multiple
        num_rows = num_slots + min(MAX_PREFIXES, -(-num_slots // 4))
        decoder = HybridDecoder(
            model,
            num_rows=num_rows,
            num_pages=_num_pages(model, num_slots, num_rows, capacity, cache_bytes),
            row_multiple=multiple,
        )
        self.decoder: HybridDecoder
        super().__init__(
            decoder,
            stop_ids=stop_ids,
            reasoning_tokens=reasoning_tokens,
            num_slots=num_slots,
            capacity=capacity,
            synchronous=synchronous,
            prefill_tokens=max(prefill_tokens, decoder.page_size),
            wait_s=wait_s,
        )

    @property
    def memory_bytes(self) -> int:
        """What weights, cache, records and a decode step's attention take when every slot is full. A prefill's activations
        come on top (they grow with `prefill_tokens`)."""
        config, decoder = self.model.config, self.decoder
        weights = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        itemsize = self.model.embeddings.weight.dtype.itemsize
        # Of each page: scores and weights of its queries, and their means on the way to the rows.
        page = config.num_attention_heads * (3 * decoder.page_size + 4 * config.head_dim) * itemsize
        attention = decoder.num_pages * page if "*" in config.pattern else 0
        if decoder.compiled is not None:
            weights += decoder.compiled.num_bytes
        return weights + decoder.cache.num_bytes + self.records.num_bytes + attention


def _num_pages(model: HybridModel, num_slots: int, num_rows: int, capacity: int, bound: int | None) -> int:
    most = num_slots * -(-capacity // PAGE_SIZE)
    if bound is None:
        return most
    row, page = cache_bytes(model.config, exact=model.exact, dtype=model.embeddings.weight.dtype)
    num_pages = min(most, (bound - num_rows * row) // page) if page else most
    if num_pages < 1:
        raise ValueError(
            f"cache_bytes={bound} holds no page beside the states of {num_rows} rows ({num_rows * row} bytes): give at least "
            f"{num_rows * row + page} or fewer num_slots"
        )
    return num_pages
