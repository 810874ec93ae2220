"""TransformersEngine: any attention-only causal LM of the transformers library, served by the same continuous batching.

The model runs unchanged but for its attention function, which writes keys and values into pages and reads them there
(kernels/paged_attention.py). Conversations of all lengths thus lie in one row of tokens without padding, and share prefixes.
"""

# Shapes: N tokens of a row, B conversations, S segments, H query heads, J key-value heads, D head size, V vocabulary.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.paged_attention import DecodeLayout, ExtendLayout, paged_decode_attention, paged_extend_attention
from .batching import BatchingEngine
from .budget import ReasoningTokens
from .cache import PAGE_SIZE, Pages, untouched_zeros
from .decoder import Piece
from .transformers_attention import Unserved, attending, attention_layers, check_served, kv_shape, use_our_attention
from .weights import copy_weights

NUM_PREFIXES = 64


class TransformersDecoder:
    """A causal LM on pages of keys and values."""

    recurrent = False
    num_experts, route_shape, row_bytes = 1, (0, 0), 0

    def __init__(self, model: Any, *, num_rows: int, num_pages: int) -> None:
        use_our_attention(model)
        self.model, config = model.eval(), model.config.get_text_config()
        weight = model.get_output_embeddings().weight
        self.device, dtype = weight.device, weight.dtype
        self.vocab_size = config.vocab_size
        self.num_rows, self.num_pages, self.page_size = num_rows, num_pages, PAGE_SIZE
        self._no_mask = torch.zeros(1, 1, 1, 1, device=self.device)
        self.pages: dict[Any, Pages] = {}
        """Of each module that attends."""
        self.page_bytes = 0
        for layer in attention_layers(model):
            J, D = kv_shape(layer, config)
            shapes = (num_pages, J, D, PAGE_SIZE), (num_pages, J, PAGE_SIZE, D)
            self.pages[layer] = Pages(*(untouched_zeros(shape, dtype, self.device) for shape in shapes))
            self.page_bytes += 2 * J * D * PAGE_SIZE * dtype.itemsize

    def prefill(self, pieces: Sequence[Piece]) -> np.ndarray:
        new_S = np.array([len(piece.ids) for piece in pieces])
        past_S = np.array([piece.past for piece in pieces])
        tables_SP = np.stack([piece.table_P for piece in pieces])
        positions = np.concatenate([np.arange(p, p + n) for p, n in zip(past_S, new_S, strict=True)])
        ids = np.concatenate([piece.ids for piece in pieces])
        layout = ExtendLayout.build(tables_SP, past_S, new_S, self.page_size, self.device)
        self._forward(ids, positions, layout, logits_to_keep=1)
        return np.zeros((len(ids), 0, 0), np.uint8)

    def step(self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray) -> tuple[Tensor, np.ndarray]:
        layout = DecodeLayout.build(tables_BP, lengths_B, self.page_size, self.device)
        return self._forward(ids_B, lengths_B - 1, layout).logits[0], np.zeros((len(ids_B), 0, 0), np.uint8)

    def _forward(
        self, ids: np.ndarray, positions: np.ndarray, layout: DecodeLayout | ExtendLayout, **options: Any
    ) -> Any:
        to = lambda array: torch.from_numpy(array.astype(np.int64))[None].to(self.device)  # noqa: E731
        with attending(partial(self._attend, layout)):
            return self.model(
                input_ids=to(ids),
                position_ids=to(positions),
                attention_mask=self._no_mask,  # four dimensions: taken as it is, so none is made
                use_cache=False,
                **options,
            )

    def _attend(
        self, layout: DecodeLayout | ExtendLayout, module: Any, q: Tensor, k: Tensor, v: Tensor, scale: float | None
    ) -> Tensor:
        q_NHD, k_NJD, v_NJD = (t[0].transpose(0, 1) for t in (q, k, v))
        pages = self.pages[module]
        if isinstance(layout, DecodeLayout):
            pages.keys_NJDp[layout.page_B, :, :, layout.offset_B] = k_NJD
            pages.values_NJpD[layout.page_B, :, layout.offset_B] = v_NJD
            y = paged_decode_attention(q_NHD, pages.keys_NJDp, pages.values_NJpD, layout, scale)
        else:
            pages.keys_NJDp[layout.page_N, :, :, layout.offset_N] = k_NJD
            pages.values_NJpD[layout.page_N, :, layout.offset_N] = v_NJD
            y = paged_extend_attention(q_NHD, pages.keys_NJDp, pages.values_NJpD, layout, scale)
        return y.view(1, *q_NHD.shape)

    def clear_rows(self, rows: np.ndarray) -> None:
        """Rows hold nothing: all state is in pages."""

    def copy_rows(self, source: np.ndarray, target: np.ndarray) -> None:
        """Rows hold nothing: all state is in pages."""

    def copy_pages(self, source: np.ndarray, target: np.ndarray) -> None:
        for pages in self.pages.values():
            for tensor in pages.tensors():
                tensor[torch.from_numpy(target).to(self.device)] = tensor[torch.from_numpy(source).to(self.device)]

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        copy_weights(self.model.state_dict(), weights)


class TransformersEngine(BatchingEngine):
    """Serves one causal LM. Use as `async with TransformersEngine(...) as engine`. Raises Unserved for models whose state is
    not plain attention over all of the context. Against transformers' own forward pass it agrees to 1e-4 in fp32."""

    def __init__(
        self,
        model: Any,
        *,
        stop_ids: Sequence[int],
        reasoning_tokens: ReasoningTokens | None = None,
        num_slots: int = 64,
        capacity: int = 1024,
        cache_bytes: int | None = None,
        synchronous: bool = False,
        prefill_tokens: int = 1024,
        wait_s: float = 300.0,
    ) -> None:
        check_served(model)
        most = getattr(model.config.get_text_config(), "max_position_embeddings", capacity)
        if capacity > most:
            raise Unserved(f"this model knows positions up to {most}, a capacity of {capacity} goes beyond")
        config = model.config.get_text_config()
        num_pages = num_slots * -(-capacity // PAGE_SIZE)
        if cache_bytes is not None:
            itemsize = model.get_output_embeddings().weight.dtype.itemsize
            page = sum(
                2 * J * D * PAGE_SIZE * itemsize for J, D in (kv_shape(a, config) for a in attention_layers(model))
            )
            num_pages = min(num_pages, cache_bytes // page)
            if num_pages < 1:
                raise ValueError(f"cache_bytes={cache_bytes} holds not one page of {page} bytes")
        super().__init__(
            TransformersDecoder(model, num_rows=num_slots + NUM_PREFIXES, num_pages=num_pages),
            stop_ids=stop_ids,
            reasoning_tokens=reasoning_tokens,
            num_slots=num_slots,
            capacity=capacity,
            synchronous=synchronous,
            prefill_tokens=max(prefill_tokens, PAGE_SIZE),
            wait_s=wait_s,
        )
