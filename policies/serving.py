"""A policy behind an engine: the one place that tells an engine what it must know of the chat format."""

from __future__ import annotations

from typing import Any

import numpy as np

from .budget import ReasoningTokens
from .folder import Policy
from .native import NativeEngine
from .rendering import ChatRenderer


def make_engine(policy: Policy, *, num_slots: int, capacity: int, **options: Any) -> NativeEngine:
    """An engine of a policy (synchronous unless the options say otherwise), with what it must know of the chat format."""
    renderer = ChatRenderer(policy.tokenizer)
    ends_line, ends_sentence = np.zeros((2, policy.model.config.vocab_size), bool)
    ends_line[policy.tokenizer.newline_ids()] = True
    ends_sentence[policy.tokenizer.sentence_end_ids()] = True
    tokens = ReasoningTokens(
        end_id=renderer.think_end_id,
        call_id=renderer.call_id,
        newline_id=policy.tokenizer.encode("\n")[0],
        ends_line=ends_line,
        ends_sentence=ends_sentence,
    )
    return NativeEngine(
        policy.model,
        stop_ids=renderer.stop_ids,
        reasoning_tokens=tokens,
        num_slots=num_slots,
        capacity=capacity,
        **options,
    )
