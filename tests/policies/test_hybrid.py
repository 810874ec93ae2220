"""The model: packed, prefilled and decoded alike; equal to transformers' nemotron_h; saved and loaded."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from swannery.kernels.packing import Packing
from swannery.kernels.paged_attention import DecodeLayout, ExtendLayout
from swannery.policies import (
    HybridConfig,
    HybridModel,
    Policy,
    PolicyError,
    load_policy,
    policy_files,
    preset,
    weights_hash,
)
from swannery.policies.cache import Cache, cache_bytes
from swannery.policies.folder import load_weights
from swannery.policies.huggingface import config_from_nemotron_h, weights_from_nemotron_h
from swannery.policies.hybrid import CachePlace
from swannery.rl.run_folder import write_folder

CONFIG = HybridConfig(
    pattern="M*E-ME", vocab_size=61, hidden_size=32, mamba_num_heads=4, mamba_head_dim=8, mamba_num_groups=2, ssm_state_size=8,
    chunk_size=8, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, expert_size=16,
    shared_expert_size=24, mlp_size=40, routed_scaling_factor=2.5, init_std=0.2,
)  # fmt: skip


@torch.no_grad()
def test_prefill_and_decoding_equal_the_packed_pass() -> None:
    model = HybridModel(CONFIG, seed=3).double()
    ids = torch.randint(0, 61, (3, 29), generator=torch.Generator().manual_seed(0))
    lengths = [29, 17, 4]
    packing = Packing.build(lengths, chunk_size=8)
    expected, routes = model(torch.cat([row[:n] for row, n in zip(ids, lengths, strict=True)]), packing)
    expected = expected.split(lengths)
    cache = Cache(CONFIG, 5, 12, page_size=8, dtype=torch.float64)
    tables = np.array([[7, 2, 9, 4], [0, 1, 3, 5], [8, 6, 0, 0]])  # of the sequences, in rows 1, 0, 2
    rows = torch.tensor([1, 0, 2])

    def prefill(past: list[int], new: list[int]) -> torch.Tensor:
        S = len(new)
        layout = ExtendLayout.build(tables[:S], np.array(past), np.array(new), 8)
        pieces = torch.cat([ids[s, past[s] : past[s] + new[s]] for s in range(S)])
        return model(pieces, Packing.build(new, chunk_size=8), place=CachePlace(cache, rows[:S], layout))[0]

    prefill([0, 0, 0], [20, 9, 1])
    more = prefill([20, 9], [7, 1])
    torch.testing.assert_close(more, torch.cat([expected[0][20:27], expected[1][9:10]]))
    for offset in range(2):
        step_ids = torch.stack([ids[1, 10 + offset], ids[0, 27 + offset], ids[2, 1 + offset]])
        layout = DecodeLayout.build(tables[[1, 0, 2]], np.array([11, 28, 2]) + offset, 8)
        hidden, chosen = model.step(step_ids, cache, layout)
        wanted = torch.stack([expected[1][10 + offset], expected[0][27 + offset], expected[2][1 + offset]])
        torch.testing.assert_close(hidden, wanted)
        assert torch.equal(chosen[1].sort(-1).values, routes[27 + offset].sort(-1).values)


@torch.no_grad()
def test_copied_rows_and_pages_go_on_alike() -> None:
    model, cache = HybridModel(CONFIG, seed=3), Cache(CONFIG, 4, 8, page_size=8)
    layout = ExtendLayout.build(np.array([[5, 1]]), np.array([0]), np.array([9]), 8)
    model(torch.arange(9), Packing.build([9], chunk_size=8), place=CachePlace(cache, torch.tensor([2]), layout))
    cache.copy_rows(torch.tensor([2, 2]), torch.tensor([0, 1]))
    cache.copy_pages(torch.tensor([1, 1]), torch.tensor([0, 3]))
    tables = np.array([[5, 0], [5, 3], [5, 1]])  # the full page is shared
    hidden, _ = model.step(torch.tensor([7, 7, 7]), cache, DecodeLayout.build(tables, np.full(3, 10), 8))
    torch.testing.assert_close(hidden, hidden[:1].expand(3, -1))
    assert cache.num_bytes == 4 * cache_bytes(CONFIG, page_size=8)[0] + 8 * cache_bytes(CONFIG, page_size=8)[1]


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_logits_equal_transformers_nemotron_h(tmp_path: Path) -> None:
    from transformers import NemotronHConfig, NemotronHForCausalLM

    published = NemotronHConfig(
        hybrid_override_pattern="M*E-ME", vocab_size=97, hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, intermediate_size=48, ssm_state_size=8, mamba_num_heads=4, mamba_head_dim=16, n_groups=2, chunk_size=8,
        n_routed_experts=6, moe_intermediate_size=24, moe_shared_expert_intermediate_size=40, num_experts_per_tok=2,
        routed_scaling_factor=2.5,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = NemotronHForCausalLM(published).eval()
    for parameter in theirs.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, 0.15)
    for name, buffer in theirs.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.1)
    ours = HybridModel(config_from_nemotron_h(published.to_dict()))
    ours.load_state_dict(weights_from_nemotron_h(theirs.state_dict()))
    ids = torch.randint(0, 97, (2, 37))
    hidden, _ = ours(ids.flatten(), Packing.build([37, 37], chunk_size=8))
    logits = theirs(ids).logits.flatten(0, 1)
    assert float((ours.logits(hidden) - logits).abs().max()) <= 1e-4
    assert float(logits.abs().max()) > 1
    assert torch.equal(ours.logits(hidden).argmax(-1), logits.argmax(-1))


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_transformers_loads_a_saved_policy_unchanged(policy: Policy, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_folder(tmp_path / "policy", policy_files(policy))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32).eval()
    ids = torch.arange(20, 60)
    hidden, _ = policy.model(ids, Packing.build([40], chunk_size=8))
    assert float((policy.model.logits(hidden) - theirs(ids[None]).logits[0]).abs().max()) <= 1e-4


def test_a_saved_policy_comes_back_bit_for_bit(policy: Policy, tmp_path: Path) -> None:
    write_folder(tmp_path / "policy", policy_files(policy))
    loaded = load_policy(tmp_path / "policy")
    assert weights_hash(loaded.model.state_dict()) == weights_hash(policy.model.state_dict())
    assert loaded.model.config == policy.model.config
    assert loaded.tokenizer.encode("What is 12 + 34?") == policy.tokenizer.encode("What is 12 + 34?")


def test_weights_of_another_architecture_are_refused_with_what_differs(policy: Policy, tmp_path: Path) -> None:
    write_folder(tmp_path / "policy", policy_files(policy))
    other = HybridModel(dataclasses.replace(policy.model.config, expert_size=16))
    with pytest.raises(PolicyError, match="another architecture.*experts"):
        load_weights(other, tmp_path / "policy" / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_policy_is_refused_by_name(policy: Policy, tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "policy", policy_files(policy))
    path = tmp_path / "policy" / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(PolicyError, match=name):
        load_policy(tmp_path / "policy")


def test_weights_that_are_not_finite_are_refused(policy: Policy, tmp_path: Path) -> None:
    with torch.no_grad():
        policy.model.norm_f.weight[0] = float("nan")
    write_folder(tmp_path / "policy", policy_files(policy))
    with pytest.raises(PolicyError, match="not finite"):
        load_policy(tmp_path / "policy")


def test_balancing_evens_the_loads() -> None:
    model = HybridModel(CONFIG, seed=0)
    routes = torch.zeros(100, 2, 2, dtype=torch.int64)
    routes[:, :, 1] = 1
    assert model.balance(routes, 0.1) == pytest.approx(1.0)  # two of four experts carry everything
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
