"""The decode step in C: the same function as the torch form's, in whatever company, and absent where it cannot be had."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from swannery.kernels import compiled
from swannery.kernels.compiled import library
from swannery.policies import HybridConfig, HybridModel, NativeEngine
from swannery.policies.compiled_step import can_compile
from swannery.policies.native import HybridDecoder

ODD = HybridConfig(
    pattern="M*E-M*E", vocab_size=77, hidden_size=52, mamba_num_heads=6, mamba_head_dim=10, mamba_num_groups=3, ssm_state_size=20,
    conv_kernel=3, chunk_size=8, num_attention_heads=6, num_key_value_heads=2, head_dim=36, num_experts=5, experts_per_token=3,
    expert_size=44, shared_expert_size=28, routed_scaling_factor=2.5, latent_size=24, mlp_size=40,
)  # fmt: skip
SHAPES = {
    "tiny-1m": HybridConfig(),
    "odd": ODD,
    "wide heads": HybridConfig(pattern="*M", head_dim=128, num_attention_heads=3, num_key_value_heads=3, conv_kernel=1),
    "windows": HybridConfig(
        pattern="W*WE", head_dim=20, num_attention_heads=4, num_key_value_heads=2, window_size=37, rope_theta=1000.0
    ),
    "one expert each": HybridConfig(pattern="EE", num_experts=33, experts_per_token=1, expert_size=16),
}
NUM_ROWS, PAGES_EACH = 24, 3

needs_compiler = pytest.mark.skipif(library() is None, reason="no C compiler here")


def decoder(model: HybridModel, form: str = "compiled") -> HybridDecoder:
    made = HybridDecoder(model, num_rows=NUM_ROWS, num_pages=NUM_ROWS * PAGES_EACH, row_multiple=1)
    if form == "torch":
        made.compiled = None
    return made


def play(made: HybridDecoder, rows: np.ndarray, num_steps: int) -> tuple[torch.Tensor, np.ndarray]:
    """Logits and routes of every step of some rows, each with a length and tokens of its own: [steps, B, ...]."""
    ids = np.random.default_rng(0).integers(0, made.vocab_size, (num_steps, NUM_ROWS))[:, rows]
    tables = np.arange(NUM_ROWS * PAGES_EACH).reshape(NUM_ROWS, PAGES_EACH)[rows]
    played = [made.step(ids[n], tables, rows % 3 * 40 + n + 1) for n in range(num_steps)]
    return torch.stack([logits[: len(rows)] for logits, _ in played]), np.stack([routes for _, routes in played])


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_it_is_the_torch_forms_function(shape: str) -> None:
    model = HybridModel(SHAPES[shape], seed=3)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "A_log" not in name:
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    for moe in model.routers():
        moe.gate.e_score_correction_bias.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(2))
    ours, reference = decoder(model), decoder(model, "torch")
    rows = np.arange(11)
    logits, routes = play(ours, rows, 70)
    wanted, wanted_routes = play(reference, rows, 70)
    assert np.array_equal(routes, wanted_routes)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=2e-5)
    for mine, its in zip(ours.cache.row_tensors(), reference.cache.row_tensors(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=2e-5)


@needs_compiler
@torch.no_grad()
def test_a_rows_bits_do_not_depend_on_its_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 0 by itself, among others, and among others in several threads."""
    model = HybridModel(ODD, seed=3)
    alone, _ = play(decoder(model), np.arange(1), 50)
    for num_rows in (2, 5, 24):
        among, _ = play(decoder(model), np.arange(num_rows), 50)
        assert torch.equal(among[:, :1], alone)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    threaded, _ = play(decoder(model), np.arange(24), 50)
    assert torch.equal(threaded, among)


@needs_compiler
@torch.no_grad()
def test_new_weights_are_packed_anew() -> None:
    """Also where an optimizer changed them without a trace, as torch's fused ones do, and the engine is told of the same tensors."""
    model, other = HybridModel(ODD, seed=3), HybridModel(ODD, seed=4)
    made, rows = decoder(model), np.arange(4)
    before, _ = play(made, rows, 2)
    for parameter, new in zip(model.parameters(), other.parameters(), strict=True):
        torch.from_numpy(parameter.numpy())[...] = new  # through the memory, past torch's count of versions
    made.load_weights(model.state_dict())
    for tensor in made.cache.row_tensors():
        tensor.zero_()
    after, _ = play(made, rows, 2)
    wanted, _ = play(decoder(other), rows, 2)
    assert torch.equal(after, wanted) and not torch.equal(after, before)


@needs_compiler
@torch.no_grad()
def test_a_value_that_is_no_number_stays_in_its_row() -> None:
    model = HybridModel(ODD, seed=3)
    made, rows = decoder(model), np.arange(3)
    clean, _ = play(made, rows, 4)
    spoilt = decoder(model)
    for tensor in spoilt.cache.row_tensors():
        tensor[1] = torch.nan
    logits, _ = play(spoilt, rows, 4)
    assert torch.isnan(logits[:, 1]).all()
    assert torch.equal(logits[:, [0, 2]], clean[:, [0, 2]])


def test_what_it_cannot_do_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_compile(HybridModel(ODD)) == (library() is not None)
    assert not can_compile(HybridModel(HybridConfig(num_expert_groups=4, expert_groups_per_token=2)))
    assert not can_compile(HybridModel(ODD).double())
    exact = HybridModel(ODD)
    exact.exact = True
    assert not can_compile(exact)
    monkeypatch.setenv("SWANNERY_KERNELS", "torch")
    assert not can_compile(HybridModel(ODD))


@pytest.mark.parametrize(("compiler", "said"), [("no-such-compiler", "no C compiler"), ("false", "did not compile")])
def test_without_a_compiler_the_torch_form_runs(
    compiler: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", compiler)
    with caplog.at_level(logging.INFO, logger=compiled.__name__):
        assert library.__wrapped__() is None
    assert said in caplog.text
    monkeypatch.setattr(compiled, "library", lambda: None)
    engine = NativeEngine(HybridModel(ODD), stop_ids=(), reasoning_tokens=None, num_slots=4, capacity=64)
    assert engine.decoder.compiled is None
