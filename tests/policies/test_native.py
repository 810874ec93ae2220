"""The native engine: shared prefills, its own random streams, weights and caches, errors."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from swannery.kernels.packing import Packing
from swannery.messages import Message
from swannery.policies import (
    ChatRenderer,
    EngineResponder,
    GenerationRequest,
    GenerationResult,
    HybridModel,
    NativeEngine,
    PauseMode,
    Policy,
    ReasoningBudget,
    StopReason,
    make_engine,
)
from swannery.policies.engine import EngineMetrics
from swannery.policies.sampling import sample, stream_seed, uniforms


def serve(policy: Policy, use: Callable[[NativeEngine], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with make_engine(policy, **{"num_slots": 16, "capacity": 128, **options}) as engine:
            return await use(engine)

    return asyncio.run(run())


def generate(policy: Policy, requests: list[GenerationRequest], **options: Any) -> list[GenerationResult]:
    async def use(engine: NativeEngine) -> list[GenerationResult]:
        found = {index: result async for index, result in engine.generate(requests)}
        return [found[index] for index in range(len(requests))]

    return serve(policy, use, **options)


def request(ids: list[int], **changes: Any) -> GenerationRequest:
    return GenerationRequest(**{"token_ids": ids, "max_new_tokens": 12, "seed": 5, **changes})


@torch.no_grad()
def test_logprobs_are_those_of_the_distribution_that_was_sampled(policy: Policy) -> None:
    context = list(range(20, 40))
    (result,) = generate(policy, [request(context, temperature=0.7)])
    ids = torch.tensor(context + result.token_ids)
    hidden, _ = policy.model(ids[:-1], Packing.build([len(ids) - 1], chunk_size=8))
    logprobs = (policy.model.logits(hidden) / 0.7).log_softmax(-1)
    expected = logprobs[len(context) - 1 :].gather(1, ids[len(context) :, None]).squeeze(1)
    np.testing.assert_allclose(result.logprobs, expected.numpy(), atol=1e-4)


def test_a_request_does_not_depend_on_what_runs_beside_it(policy: Policy) -> None:
    mine = request(list(range(20, 35)), seed=9)
    (alone,) = generate(policy, [mine])
    others = [request([30 + i, 31, 32], seed=i, max_new_tokens=3 + i) for i in range(20)]
    crowd = generate(policy, [*others[:11], mine, *others[11:]])
    assert crowd[11].token_ids == alone.token_ids
    np.testing.assert_allclose(crowd[11].logprobs, alone.logprobs, atol=1e-5)


def test_one_prefill_serves_a_group(policy: Policy) -> None:
    context = list(range(20, 60))

    async def use(engine: NativeEngine) -> EngineMetrics:
        requests = [request(context, seed=i) for i in range(12)]
        results = [result async for _, result in engine.generate(requests)]
        assert all(np.array_equal(r.routes[:39], results[0].routes[:39]) for r in results)
        return engine.metrics

    metrics = serve(policy, use)
    assert metrics.prefill_tokens == 39 and metrics.shared_tokens == 11 * 39


def test_a_session_pays_for_its_new_tokens_alone_and_says_the_same(policy: Policy) -> None:
    first = request(list(range(20, 50)), seed=1)

    async def use(engine: NativeEngine) -> tuple[GenerationResult, GenerationResult, int]:
        session = engine.session()
        one = await session.generate(first)
        before = engine.metrics.prefill_tokens
        context = [*first.token_ids, *one.token_ids, 21, 22, 23]
        two = await session.generate(request(context, seed=2))
        session.close()
        (fresh,) = [result async for _, result in engine.generate([request(context, seed=2)])]
        assert fresh.token_ids == two.token_ids and fresh.routes_start == 0
        assert two.routes_start == 30 + len(one.token_ids) - 1
        return one, two, engine.metrics.prefill_tokens - before

    one, _, extra = serve(policy, use)
    assert extra == 3 + (
        30 + len(one.token_ids) + 2
    )  # the delta with the last sampled token, and the fresh one's whole


def test_a_state_of_older_weights_is_never_used_again(policy: Policy) -> None:
    context = list(range(20, 50))
    newer = HybridModel(policy.model.config, seed=8).state_dict()

    async def use(engine: NativeEngine) -> GenerationResult:
        session = engine.session()
        one = await session.generate(request(context, seed=1))
        engine.load_weights(newer, 4)
        two = await session.generate(request([*context, *one.token_ids, 21], seed=2))
        session.close()
        (fresh,) = [r async for _, r in engine.generate([request([*context, *one.token_ids, 21], seed=2)])]
        assert (one.policy_versions == 0).all() and (two.policy_versions == 4).all()
        assert two.routes_start == 0  # computed anew from the first token
        assert two.token_ids == fresh.token_ids
        return two

    serve(policy, use)


def test_greedy_is_the_most_likely_token_and_a_point_mass(policy: Policy) -> None:
    one, two = generate(policy, [request([20, 21, 22], temperature=0.0, seed=s) for s in (1, 2)])
    assert one.token_ids == two.token_ids and not one.logprobs.any()


def test_generation_stops_at_its_length_and_at_the_context_s_end(policy: Policy) -> None:
    short, long = generate(
        policy, [request([20, 21], max_new_tokens=2), request(list(range(20, 27)), max_new_tokens=500)], capacity=32
    )
    assert len(short.token_ids) <= 2
    assert len(long.token_ids) <= 25
    for result in (short, long):
        assert (result.stop_reason is StopReason.STOP) == (
            result.token_ids[-1] == policy.tokenizer.control["<|im_end|>"]
        )


@pytest.mark.parametrize("grace", [0, 4])
def test_a_budget_closes_reasoning_by_force(policy: Policy, grace: int) -> None:
    budget = ReasoningBudget(limit=3, grace=grace)
    results = generate(
        policy, [request([20, 21], seed=s, reasoning=True, budget=budget, max_new_tokens=40) for s in range(40)]
    )
    assert max(r.num_reasoning_tokens for r in results) <= 3 + grace
    hit = [r for r in results if r.budget_hit]
    assert hit
    for result in hit:
        forced = [t for t, f in zip(result.token_ids, result.forced, strict=True) if f]
        assert policy.tokenizer.decode(forced) in ("\n</think>\n", "</think>\n")
        assert result.num_reasoning_tokens >= 3


def test_more_sessions_than_slots_take_their_turns(policy: Policy) -> None:
    results = generate(policy, [request([20 + i % 9, 21], seed=i) for i in range(50)], num_slots=16)
    assert len(results) == 50 and all(r.token_ids for r in results)


def test_misuse_is_told(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        session = engine.session()
        with pytest.raises(ValueError, match="leaves no room"):
            await session.generate(request([20] * 128))
        await session.generate(request([20, 21]))
        with pytest.raises(ValueError, match="may only grow"):
            await session.generate(request([20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36]))
        session.close()

    serve(policy, use)
    with pytest.raises(ValueError, match="at least one context token"):
        request([])
    with pytest.raises(ValueError, match="max_new_tokens"):
        request([1], max_new_tokens=0)

    async def unstarted() -> None:
        engine = make_engine(policy, num_slots=16, capacity=32)
        with pytest.raises(RuntimeError, match="async with"):
            await engine.session().generate(request([20]))

    asyncio.run(unstarted())


def test_uniforms_are_a_function_of_seed_and_counter_and_look_uniform() -> None:
    seeds, counters = np.arange(20_000, dtype=np.uint64) % 100, np.arange(20_000) // 100
    u = uniforms(seeds, counters)
    assert np.array_equal(u[::-1], uniforms(seeds[::-1], counters[::-1]))
    assert 0 <= u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 0.01 and len(np.unique(u)) == len(u)
    assert stream_seed(1, "a") != stream_seed("1a") and stream_seed(1, "a") == stream_seed(1, "a")


def test_sampling_follows_the_distribution() -> None:
    probabilities = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3])
    n = 20_000
    u = torch.from_numpy(uniforms(np.full(n, 3), np.arange(n)))
    ids, logprobs, _ = sample(probabilities.log().expand(n, -1), torch.ones(n), u)
    shares = torch.bincount(ids, minlength=5) / n
    assert torch.allclose(shares, probabilities, atol=0.015) and shares[0] == 0 and shares[2] == 0
    torch.testing.assert_close(logprobs, probabilities.log()[ids])


def test_a_responder_answers_a_conversation_the_same_each_time(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        responder = EngineResponder(engine, ChatRenderer(policy.tokenizer), max_new_tokens=8, seed=3)
        one, two = [await responder([Message("user", "hello")]) for _ in range(2)]
        assert one == two and one.role == "assistant"

    serve(policy, use)


@torch.no_grad()
def test_until_newer_weights_sample_every_token_stands_on_the_state_of_its_own(policy: Policy) -> None:
    """In-flight updates by `keep`: what a loss may compare is every token whose version is the oldest so far."""
    versions = [
        {name: tensor * (1 + 0.02 * v) for name, tensor in policy.model.state_dict().items()} for v in range(40)
    ]
    rng = np.random.default_rng(0)
    asked = [request(rng.integers(20, 300, int(rng.integers(2, 90))).tolist(), seed=i, stop_ids=()) for i in range(40)]

    async def use(engine: NativeEngine) -> list[GenerationResult]:
        session = [asyncio.ensure_future(engine.session().generate(one)) for one in asked]
        for version in range(1, 40):
            while engine.metrics.sampled_tokens < 10 * version:
                await asyncio.sleep(0)
            await engine.pause(PauseMode.KEEP)
            engine.load_weights(versions[version], version)
            engine.resume()
        return list(await asyncio.gather(*session))

    served = Policy(copy.deepcopy(policy.model), policy.tokenizer)
    results = serve(served, use, num_slots=6, synchronous=False, prefill_tokens=48)
    compared, firsts, changed = 0, set(), 0
    for one, result in zip(asked, results, strict=True):
        oldest = np.minimum.accumulate(result.policy_versions)
        own = np.flatnonzero(oldest == result.policy_versions)
        changed += len(own) < len(oldest)
        version = int(result.policy_versions[0])
        firsts.add(version)
        policy.model.load_state_dict(versions[version])
        ids = torch.tensor([*one.token_ids, *result.token_ids])
        hidden, _ = policy.model(ids[:-1], Packing.build([len(ids) - 1], chunk_size=8))
        logprobs = policy.model.logits(hidden).log_softmax(-1)[len(one.token_ids) - 1 :]
        expected = logprobs.gather(1, ids[len(one.token_ids) :, None]).squeeze(1).numpy()
        np.testing.assert_allclose(result.logprobs[own], expected[own], atol=1e-4)
        compared += len(own)
    assert compared > 60 and len(firsts) > 5 and changed > 5
