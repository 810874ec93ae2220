"""Exact replay: Mamba layers and routers give the same bits token by token as in one prefill."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from swannery.kernels.conv1d import causal_conv1d_chunks
from swannery.kernels.exact import exact_linear, exact_sigmoid, exact_silu, exact_softplus
from swannery.kernels.packing import Packing
from swannery.kernels.paged_attention import DecodeLayout
from swannery.kernels.router import route
from swannery.policies import HybridConfig, HybridModel, preset
from swannery.policies.cache import Cache, cache_bytes
from swannery.policies.hybrid import CachePlace

CONFIG = HybridConfig(
    pattern="MM", vocab_size=61, hidden_size=96, mamba_num_heads=4, mamba_head_dim=13, mamba_num_groups=2, ssm_state_size=9,
    chunk_size=8, init_std=0.2,
)  # fmt: skip


def test_a_row_is_the_same_bits_in_any_company() -> None:
    x, weight = torch.randn(300, 256), torch.randn(130, 256)
    whole = exact_linear(x, weight)
    torch.testing.assert_close(whole, x @ weight.T)
    for rows in ([5], [299, 0, 17], list(range(40, 140))):
        assert torch.equal(exact_linear(x[rows], weight), whole[rows])
    assert not all(torch.equal(x[i : i + 1] @ weight.T, (x @ weight.T)[i : i + 1]) for i in range(8))  # what it is for


def test_its_gradients_are_those_of_the_product() -> None:
    x, weight = torch.randn(37, 12).double().requires_grad_(), torch.randn(5, 12).double().requires_grad_()
    assert torch.autograd.gradcheck(exact_linear, (x, weight))


def test_the_put_together_functions_are_the_known_ones() -> None:
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([-200.0, 200.0])]).requires_grad_()
    for ours, theirs in ((exact_sigmoid, torch.sigmoid), (exact_silu, F.silu), (exact_softplus, F.softplus)):
        torch.testing.assert_close(ours(x), theirs(x), rtol=2e-6, atol=1e-30)
        (got,), (wanted,) = (torch.autograd.grad(f(x).sum(), x) for f in (ours, theirs))
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "config", [CONFIG, dataclasses.replace(preset("tiny-1m"), pattern="M")], ids=["odd", "tiny-1m"]
)
@torch.no_grad()
def test_decoding_is_bit_equal_to_one_prefill(config: HybridConfig, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = HybridModel(config, seed=1)
        model.exact = True
        lengths, Q = [53, 21, 8], config.chunk_size
        ids = torch.randint(0, config.vocab_size, (3, 53), generator=torch.Generator().manual_seed(0))
        packed = torch.cat([row[:n] for row, n in zip(ids, lengths, strict=True)])
        expected = model(packed, Packing.build(lengths, chunk_size=Q))[0].split(lengths)
        cache = Cache(config, 4, 1, exact=True)
        rows = np.array([1, 0, 2])

        def prefill(past: list[int], new: list[int]) -> list[torch.Tensor]:
            S = len(new)
            place = CachePlace.build(cache, rows[:S], np.zeros((S, 1), int), np.array(past), np.array(new))
            pieces = torch.cat([ids[s, past[s] : past[s] + new[s]] for s in range(S)])
            return list(model(pieces, Packing.build(new, chunk_size=Q), place=place)[0].split(new))

        for past, new in (([0, 0, 0], [20, 7, 1]), ([20, 7], [5, 1])):
            for s, got in enumerate(prefill(past, new)):
                assert torch.equal(got, expected[s][past[s] : past[s] + new[s]])
        at = np.array([8, 25, 1])  # of the sequences 1, 0, 2 in their rows
        for _ in range(7 if Q == 8 else 12):
            at = np.minimum(at + 1, [21, 53, 8])
            step_ids = torch.stack([ids[s, n - 1] for s, n in zip((1, 0, 2), at, strict=True)])
            hidden, _ = model.step(step_ids, cache, DecodeLayout.build(np.zeros((3, 1), int), at, 64))
            for row, (s, n) in enumerate(zip((1, 0, 2), at, strict=True)):
                assert torch.equal(hidden[row], expected[s][n - 1]), (s, n)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_the_convolution_and_the_router_do_not_know_their_company() -> None:
    x, weight, bias = torch.randn(9, 11, 130), torch.randn(130, 4), torch.randn(130)
    whole = causal_conv1d_chunks(x, weight, bias, exact=True)
    assert torch.equal(causal_conv1d_chunks(x[4:5], weight, bias, exact=True), whole[4:5])
    tokens, router, selection = torch.randn(200, 64), torch.randn(16, 64), torch.randn(16) * 0.1
    gates, chosen, scores = route(tokens, router, selection, top_k=3, scale=2.5, exact=True)
    for n in (0, 63, 199):
        one = route(tokens[n : n + 1], router, selection, top_k=3, scale=2.5, exact=True)
        assert all(torch.equal(a, b[n : n + 1]) for a, b in zip(one, (gates, chosen, scores), strict=True))


def test_an_exact_cache_is_counted() -> None:
    row, page = cache_bytes(CONFIG, exact=True)
    assert Cache(CONFIG, 3, 0, exact=True).num_bytes == 3 * row and page == 0
