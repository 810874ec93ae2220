"""Attention over pages: equal to the reference for any lengths, sharing and order of pages."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.kernels.attention import attention_ref
from swannery.kernels.paged_attention import (
    DecodeLayout,
    ExtendLayout,
    paged_decode_attention,
    paged_decode_attention_ref,
    paged_extend_attention,
)

PAGE = 8


def tables_of(lengths: np.ndarray, num_shared: int, num_pages: int, rng: np.random.Generator) -> np.ndarray:
    """Pages in any order; rows begin with the first row's pages, as far as both have whole ones."""
    counts = -(-lengths // PAGE)
    pages = iter(rng.permutation(num_pages))
    tables = np.zeros((len(lengths), max(int(counts.max()), 1)), np.int64)
    for row, count in enumerate(counts):
        tables[row, :count] = [next(pages) for _ in range(count)]
        shared = min(num_shared, int(lengths[0]) // PAGE, int(lengths[row]) // PAGE)
        tables[row, :shared] = tables[0, :shared]
    return tables


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(0, 5), st.booleans(), st.integers(0, 99))
def test_decoding_equals_the_reference(lengths: list[int], num_shared: int, sparse: bool, seed: int) -> None:
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    lengths_B = np.array(lengths)
    num_pages = int((-(-lengths_B // PAGE)).sum() + 2) * (9 if sparse else 1)
    tables = tables_of(lengths_B, num_shared, num_pages, rng)
    q = torch.randn(len(lengths), 6, 4, dtype=torch.float64, generator=torch_rng)
    keys, values = torch.randn(2, num_pages, 3, PAGE, 4, dtype=torch.float64, generator=torch_rng)
    keys = keys.transpose(2, 3).contiguous()
    layout = DecodeLayout.build(tables, lengths_B, PAGE)
    y = paged_decode_attention(q, keys, values, layout)
    torch.testing.assert_close(y, paged_decode_attention_ref(q, keys, values, tables, lengths_B))


def test_a_row_s_result_does_not_depend_on_where_its_pages_lie() -> None:
    torch.manual_seed(0)
    q, keys, values = torch.randn(2, 4, 8), torch.randn(6, 2, 8, PAGE), torch.randn(6, 2, PAGE, 8)
    lengths = np.array([20, 13])
    tables, order = np.array([[0, 1, 2], [3, 4, 0]]), np.array([5, 3, 0, 1, 4, 2])
    places = np.argsort(order)
    one = paged_decode_attention(q, keys, values, DecodeLayout.build(tables, lengths, PAGE))
    layout = DecodeLayout.build(places[tables], lengths, PAGE)
    assert torch.equal(one, paged_decode_attention(q, keys[order], values[order], layout))


def test_prefill_in_pieces_equals_one_causal_pass() -> None:
    torch.manual_seed(0)
    lengths, keys, values = [21, 9], torch.zeros(8, 2, 4, PAGE).double(), torch.zeros(8, 2, PAGE, 4).double()
    tables = np.array([[6, 1, 3], [2, 0, 0]])
    sequences = [[torch.randn(n, h, 4).double() for h in (4, 2, 2)] for n in lengths]
    past, outputs = np.zeros(2, np.int64), [[], []]
    for new in ([13, 1], [7, 8], [1, 0]):
        rows = [s for s in range(2) if new[s]]
        layout = ExtendLayout.build(tables[rows], past[rows], np.array([new[s] for s in rows]), PAGE)
        q, k, v = (torch.cat([sequences[s][i][past[s] : past[s] + new[s]] for s in rows]) for i in range(3))
        keys[layout.page_N, :, :, layout.offset_N], values[layout.page_N, :, layout.offset_N] = k, v
        found = paged_extend_attention(q, keys, values, layout).split([new[s] for s in rows])
        for s, y in zip(rows, found, strict=True):
            outputs[s].append(y)
            past[s] += new[s]
    for s in range(2):
        torch.testing.assert_close(torch.cat(outputs[s]).view(-1, 4, 4), attention_ref(*sequences[s]))
