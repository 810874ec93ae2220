"""The batching engine: shared prefixes, pieces of long prompts, room, and nothing left behind whatever happens."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from swannery.kernels.packing import Packing
from swannery.policies import (
    EngineStopped,
    GenerationRequest,
    GenerationResult,
    HybridModel,
    NativeEngine,
    PauseMode,
    Policy,
    RequestError,
    StopReason,
    make_engine,
)


def serve(policy: Policy, use: Callable[[NativeEngine], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        settings = {"num_slots": 8, "capacity": 256, "synchronous": False, **options}
        async with asyncio.timeout(60), make_engine(policy, **settings) as engine:
            return await use(engine)

    return asyncio.run(run())


def request(ids: list[int], **changes: Any) -> GenerationRequest:
    return GenerationRequest(**{"token_ids": ids, "max_new_tokens": 8, "stop_ids": (), **changes})


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(20, 300, length).tolist()


async def one(engine: NativeEngine, asked: GenerationRequest) -> GenerationResult:
    session = engine.session()
    try:
        return await session.generate(asked)
    finally:
        session.close()


@torch.no_grad()
def rescored(model: HybridModel, context: list[int], result: GenerationResult) -> np.ndarray:
    ids = torch.tensor(context + result.token_ids)
    hidden, _ = model(ids[:-1], Packing.build([len(ids) - 1], chunk_size=8))
    logprobs = model.logits(hidden).log_softmax(-1)[len(context) - 1 :]
    return logprobs.gather(1, ids[len(context) :, None]).squeeze(1).numpy()


def test_a_prompt_is_computed_once_however_late_its_rollouts_come(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        results = [await one(engine, request(prompt(100), seed=seed)) for seed in range(6)]
        assert engine.metrics.prefill_tokens == 99 and engine.metrics.shared_tokens == 5 * 99
        for result in results:
            np.testing.assert_allclose(result.logprobs, rescored(policy.model, prompt(100), result), atol=1e-4)
            assert result.routes_start == 0 and np.array_equal(result.routes[:99], results[0].routes[:99])

    serve(policy, use)


def test_a_prefix_of_older_weights_is_never_found(policy: Policy) -> None:
    newer = HybridModel(policy.model.config, seed=8).state_dict()

    async def use(engine: NativeEngine) -> None:
        await one(engine, request(prompt(100)))
        engine.load_weights(newer, 1)
        result = await one(engine, request(prompt(100), seed=3))
        assert engine.metrics.shared_tokens == 0
        np.testing.assert_allclose(result.logprobs, rescored(policy.model, prompt(100), result), atol=1e-4)
        engine.load_weights(newer, 1)  # the same version again: still nothing of before is used
        await one(engine, request(prompt(100), seed=3))
        assert engine.metrics.shared_tokens == 0 and engine.metrics.prefill_tokens == 3 * 99

    serve(policy, use)


def test_long_prompts_in_pieces_give_what_one_piece_gives(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> list[GenerationResult]:
        requests = [request(prompt(n, seed=n), seed=n) for n in (200, 3, 130, 64, 1)]
        found = {index: result async for index, result in engine.generate(requests)}
        for index, asked in enumerate(requests):
            wanted = rescored(policy.model, list(asked.token_ids), found[index])
            np.testing.assert_allclose(found[index].logprobs, wanted, atol=1e-4)
        return [found[i] for i in range(5)]

    pieces, whole = serve(policy, use, prefill_tokens=64), serve(policy, use, prefill_tokens=4096)
    assert [r.token_ids for r in pieces] == [r.token_ids for r in whole]


def test_conversations_beyond_the_slots_take_turns_and_keep_their_states(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        async def episode(number: int) -> None:
            session, ids = engine.session(), prompt(40, seed=number)
            for turn in range(3):
                result = await session.generate(request(ids, seed=turn))
                np.testing.assert_allclose(result.logprobs, rescored(policy.model, ids, result), atol=1e-4)
                ids = [*ids, *result.token_ids, 21]
                await asyncio.sleep(0.002)
            session.close()

        engine.admission.patience_s = engine.admission.idle_patience_s = 30.0
        await asyncio.gather(*(episode(i) for i in range(20)))
        assert engine.metrics.evicted == 0 and engine.metrics.prefill_tokens == 20 * (39 + 2)

    serve(policy, use)


def test_idle_conversations_make_way_and_come_back_alike(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        sessions = [engine.session() for _ in range(12)]  # eight slots, and nobody closes
        first = [await s.generate(request(prompt(40, seed=i))) for i, s in enumerate(sessions)]
        assert engine.metrics.evicted == 4
        for i, (session, result) in enumerate(zip(sessions, first, strict=True)):
            ids = [*prompt(40, seed=i), *result.token_ids, 21]
            again = await session.generate(request(ids, seed=9))
            np.testing.assert_allclose(again.logprobs, rescored(policy.model, ids, again), atol=1e-4)

    serve(policy, use)


def test_admission_is_by_cache_bytes(policy: Policy) -> None:
    row, page = 10, 4  # rows: 8 and 2 for prefixes

    async def use(engine: NativeEngine) -> None:
        assert engine.decoder.num_pages == page and engine.decoder.num_rows == row
        with pytest.raises(RequestError, match="need 6 pages of cache, there are 4"):
            await one(engine, request(prompt(250), max_new_tokens=100))
        requests = [request(prompt(60, seed=i), max_new_tokens=30, seed=i) for i in range(9)]  # two pages each
        found = {index: result async for index, result in engine.generate(requests)}
        assert (
            max(len(r.token_ids) for r in found.values()) == 30
            and engine.metrics.decoded_rows / engine.metrics.decode_steps <= 2
        )
        for index, asked in enumerate(requests):
            np.testing.assert_allclose(
                found[index].logprobs, rescored(policy.model, list(asked.token_ids), found[index]), atol=1e-4
            )

    from swannery.policies.cache import cache_bytes

    row_bytes, page_bytes = cache_bytes(policy.model.config)
    serve(policy, use, capacity=512, cache_bytes=row * row_bytes + page * page_bytes)
    with pytest.raises(ValueError, match="holds no page"):
        make_engine(policy, num_slots=8, capacity=512, cache_bytes=1000)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_left_behind_whatever_happens(policy: Policy, seed: int) -> None:
    """Random turns, cancellations, closings, deadlines, pauses and weight updates; then all is free and answers are right."""
    chance = random.Random(seed)
    other = [HybridModel(policy.model.config, seed=s).state_dict() for s in (1, 2)]

    async def use(engine: NativeEngine) -> None:
        async def episode(number: int) -> None:
            session, ids = engine.session(), prompt(chance.choice((1, 5, 70, 140)), seed=number % 5)
            try:
                for turn in range(chance.randint(1, 3)):
                    late = chance.choice((None, None, 1e-4, 5e-3))
                    asked = request(ids, seed=turn, max_new_tokens=chance.randint(1, 20), deadline_s=late)
                    task = asyncio.ensure_future(session.generate(asked))
                    if chance.random() < 0.2:
                        await asyncio.sleep(chance.random() * 0.01)
                        task.cancel()
                    try:
                        result = await task
                    except asyncio.CancelledError:
                        return
                    assert (result.stop_reason is StopReason.DEADLINE) or len(result.token_ids) == asked.max_new_tokens
                    ids = [*ids, *result.token_ids, 21]
                    await asyncio.sleep(chance.random() * 0.004)
            finally:
                session.close()

        async def disturb() -> None:
            for version in range(1, 8):
                await asyncio.sleep(0.01)
                await engine.pause(chance.choice(list(PauseMode)))
                if chance.random() < 0.7:
                    engine.load_weights(chance.choice(other), version)
                engine.resume()

        await asyncio.gather(disturb(), *(episode(i) for i in range(40)))
        engine.load_weights(other[0], 99)
        result = await one(engine, request(prompt(70), seed=3))
        np.testing.assert_allclose(result.logprobs, rescored(policy.model, prompt(70), result), atol=1e-4)
        house, metrics = engine.residence, engine.metrics
        assert (metrics.running, metrics.queued, metrics.cache_bytes) == (0, 0, 0) and not engine.sessions
        house.prefixes.drop_all()
        assert house.pool.num_free == house.pool.num_pages and house.pool.reserved == 0
        assert house.at == [None] * 8 and len(house._free_places) == 8 and house.num_decoding == 0

    serve(policy, use)


def test_an_engine_that_fails_tells_all_who_wait(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        step, count = engine.decoder.step, 0

        def dies(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == 5:
                raise RuntimeError("out of memory")
            return step(*arguments)

        engine.decoder.step = dies  # type: ignore[method-assign]
        answers = await asyncio.gather(
            *(one(engine, request(prompt(9, seed=i), seed=i)) for i in range(20)), return_exceptions=True
        )
        assert all(isinstance(a, EngineStopped) and "out of memory" in str(a) for a in answers)
        with pytest.raises(EngineStopped, match="out of memory"):
            await one(engine, request(prompt(9)))

    serve(policy, use)


def test_weights_that_do_not_fit_change_nothing(policy: Policy) -> None:
    async def use(engine: NativeEngine) -> None:
        before = await one(engine, request(prompt(9), seed=1))
        good = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
        wrong = {**good, "norm_f.weight": torch.ones(3)}
        broken = {**good, "norm_f.weight": torch.full_like(good["norm_f.weight"], float("nan"))}
        for weights, message in ((wrong, "another shape.*norm_f"), (broken, "not finite, in norm_f"), ({}, "differ")):
            with pytest.raises(ValueError, match=message):
                engine.load_weights(weights, 5)
        after = await one(engine, request(prompt(9), seed=1))
        assert after.token_ids == before.token_ids and engine.policy_version == 0

    serve(policy, use)
