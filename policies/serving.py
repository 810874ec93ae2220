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
    if not isinstance(policy, TransformersPolicy):
        return native_engine(policy, num_slots=num_slots, capacity=capacity, **options)
    from .transformers_engine import TransformersEngine

    renderer = make_renderer(policy)
    return TransformersEngine(
        policy.model,
        stop_ids=renderer.stop_ids,
        reasoning_tokens=reasoning_tokens(renderer, policy.model.config.vocab_size),
        num_slots=num_slots,
        capacity=capacity,
        **{"synchronous": True, **options},
    )


def native_engine(policy: Policy, *, num_slots: int, capacity: int, **options: Any) -> NativeEngine:
    """The engine of a hybrid policy."""
    renderer = make_renderer(policy)
    return NativeEngine(
        policy.model,
        stop_ids=renderer.stop_ids,
        reasoning_tokens=reasoning_tokens(renderer, policy.model.config.vocab_size),
        num_slots=num_slots,
        capacity=capacity,
        **options,
    )


def reasoning_tokens(renderer: Renderer, vocab_size: int) -> ReasoningTokens | None:
    """The tokens by which an engine counts and closes reasoning. None where the chat format has none for it."""
    if renderer.think_end_id is None:
        return None
    marks = np.zeros((2, vocab_size), bool)
    for ends, ids in zip(marks, (renderer.line_end_ids(), renderer.sentence_end_ids()), strict=True):
        ends[[token for token in ids if token < vocab_size]] = True
    return ReasoningTokens(
        closing=np.array(renderer.closing_ids()),
        end_id=renderer.think_end_id,
        call_id=renderer.call_id,
        begin_id=renderer.think_begin_id,
        ends_line=marks[0],
        ends_sentence=marks[1],
    )
