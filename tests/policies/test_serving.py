"""A policy behind its engine, whatever its chat format: budgets are kept and conversations answered."""

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from swannery.messages import Limits, Message
from swannery.policies import (
    EngineResponder,
    GenerationRequest,
    ReasoningBudget,
    RequestError,
    Tokenizer,
    TransformersPolicy,
    make_engine,
    make_renderer,
)

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def templates(benchmark: Callable[[str], ModuleType]) -> dict[str, str]:
    return benchmark("rendering_worlds").TEMPLATES


def small_policy(tokenizer: Tokenizer, template: str) -> TransformersPolicy:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend, chat_template=template, eos_token="<|im_end|>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    return TransformersPolicy(LlamaForCausalLM(config).eval(), wrapped)


@pytest.mark.parametrize("template", ["opens reasoning", "keeps reasoning"])
def test_a_budget_is_kept_in_formats_of_others(tokenizer: Tokenizer, templates: dict[str, str], template: str) -> None:
    """Where the prompt opens reasoning, and where the policy does."""
    policy = small_policy(tokenizer, templates[template])
    renderer = make_renderer(policy)
    ids, opened = renderer.open([Message("user", "hi")]), template == "opens reasoning"
    assert (renderer.think_begin_id is None) == opened
    request = {"token_ids": ids, "max_new_tokens": 60, "reasoning": True, "stop_ids": ()}
    asked = [
        GenerationRequest(**request, seed=seed, budget=ReasoningBudget(limit=3, grace=seed % 3)) for seed in range(150)
    ]

    async def run() -> list[Any]:
        async with make_engine(policy, num_slots=50, capacity=256, synchronous=False) as engine:
            return [(asked[index], result) async for index, result in engine.generate(asked)]

    hits, closing = 0, renderer.closing_ids()
    for request, result in asyncio.run(run()):
        said, forced = result.token_ids, result.forced.tolist()
        assert result.budget_hit == any(forced) and (opened or not result.budget_hit or renderer.think_begin_id in said)
        if not result.budget_hit:
            continue
        hits += 1
        first = forced.index(True)
        begun = 0 if opened else said.index(renderer.think_begin_id) + 1
        assert request.budget is not None and 3 <= first - begun <= 3 + request.budget.grace
        inserted, lead = said[first:], closing.index(renderer.think_end_id)
        assert any(all(a == b for a, b in zip(inserted, ids, strict=False)) for ids in (closing, closing[lead:]))
    assert hits > (140 if opened else 3)


def test_a_format_without_reasoning_has_no_budget_to_keep(tokenizer: Tokenizer, templates: dict[str, str]) -> None:
    policy = small_policy(tokenizer, templates["plain"])
    renderer = make_renderer(policy)

    async def run() -> Message:
        async with make_engine(policy, num_slots=2, capacity=256, synchronous=False) as engine:
            request = GenerationRequest(
                token_ids=[1], max_new_tokens=4, reasoning=True, budget=ReasoningBudget(limit=3)
            )
            with pytest.raises(RequestError, match="no reasoning to keep a budget of"):
                await engine.session().generate(request)
            responder = EngineResponder(engine, renderer, max_new_tokens=8, seed=3)
            one, two = [
                await responder([Message("user", "hello")], (), Limits(reasoning_budgets=(4,))) for _ in range(2)
            ]
            assert one == two and one.role == "assistant" and one.reasoning is None
            return one

    asyncio.run(run())


def test_a_person_is_told_which_budgets_a_format_cannot_keep(tokenizer: Tokenizer, templates: dict[str, str]) -> None:
    from swannery.cli_policies import _budget, _kept
    from swannery.rl.config import ConfigError

    plain, thinking = (make_renderer(small_policy(tokenizer, templates[name])) for name in ("plain", "opens reasoning"))
    assert [_budget(text, thinking) for text in ("0", "8", "unlimited")] == [0, 8, None]
    assert [_budget(text, plain) for text in ("0", "unlimited")] == [0, None] and _kept(8, plain) is None
    for text, why in (("8", "has no reasoning"), ("low", "knows no effort"), ("-1", "a number of tokens")):
        with pytest.raises(ConfigError, match=why):
            _budget(text, plain)
