"""A policy behind an engine: the one place that tells an engine what it must know of the chat format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .budget import ReasoningTokens
from .folder import Policy
from .native import NativeEngine
from .rendering import ChatRenderer, Renderer, TemplateRenderer
from .transformers_policy import TransformersPolicy

if TYPE_CHECKING:
    from .transformers_engine import TransformersEngine


def make_renderer(policy: Policy | TransformersPolicy) -> Renderer:
    """What renders conversations for a policy: the Nemotron 3 format, or the chat template that the tokenizer brings."""
    if isinstance(policy, TransformersPolicy) or policy.spoken:
        return TemplateRenderer(policy.tokenizer)
    return ChatRenderer(policy.tokenizer)


@overload
def make_engine(policy: Policy, *, num_slots: int, capacity: int, **options: Any) -> NativeEngine: ...
@overload
def make_engine(policy: TransformersPolicy, *, num_slots: int, capacity: int, **options: Any) -> TransformersEngine: ...
def make_engine(
    policy: Policy | TransformersPolicy, *, num_slots: int, capacity: int, **options: Any
) -> NativeEngine | TransformersEngine:
    """An engine of a policy, synchronous unless the options say otherwise, with what it must know of the chat format."""
    renderer = make_renderer(policy)
    settings: dict[str, Any] = {
        "stop_ids": renderer.stop_ids,
        "reasoning_tokens": reasoning_tokens(renderer, policy.model.config.vocab_size),
        "num_slots": num_slots,
        "capacity": capacity,
        "synchronous": True,
        **options,
    }
    if isinstance(policy, Policy):
        return NativeEngine(policy.model, **settings)
    from .transformers_engine import TransformersEngine

    return TransformersEngine(policy.model, **settings)


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
