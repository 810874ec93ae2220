"""What a policy folder says of the tokenizer and the chat format: ours as a template, a published one as it came."""

import asyncio
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from swannery.messages import Message, ToolCall, ToolSchema
from swannery.policies import (
    ChatRenderer,
    GenerationRequest,
    HybridConfig,
    HybridModel,
    Policy,
    PolicyError,
    TemplateRenderer,
    load_policy,
    make_engine,
    make_renderer,
    open_policy,
    weights_hash,
)
from swannery.policies.folder import save_policy

ADD = ToolSchema(
    "add",
    "Add two numbers.",
    {
        "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": "integer", "description": "The «other»."}},
        "required": ["a"],
    },
)
USER, CALL = Message("user", "What is 12 + 34?"), ToolCall("add", {"a": "12", "b": "34"})
CONVERSATIONS: list[list[Message]] = [
    [USER],
    [Message("system", "Be brief.\nAnd kind."), USER],
    [USER, Message("assistant", "46.", reasoning="12 and 34."), Message("user", "And 1?")],
    [USER, Message("assistant", "46."), Message("user", "")],
    [
        Message("system", "Use tools."), USER, Message("assistant", "", reasoning="", tool_calls=(CALL, CALL)),
        Message("tool", "46"), Message("tool", "46\n"), Message("assistant", "So:\nit is 46."), Message("user", "Sure?"),
        Message("assistant", "Again", tool_calls=(CALL,)), Message("tool", ""),
    ],
]  # fmt: skip


def as_dicts(messages: list[Message]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.reasoning is not None:
            one["reasoning_content"] = message.reasoning
        if message.tool_calls:
            one["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
                for c in message.tool_calls
            ]
        found.append(one)
    return found


@pytest.mark.filterwarnings("ignore")
def test_transformers_writes_the_prompts_that_the_policy_was_trained_on(policy: Policy, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_policy(policy, tmp_path / "policy")
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "policy"), ChatRenderer(policy.tokenizer)
    tool = {
        "type": "function",
        "function": {"name": ADD.name, "description": ADD.description, "parameters": ADD.parameters},
    }
    for messages in CONVERSATIONS:
        for tools in ((), (ADD,)):
            for reasoning, effort in ((True, "full"), (False, "full"), (True, "low")):
                got = theirs.apply_chat_template(
                    as_dicts(messages), tools=[tool] if tools else None, add_generation_prompt=True, tokenize=True,
                    return_dict=False, enable_thinking=reasoning, effort=effort,
                )  # fmt: skip
                wanted = ours.open(messages, tools, reasoning=reasoning, effort=effort)  # type: ignore[arg-type]
                assert theirs.decode(got) == policy.tokenizer.decode(wanted)
                assert got == wanted
    assert isinstance(make_renderer(load_policy(tmp_path / "policy")), ChatRenderer)


def published_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    special = ["<s>", "</s>", "[USER]", "[BOT]"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(["What is 12 + 34? It is 46."] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "<s>{% for m in messages %}{{ '[USER]' if m.role == 'user' else '[BOT]' }}{{ m.content }}"
        "{{ '</s>' if m.role == 'assistant' else '' }}{% endfor %}{{ '[BOT]' if add_generation_prompt else '' }}"
    )
    return tokenizer


@pytest.mark.filterwarnings("ignore")
def test_a_published_folder_keeps_its_tokenizer_and_speaks_by_its_template(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, NemotronHConfig, NemotronHForCausalLM

    tokenizer = published_tokenizer()
    config = NemotronHConfig(
        hybrid_override_pattern="M*E", vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, intermediate_size=32, ssm_state_size=8, mamba_num_heads=4, mamba_head_dim=8,
        n_groups=1, chunk_size=8, n_routed_experts=4, moe_intermediate_size=16, moe_shared_expert_intermediate_size=16,
        num_experts_per_tok=2,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = NemotronHForCausalLM(config)
    theirs.save_pretrained(tmp_path / "published")
    tokenizer.save_pretrained(tmp_path / "published")
    policy = open_policy(tmp_path / "published")
    assert isinstance(policy, Policy)
    renderer = make_renderer(policy)
    assert isinstance(renderer, TemplateRenderer)
    prompt = renderer.open([USER])
    assert prompt == tokenizer.apply_chat_template(as_dicts([USER]), add_generation_prompt=True, return_dict=False)

    async def run() -> int:
        async with make_engine(policy, num_slots=2, capacity=64) as engine:
            request = GenerationRequest(token_ids=prompt, max_new_tokens=4, seed=0, temperature=0.0)
            return (await anext(engine.generate([request])))[1].token_ids[0]

    assert asyncio.run(run()) == int(theirs.eval()(torch.tensor([prompt])).logits[0, -1].argmax())
    save_policy(policy, tmp_path / "saved")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "published" / name).read_bytes()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.config.eos_token_id == tokenizer.eos_token_id
    again_ours = load_policy(tmp_path / "saved")
    assert weights_hash(again_ours.model.state_dict()) == weights_hash(policy.model.state_dict())
    (tmp_path / "saved" / "tokenizer.json").write_text("{}")
    with pytest.raises(PolicyError, match="tokenizer cannot be loaded"):
        load_policy(tmp_path / "saved")


def test_what_nemotron_h_has_not_is_saved_all_the_same(policy: Policy, tmp_path: Path) -> None:
    config = dataclasses.replace(policy.model.config, pattern="W*EM", window_size=24, latent_size=16)
    windowed = Policy(HybridModel(config, seed=2), policy.tokenizer)
    save_policy(windowed, tmp_path / "policy")
    loaded = open_policy(tmp_path / "policy")
    assert isinstance(loaded, Policy) and isinstance(loaded.model.config, HybridConfig)
    assert loaded.model.config == config
    assert weights_hash(loaded.model.state_dict()) == weights_hash(windowed.model.state_dict())
    with pytest.raises(ValueError, match="swannery_hybrid"), warnings.catch_warnings():
        from transformers import AutoModelForCausalLM

        AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
