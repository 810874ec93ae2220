"""The engines that the contract is tested on, each made small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swannery.policies import HybridModel, Policy, ReasoningTokens, make_engine, make_renderer, reasoning_tokens
from swannery.policies.batching import BatchingEngine
from swannery.policies.simulated import SimulatedEngine
from swannery.policies.transformers_engine import TransformersEngine

STOP, END, CALL, NEWLINE = 0, 3, 4, 5


@dataclass(frozen=True)
class Subject:
    """An engine to make, and what the contract must know of it."""

    make: Callable[..., BatchingEngine]
    vocab_size: int
    stop_id: int
    reasoning: ReasoningTokens
    other_weights: Mapping[str, Any]


def _small_tokens(vocab_size: int) -> ReasoningTokens:
    ends_line, ends_sentence = np.zeros((2, vocab_size), bool)
    ends_line[[NEWLINE, 9]] = True
    return ReasoningTokens(
        closing=np.array([NEWLINE, END, NEWLINE]),
        end_id=END,
        call_id=CALL,
        begin_id=None,
        ends_line=ends_line,
        ends_sentence=ends_sentence,
    )


def native(policy: Policy, synchronous: bool) -> Subject:
    config = policy.model.config
    tokens = reasoning_tokens(make_renderer(policy), config.vocab_size)
    assert tokens is not None
    return Subject(
        lambda **options: make_engine(
            policy, **{"num_slots": 16, "capacity": 256, "synchronous": synchronous, **options}
        ),
        config.vocab_size,
        policy.tokenizer.control["<|im_end|>"],
        tokens,
        HybridModel(config, seed=8).state_dict(),
    )


def of_pattern(policy: Policy, pattern: str, **changes: Any) -> Policy:
    """A policy of other layers, with a sharpened head."""
    config = dataclasses.replace(policy.model.config, pattern=pattern, **changes)
    model = HybridModel(config, seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    return Policy(model, policy.tokenizer)


def simulated(_: Policy) -> Subject:
    tokens = _small_tokens(64)
    return Subject(
        lambda **options: SimulatedEngine(
            **{"num_slots": 16, "capacity": 256, "reasoning_tokens": tokens, "seed": 1, **options}
        ),
        64,
        STOP,
        tokens,
        {"logits": torch.randn(64, 64, generator=torch.Generator().manual_seed(9))},
    )


def transformers(_: Policy) -> Subject:
    from transformers import LlamaConfig, LlamaForCausalLM

    def model(seed: int) -> Any:
        torch.manual_seed(seed)
        made = LlamaForCausalLM(
            LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, max_position_embeddings=256)
        )  # fmt: skip
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.2)
        return made.eval()

    served, tokens = model(1), _small_tokens(97)
    return Subject(
        lambda **options: TransformersEngine(
            served, **{"stop_ids": [STOP], "reasoning_tokens": tokens, "num_slots": 16, "capacity": 256, **options}
        ),
        97,
        STOP,
        tokens,
        model(2).state_dict(),
    )


SUBJECTS: dict[str, Callable[[Policy], Subject]] = {
    "native, asynchronous": lambda policy: native(policy, False),
    "native, synchronous": lambda policy: native(policy, True),
    "native, windows": lambda policy: native(of_pattern(policy, "WE*W", window_size=24, latent_size=16), False),
    "native, attention alone": lambda policy: native(of_pattern(policy, "*-*E"), False),
    "transformers": transformers,
    "simulated": simulated,
}
