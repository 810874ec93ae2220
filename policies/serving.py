"""A policy behind an engine: the one place that tells an engine what it must know of the chat format."""

from __future__ import annotations

from typing import Any

import numpy as np

from .batching import BatchingEngine
from .budget import ReasoningTokens
from .folder import Policy
from .native import NativeEngine
from .rendering import ChatRenderer, Renderer, TemplateRenderer
from .transformers_policy import TransformersPolicy


def make_renderer(policy: Policy | TransformersPolicy) -> Renderer:
    """What renders conversations for a policy: the Nemotron 3 format, or the chat template that the tokenizer brings."""
    if isinstance(policy, TransformersPolicy):
        return TemplateRenderer(policy.tokenizer)
    return ChatRenderer(policy.tokenizer)


def make_engine(
    policy: Policy | TransformersPolicy, *, num_slots: int, capacity: int, **options: Any
) -> BatchingEngine:
    """An engine of a policy, synchronous unless the options say otherwise, with what it must know of the chat format."""
    if isinstance(policy, TransformersPolicy):
        from .transformers_engine import TransformersEngine

        stop_ids = TemplateRenderer(policy.tokenizer).stop_ids
        settings: dict[str, Any] = {"synchronous": True, **options}
        return TransformersEngine(policy.model, stop_ids=stop_ids, num_slots=num_slots, capacity=capacity, **settings)
    return native_engine(policy, num_slots=num_slots, capacity=capacity, **options)


def native_engine(policy: Policy, *, num_slots: int, capacity: int, **options: Any) -> NativeEngine:
    """The engine of a hybrid policy."""
    return NativeEngine(
        policy.model,
        stop_ids=ChatRenderer(policy.tokenizer).stop_ids,
        reasoning_tokens=reasoning_tokens(policy),
        num_slots=num_slots,
        capacity=capacity,
        **options,
    )


def reasoning_tokens(policy: Policy) -> ReasoningTokens:
    """The tokens by which an engine counts and closes a policy's reasoning."""
    renderer = ChatRenderer(policy.tokenizer)
    ends_line, ends_sentence = np.zeros((2, policy.model.config.vocab_size), bool)
    ends_line[policy.tokenizer.newline_ids()] = True
    ends_sentence[policy.tokenizer.sentence_end_ids()] = True
    return ReasoningTokens(
        end_id=renderer.think_end_id,
        call_id=renderer.call_id,
        newline_id=policy.tokenizer.encode("\n")[0],
        ends_line=ends_line,
        ends_sentence=ends_sentence,
    )
