"""A transformers model over packed forests is that model on each sequence alone; LoRA is what peft says it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from swannery.policies import Tokenizer, TransformersPolicy, lora, open_policy
from swannery.policies.packed_transformer import PackedTransformer
from swannery.policies.training import checkpoint_files, finished_files
from swannery.policies.transformers_attention import Unserved

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = {"llama": LlamaConfig(**SIZES, tie_word_embeddings=True), "qwen2": Qwen2Config(**SIZES)}


def made(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(KINDS[kind]).eval()


def with_lora(kind: str = "llama") -> Any:
    """A model whose LoRA does something."""
    model = made(kind)
    lora.add_lora(model, rank=3, alpha=6, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=generator)
    return model


def forest() -> tuple[list[int], list[int], list[list[int]], torch.Tensor]:
    """Lengths, parents, each segment's path as packed indices, and ids."""
    lengths, parents = [7, 3, 5, 1, 9, 4], [-1, 0, 0, 2, -1, 4]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    paths: list[list[int]] = []
    for segment, parent in enumerate(parents):
        before = paths[parent] if parent >= 0 else []
        paths.append([*before, *range(starts[segment], starts[segment + 1])])
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 97, starts[-1]))
    return lengths, parents, paths, ids


@pytest.mark.parametrize("kind", KINDS)
def test_each_path_of_a_forest_is_as_it_would_be_alone(kind: str) -> None:
    model = made(kind)
    lengths, parents, paths, ids = forest()
    alone = [model(ids[path][None], output_hidden_states=True).hidden_states[-1][0] for path in paths]
    packed = PackedTransformer(model)
    hidden, routes = packed(ids, packed.plan(lengths, parents))
    assert routes.shape == (len(ids), 0, 0)
    for path, wanted in zip(paths, alone, strict=True):
        torch.testing.assert_close(hidden[path], wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_forest_are_the_sum_of_its_segments_own(kind: str) -> None:
    model = made(kind).double()
    lengths, parents, paths, ids = forest()
    targets = torch.roll(ids, 1)
    total = torch.zeros((), dtype=torch.float64)
    for path, length in zip(paths, lengths, strict=True):
        own = path[-length:]  # each packed token counts once
        logp = model(ids[path][None]).logits[0, -length:].log_softmax(-1)
        total = total + logp.gather(1, targets[own][:, None]).sum()
    total.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    packed = PackedTransformer(model)
    hidden, _ = packed(ids, packed.plan(lengths, parents))
    logprobs, _ = packed.logprobs(hidden, targets, torch.ones(len(ids), dtype=torch.float64))
    logprobs.sum().backward()
    assert abs(float(logprobs.detach().sum() - total.detach())) < 1e-10
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5, rtol=1e-4)  # its norms are in float32


def test_lora_begins_as_the_model_and_trains_nothing_else() -> None:
    plain, model, ids = made("llama"), made("llama"), torch.arange(20)[None]
    lora.add_lora(model, rank=4, alpha=8)
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = {name.split(".lora_")[0].split(".")[-1] for name in trained}
    assert all("lora_" in name for name in trained)
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_same_seed_draws_the_same_lora_and_disturbs_no_other_stream() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = made("llama"), made("llama")
    torch.random.set_rng_state(before)
    for model in (first, second):
        lora.add_lora(model, rank=2, alpha=4, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in lora.adapter(first).items():
        assert torch.equal(tensor, lora.adapter(second)[name])


def test_merged_weights_are_the_model_with_its_lora() -> None:
    model, ids = with_lora(), torch.arange(30)[None]
    plain = made("llama", seed=9)
    missing, unexpected = plain.load_state_dict(lora.merged(model), strict=True)
    assert not missing and not unexpected
    torch.testing.assert_close(plain(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def published(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer.to_json())
    return PreTrainedTokenizerFast(tokenizer_file=str(path))


def written(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_folder_is_what_transformers_reads(kind: str, published: Any, tmp_path: Path) -> None:
    model, ids = made(kind), torch.arange(30)[None]
    folder = written(tmp_path / "policy", finished_files(TransformersPolicy(model, published)))
    again = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert torch.equal(open_policy(folder).model(ids).logits, model(ids).logits)


def test_an_adapter_is_read_again_to_the_bit_and_by_peft(published: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    model, ids = with_lora(), torch.arange(30)[None]
    base = written(tmp_path / "base", finished_files(TransformersPolicy(made("llama"), published)))
    folder = written(tmp_path / "adapter", checkpoint_files(TransformersPolicy(model, published), str(base)))
    assert (folder / lora.ADAPTER).stat().st_size < (base / "model.safetensors").stat().st_size / 2
    assert torch.equal(open_policy(folder).model(ids).logits, model(ids).logits)
    plain = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.float32).eval()
    by_peft = PeftModel.from_pretrained(plain, str(folder)).eval()
    torch.testing.assert_close(by_peft(ids).logits, model(ids).logits)


def test_a_foreign_adapter_is_refused() -> None:
    model, other = with_lora(), with_lora()
    tensors = {f"base_model.model.{name}": tensor[:1] for name, tensor in lora.adapter(other).items()}
    with pytest.raises(ValueError, match="of another shape: .* tensors differ"):
        lora.load_adapter(model, tensors)


def test_a_head_that_is_no_plain_product_is_refused() -> None:
    model = made("llama")
    model.config.logits_scaling = 8.0
    with pytest.raises(Unserved, match="logits_scaling"):
        PackedTransformer(model)
