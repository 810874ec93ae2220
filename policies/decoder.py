"""What a model must do to be served by a batching engine (batching.py), whatever model it is."""

# Shapes: B rows, P pages of a table, V vocabulary, N new tokens, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Tokens that continue one conversation: its row, its pages, how many tokens its state holds, and the new ones."""

    row: int
    table_P: np.ndarray
    past: int
    ids: np.ndarray


class Decoder(Protocol):
    """A model on its cache. It keeps no account of who is where: the engine tells rows, pages and lengths."""

    vocab_size: int
    num_experts: int
    route_shape: tuple[int, int]
    """Mixture-of-experts layers and experts of a token; (0, 0) without."""
    recurrent: bool
    """Whether a row holds a state that can only be continued where it stands (Mamba), so that a prefix is shared whole."""
    num_rows: int
    num_pages: int
    page_size: int
    row_bytes: int
    page_bytes: int

    def prefill(self, pieces: Sequence[Piece]) -> np.ndarray:
        """Compute the pieces, which leaves their tokens in the cache. Returns routes [N, E, K]."""
        ...

    def step(self, ids_B: np.ndarray, tables_BP: np.ndarray, lengths_B: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """One token for each of the first B rows, which then hold lengths_B tokens. Returns logits of at least B rows
        (those behind are padding) and routes [B, E, K]."""
        ...

    def clear_rows(self, rows: np.ndarray) -> None: ...

    def copy_rows(self, source: np.ndarray, target: np.ndarray) -> None:
        """Row target[i] becomes row source[i]; all are read before any is written."""
        ...

    def copy_pages(self, source: np.ndarray, target: np.ndarray) -> None: ...

    def load_weights(self, weights: Mapping[str, object]) -> None:
        """All or none: ValueError, and nothing changed, where they do not fit."""
        ...
