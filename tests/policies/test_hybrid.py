"""The model: packed, prefilled and decoded alike; equal to transformers' nemotron_h; saved and loaded."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from swannery.kernels.packing import Packing
from swannery.kernels.paged_attention import DecodeLayout
from swannery.policies import (
    HybridConfig,
    HybridModel,
    preset,
)
from swannery.policies.balance import ExpertLoads
from swannery.policies.cache import Cache, cache_bytes
from swannery.policies.hybrid import CachePlace
from swannery.policies.precision import IN_FP32, cast

CONFIG = HybridConfig(
    pattern="M*E-ME", vocab_size=61, hidden_size=32, mamba_num_heads=4, mamba_head_dim=8, mamba_num_groups=2, ssm_state_size=8,
    chunk_size=8, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, expert_size=16,
    shared_expert_size=24, mlp_size=40, routed_scaling_factor=2.5, init_std=0.2,
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pattern": "W*MEW", "window_size": 5, "latent_size": 12},
        {"pattern": "WE", "window_size": 64, "num_expert_groups": 2},
        {"pattern": "*E-"},
    ],
    ids=["hybrid", "windows", "a window that never fills", "attention alone"],
)
@torch.no_grad()
def test_prefill_and_decoding_equal_the_packed_pass(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    model = HybridModel(config, seed=3).double()
    ids = torch.randint(0, 61, (3, 29), generator=torch.Generator().manual_seed(0))
    lengths = [29, 17, 4]
    packing = Packing.build(lengths, chunk_size=8)
    expected, routes = model(torch.cat([row[:n] for row, n in zip(ids, lengths, strict=True)]), packing)
    expected = expected.split(lengths)
    cache = Cache(config, 5, 12, page_size=8, dtype=torch.float64)
    tables = np.array([[7, 2, 9, 4], [0, 1, 3, 5], [8, 6, 0, 0]])  # of the sequences, in rows 1, 0, 2
    rows = np.array([1, 0, 2])

    def prefill(past: list[int], new: list[int]) -> torch.Tensor:
        S = len(new)
        place = CachePlace.build(cache, rows[:S], tables[:S], np.array(past), np.array(new))
        pieces = torch.cat([ids[s, past[s] : past[s] + new[s]] for s in range(S)])
        return model(pieces, Packing.build(new, chunk_size=8), place=place)[0]

    prefill([0, 0, 0], [20, 9, 1])
    more = prefill([20, 9], [7, 1])
    torch.testing.assert_close(more, torch.cat([expected[0][20:27], expected[1][9:10]]))
    for offset in range(2):
        step_ids = torch.stack([ids[1, 10 + offset], ids[0, 27 + offset], ids[2, 1 + offset]])
        layout = DecodeLayout.build(tables[[1, 0, 2]], np.array([11, 28, 2]) + offset, 8)
        hidden, chosen = model.step(step_ids, cache, layout)
        wanted = torch.stack([expected[1][10 + offset], expected[0][27 + offset], expected[2][1 + offset]])
        torch.testing.assert_close(hidden, wanted)
        if routes.shape[1]:
            assert torch.equal(chosen[1].sort(-1).values, routes[27 + offset].sort(-1).values)


@torch.no_grad()
def test_copied_rows_and_pages_go_on_alike() -> None:
    model, cache = HybridModel(CONFIG, seed=3), Cache(CONFIG, 4, 8, page_size=8)
    place = CachePlace.build(cache, np.array([2]), np.array([[5, 1]]), np.array([0]), np.array([9]))
    model(torch.arange(9), Packing.build([9], chunk_size=8), place=place)
    cache.copy_rows(torch.tensor([2, 2]), torch.tensor([0, 1]))
    cache.copy_pages(torch.tensor([1, 1]), torch.tensor([0, 3]))
    tables = np.array([[5, 0], [5, 3], [5, 1]])  # the full page is shared
    hidden, _ = model.step(torch.tensor([7, 7, 7]), cache, DecodeLayout.build(tables, np.full(3, 10), 8))
    torch.testing.assert_close(hidden, hidden[:1].expand(3, -1))
    assert cache.num_bytes == 4 * cache_bytes(CONFIG, page_size=8)[0] + 8 * cache_bytes(CONFIG, page_size=8)[1]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore")
def test_logits_equal_transformers_nemotron_h(
    seed: int, tmp_path: Path, benchmark: Callable[[str], ModuleType]
) -> None:
    """Of random shapes: all letters, latent experts, groups of experts and of state, several heads a key. Saved, it is loaded."""
    row = benchmark("transformers_parity").compare(seed, tmp_path)
    assert row["difference"] <= 1e-4 and row["saved difference"] <= 1e-4
    assert row["largest logit"] > 1 and row["greedy"]


def test_balancing_evens_the_loads() -> None:
    model = HybridModel(CONFIG, seed=0)
    routes = torch.zeros(100, 2, 2, dtype=torch.int64)
    routes[:, :, 1] = 1
    loads, half = ExpertLoads(2, 4), ExpertLoads(2, 4)
    loads.add(torch.cat([routes, routes + 2]), torch.arange(200) < 100)  # the rest is padding
    half.add(routes[:50])
    half.add(routes[50:])
    assert torch.equal(half.counts_LE, loads.counts_LE)
    assert loads.max_violation == pytest.approx(1.0)  # two of four experts carry everything
    assert loads.idle_share == 0.5
    model.balance(loads, 0.1)
    for moe in model.routers():
        assert torch.equal(moe.gate.e_score_correction_bias, torch.tensor([-0.1, -0.1, 0.1, 0.1]))


def test_the_preset_of_the_quickstart_has_about_a_million_parameters() -> None:
    assert 0.9e6 < sum(p.numel() for p in HybridModel(preset("tiny-1m")).parameters()) < 1.1e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "MX"}, "letters"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"experts_per_token": 9}, "exceeds"),
        ({"hidden_size": 0}, "positive"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset("tiny-1m", **changes)


def test_misspelt_presets_and_settings_get_the_nearest_guess() -> None:
    with pytest.raises(ValueError, match="Did you mean 'tiny-1m'"):
        preset("tiny1m")
    with pytest.raises(ValueError, match="Did you mean 'hidden_size'"):
        HybridConfig.from_dict({"hiden_size": 3})
    assert json.dumps(preset("tiny-1m").to_dict())
    warnings.resetwarnings()


@pytest.mark.parametrize(("pattern", "bound"), [("M*WM-", 0.02), ("M*EWM-E", 0.2)])
def test_half_precision_keeps_what_must_not_be_and_stays_near(pattern: str, bound: float) -> None:
    """Nearer without experts: a token that is routed elsewhere is far."""
    config = dataclasses.replace(CONFIG, pattern=pattern, window_size=6)
    exact, half = HybridModel(config, seed=2), cast(HybridModel(config, seed=2), torch.bfloat16)
    kept = {name for name, tensor in half.state_dict().items() if tensor.dtype is torch.float32}
    assert all(name.endswith(IN_FP32) for name in kept)
    assert len(kept) == 3 * pattern.count("M") + 2 * pattern.count("E") + 1
    ids, packing = torch.arange(40) % 61, Packing.build([25, 15], chunk_size=8)
    hidden, _ = half(ids, packing)
    logits, wanted = half.logits(hidden).detach(), exact.logits(exact(ids, packing)[0]).detach()
    assert hidden.dtype is torch.bfloat16 and logits.dtype is torch.float32
    assert 0 < float((logits - wanted).abs().mean()) < bound * float(wanted.std())
    half.logits(hidden).square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in half.parameters())
    cache = Cache(config, 1, 8, page_size=8, dtype=torch.bfloat16)
    assert {t.dtype for t in cache.row_tensors()} == {torch.bfloat16, torch.float32}
    with torch.no_grad():
        for at in range(10):
            layout = DecodeLayout.build(np.array([[0, 1]]), np.array([at + 1]), 8)
            stepped, _ = half.step(ids[at : at + 1], cache, layout)
    assert float((half.logits(stepped)[0].detach() - logits[9]).abs().mean()) < bound * float(wanted.std())
