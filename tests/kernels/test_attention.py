"""Attention over windows, and rotary positions."""

import numpy as np
import pytest
import torch

from swannery.kernels.attention import attention_ref, packed_attention
from swannery.kernels.packing import Packing
from swannery.kernels.rotary import rotary
from swannery.kernels.sliding_window import (
    RingLayout,
    ring_decode_attention,
    ring_extend_attention,
    sliding_window_attention_ref,
)


def heads(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_rotary_products_depend_on_distances_alone_and_lengths_stay() -> None:
    torch.manual_seed(0)
    q, k = heads(1, 2, 8).expand(5, -1, -1), heads(1, 2, 8).expand(5, -1, -1)
    near, far = torch.arange(5), torch.arange(5) + 1_000
    dots = [(rotary(q, at + 3, 1e4) * rotary(k, at, 1e4)).sum(-1) for at in (near, far)]
    torch.testing.assert_close(dots[0], dots[0][:1].expand(5, -1))
    torch.testing.assert_close(dots[0], dots[1])
    torch.testing.assert_close(rotary(q, far, 1e4).norm(dim=-1), q.norm(dim=-1))
    torch.testing.assert_close(rotary(q, torch.zeros(5), 1e4), q)


@pytest.mark.filterwarnings("ignore")
def test_rotary_is_that_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    q, positions = torch.randn(6, 2, 16), torch.tensor([0, 1, 5, 7, 100, 4000])
    angles = LlamaRotaryEmbedding(LlamaConfig(hidden_size=32, num_attention_heads=2))(q, positions[None])
    theirs, _ = apply_rotary_pos_emb(q.transpose(0, 1)[None], q.transpose(0, 1)[None], *angles)
    torch.testing.assert_close(
        rotary(q, positions, 1e4), theirs[0].transpose(0, 1), atol=2e-4, rtol=0
    )  # theirs: fp32 angles


@pytest.mark.parametrize("window", [1, 3, 7, 40])
def test_windows_over_packed_segments_and_rings_equal_the_reference(window: int) -> None:
    torch.manual_seed(0)
    lengths, J, H, D = [9, 20, 1], 2, 4, 6
    q, k, v = heads(30, H, D), heads(30, J, D), heads(30, J, D)
    each = [t.split(lengths) for t in (q, k, v)]
    expected = [sliding_window_attention_ref(*parts, window).flatten(1) for parts in zip(*each, strict=True)]
    packed = packed_attention(q, k, v, Packing.build(lengths), window)
    torch.testing.assert_close(packed, torch.cat(expected))
    keys, values = heads(5, J, D, window), heads(5, J, window, D)
    rows, done = np.array([4, 1, 0]), np.zeros(3, np.int64)

    def extend(new: list[int]) -> None:
        take = [[t[s][done[s] : done[s] + new[s]] for s in range(3) if new[s]] for t in each]
        live = np.flatnonzero(new)
        layout = RingLayout.build(rows[live], done[live], np.array(new)[live], window)
        where = torch.from_numpy(rows[live])
        y = ring_extend_attention(*(torch.cat(t) for t in take), keys, values, where, layout)
        torch.testing.assert_close(y, torch.cat([expected[s][done[s] : done[s] + new[s]] for s in live]))
        done[:] += new

    extend([4, 11, 0])
    extend([2, 0, 1])
    extend([1, 7, 0])
    for s in (0, 1):  # rows 4 and 1 go on by one token
        at, row = int(done[s]), int(rows[s])
        keys[row, :, :, at % window], values[row, :, at % window] = each[1][s][at], each[2][s][at]
        y = ring_decode_attention(
            each[0][s][at][None], keys[row : row + 1], values[row : row + 1], torch.tensor([at + 1])
        )
        torch.testing.assert_close(y[0], expected[s][at])


def test_a_window_follows_the_path_of_a_forest() -> None:
    torch.manual_seed(0)
    q, k, v = heads(13, 2, 4), heads(13, 1, 4), heads(13, 1, 4)
    packing = Packing.build([6, 4, 3], [-1, 0, 0])
    y = packed_attention(q, k, v, packing, 5)
    for own in (range(6, 10), range(10, 13)):
        path = [*range(6), *own]
        expected = sliding_window_attention_ref(q[path], k[path], v[path], 5).flatten(1)
        torch.testing.assert_close(y[list(own)], expected[6:])
        assert packing.positions_N[list(own)].tolist() == list(range(6, 6 + len(own)))
    torch.testing.assert_close(
        sliding_window_attention_ref(q, k, v, 99), attention_ref(q, k, v)
    )  # a window over all is none
