"""What shapes cost, against the models themselves and the published figures."""

import pytest
import torch

from swannery.policies import HybridModel, preset
from swannery.policies.cache import cache_bytes
from swannery.policies.calculator import count_parameters, crossover, flops_per_token, state_bytes


def on_meta(name: str, **changes: object) -> HybridModel:
    with torch.device("meta"):
        return HybridModel(preset(name, **changes))


@pytest.mark.parametrize(
    ("name", "total", "active", "with_embedding"),
    [("nano3", 31.6e9, 3.2e9, False), ("super3", 120.6e9, 12.7e9, True), ("ultra3", 550e9, 55e9, False)],
)
def test_the_models_of_nemotron_3_have_the_published_parameters(
    name: str, total: float, active: float, with_embedding: bool
) -> None:
    """Reports differ in whether the input embedding is active: Super's 12.7B counts it, Nano's 3.2B (3.6B with it) does not."""
    found, count = sum(p.numel() for p in on_meta(name).parameters()), count_parameters(preset(name))
    assert found == count.total == pytest.approx(total, rel=0.01)
    assert count.active + with_embedding * count.embedding == pytest.approx(active, rel=0.012)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny-1m", {}),
        ("tiny-6m", {"latent_size": 64}),
        ("tiny-100k", {"pattern": "MW*E-", "mamba_num_groups": 2, "num_expert_groups": 2}),
        ("ladder-1b", {}),
        ("ladder-2b", {}),
        ("ladder-4b", {}),
    ],
)
def test_the_calculator_counts_what_the_model_has(name: str, changes: dict[str, object]) -> None:
    config = preset(name, **changes)
    assert count_parameters(config).total == sum(p.numel() for p in on_meta(name, **changes).parameters())


def test_the_ladder_is_as_large_as_its_names_say() -> None:
    for name, total in (("ladder-1b", 1e9), ("ladder-2b", 2e9), ("ladder-4b", 4e9)):
        assert count_parameters(preset(name)).total == pytest.approx(total, rel=0.3)


def test_state_bytes_are_those_of_the_cache_and_cross_where_the_law_says() -> None:
    config = preset("tiny-6m", pattern="MW*", window_size=32)
    row, page = cache_bytes(config, page_size=64)
    assert state_bytes(config, 640, kv_itemsize=4) == row + 10 * page
    assert crossover(preset("nano3")) == 4096  # models in bf16, states in fp32
    one_each = [state_bytes(preset("nano3", pattern=letter), 4096) for letter in "M*"]
    assert one_each[0] == pytest.approx(one_each[1] / 2, rel=0.05)  # a state is read and written, a key only read


def test_flops_grow_with_what_a_token_sees() -> None:
    config = preset("tiny-1m", pattern="W*", window_size=64)
    near, far = flops_per_token(config, 100), flops_per_token(config, 1100)
    assert far - near == 1000 * 4 * config.num_attention_heads * config.head_dim
    assert flops_per_token(config, 100, training=True) == 3 * near
