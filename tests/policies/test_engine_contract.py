"""What every engine promises. Each test is one promise; none can hang."""

import asyncio
import importlib.util
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.policies import (
    EngineStopped,
    GenerationRequest,
    GenerationResult,
    MediaSpan,
    PauseMode,
    Policy,
    ReasoningBudget,
    RequestError,
    StopReason,
)
from swannery.policies.batching import BatchingEngine

_spec = importlib.util.spec_from_file_location("engines", Path(__file__).parent / "engines.py")
assert _spec is not None and _spec.loader is not None
engines: Any = importlib.util.module_from_spec(_spec)
__import__("sys").modules["engines"] = engines
_spec.loader.exec_module(engines)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=engines.SUBJECTS)
def subject(request: pytest.FixtureRequest, policy: Policy) -> Any:
    return engines.SUBJECTS[request.param](policy)


def serve(subject: Any, use: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with asyncio.timeout(60), subject.make(**options) as engine:
            return await use(engine)

    return asyncio.run(run())


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(20, 60, length).tolist()


def ask(ids: list[int], **changes: Any) -> GenerationRequest:
    return GenerationRequest(**{"token_ids": ids, "max_new_tokens": 12, "seed": 1, **changes})


async def generate(engine: BatchingEngine, requests: list[GenerationRequest]) -> list[GenerationResult]:
    found = {index: result async for index, result in engine.generate(requests)}
    return [found[index] for index in range(len(requests))]


async def one(engine: BatchingEngine, number: int, request: GenerationRequest) -> GenerationResult:
    """A synchronous engine waits for every open session, so this one closes at once."""
    session = engine.session((number,))
    try:
        return await session.generate(request)
    finally:
        session.close()


def begin(engine: BatchingEngine, number: int, request: GenerationRequest) -> "asyncio.Task[GenerationResult]":
    return asyncio.ensure_future(one(engine, number, request))


def test_results_are_whole(subject: Any) -> None:
    requests = [ask(prompt(1 + 7 * i, i), seed=i, temperature=0.7) for i in range(20)]
    for result in serve(subject, lambda e: generate(e, requests)):
        n = len(result.token_ids)
        assert 1 <= n <= 12 and all(0 <= token < subject.vocab_size for token in result.token_ids)
        assert {len(a) for a in (result.logprobs, result.forced, result.policy_versions, result.temperatures)} == {n}
        assert (result.logprobs <= 0).all() and not result.forced.any() and (result.policy_versions == 0).all()
        assert np.allclose(result.temperatures, 0.7) and result.support is None and not result.budget_hit
        stopped = result.token_ids[-1] == subject.stop_id
        assert result.stop_reason is (StopReason.STOP if stopped else StopReason.LENGTH) and (stopped or n == 12)


def test_the_same_request_gives_the_same_whatever_runs_beside_it(subject: Any) -> None:
    mine = ask(prompt(30), seed=9)
    (alone,) = serve(subject, lambda e: generate(e, [mine]))
    others = [ask(prompt(5 + i, i), seed=i, max_new_tokens=2 + i) for i in range(30)]
    crowd = serve(subject, lambda e: generate(e, [*others[:13], mine, *others[13:]]))
    assert crowd[13].token_ids == alone.token_ids
    np.testing.assert_allclose(crowd[13].logprobs, alone.logprobs, atol=1e-4)


def test_greedy_ignores_the_seed_and_is_certain(subject: Any) -> None:
    one, two = serve(subject, lambda e: generate(e, [ask(prompt(9), temperature=0.0, seed=s) for s in (1, 2)]))
    assert one.token_ids == two.token_ids and not one.logprobs.any()


@pytest.mark.parametrize("narrow", [{"top_k": 4}, {"top_p": 0.6}, {"top_k": 20, "top_p": 0.8}])
def test_a_narrowed_distribution_comes_with_its_support(subject: Any, narrow: dict[str, float]) -> None:
    requests = [ask(prompt(9, i), seed=i, stop_ids=(), **narrow) for i in range(8)] + [ask(prompt(9), stop_ids=())]
    *narrowed, whole = serve(subject, lambda e: generate(e, requests))
    assert whole.support is None
    for result in narrowed:
        assert result.support is not None and len(result.support) == len(result.token_ids)
        for token, ids in zip(result.token_ids, result.support, strict=True):
            kept = ids[ids >= 0]
            assert token in kept and len(set(kept)) == len(kept) <= narrow.get("top_k", subject.vocab_size)
            assert (ids[len(kept) :] == -1).all()


def test_stop_ids_and_least_lengths_are_obeyed(subject: Any) -> None:
    requests = [
        *(ask(prompt(9, i), seed=i, stop_ids=tuple(range(20, 60)), max_new_tokens=200) for i in range(6)),
        *(ask(prompt(9, i), seed=i, stop_ids=(), max_new_tokens=40) for i in range(6)),
        *(
            ask(prompt(9, i), seed=i, stop_ids=tuple(range(20, 60)), min_new_tokens=5, max_new_tokens=9)
            for i in range(6)
        ),
    ]
    results = serve(subject, lambda e: generate(e, requests))
    for result in results[:6]:
        assert all(not 20 <= token < 60 for token in result.token_ids[:-1])
        assert (result.stop_reason is StopReason.STOP) is (20 <= result.token_ids[-1] < 60)
    assert all(len(r.token_ids) == 40 and r.stop_reason is StopReason.LENGTH for r in results[6:12])
    assert all(5 <= len(r.token_ids) and all(not 20 <= t < 60 for t in r.token_ids[:4]) for r in results[12:])


def test_a_budget_is_never_exceeded(subject: Any) -> None:
    chance = random.Random(0)
    requests = []
    for i in range(120):
        budget = ReasoningBudget(limit=chance.randint(1, 12), grace=chance.choice((0, 0, 3, 8)))
        requests.append(ask(prompt(3, i), seed=i, max_new_tokens=50, reasoning=True, budget=budget, stop_ids=()))
    closing = subject.reasoning.closing.tolist()
    for asked, result in zip(requests, serve(subject, lambda e: generate(e, requests)), strict=True):
        budget = asked.budget
        assert budget is not None and result.num_reasoning_tokens <= budget.limit + budget.grace
        assert result.budget_hit == result.forced.any() and not result.logprobs[result.forced].any()
        if result.budget_hit:
            forced = [t for t, f in zip(result.token_ids, result.forced, strict=True) if f]
            assert forced in (closing, closing[1:]) and result.num_reasoning_tokens >= budget.limit
            first = int(result.forced.argmax())
            assert (result.forced[first : first + len(forced)]).all()  # one after the other


@pytest.mark.parametrize("mode", PauseMode)
def test_a_pause_with_new_weights_mixes_nothing_and_keeps_budgets(subject: Any, mode: PauseMode) -> None:
    fresh = ask(prompt(40), seed=3, stop_ids=())
    reasoning = {"reasoning": True, "budget": ReasoningBudget(limit=15, grace=4), "stop_ids": (), "max_new_tokens": 60}

    async def use(engine: BatchingEngine) -> None:
        tasks = [begin(engine, i, ask(prompt(20, i), seed=i, **reasoning)) for i in range(10)]
        while engine.metrics.decode_steps < 8:
            await asyncio.sleep(0)
        await asyncio.wait_for(engine.pause(mode), 20)
        rest = engine.metrics.decode_steps
        late = begin(engine, 11, ask(prompt(5), stop_ids=()))
        await asyncio.sleep(0.01)
        assert engine.metrics.decode_steps == rest and not late.done()
        engine.load_weights(subject.other_weights, 7)
        engine.resume()
        for result in await asyncio.gather(*tasks):
            assert result.num_reasoning_tokens <= 19 and len(result.token_ids) == 60
            assert (np.diff(result.policy_versions) >= 0).all() and set(result.policy_versions) <= {0, 7}
            if mode is PauseMode.DRAIN:
                assert (result.policy_versions == 0).all()
            elif not engine.synchronous:  # which cannot be reached in the middle of its steps
                assert (result.policy_versions == 7).any()
        assert set((await late).policy_versions) == {7}
        (after,) = await generate(engine, [fresh])
        (again,) = await generate(engine, [fresh])
        assert after.token_ids == again.token_ids
        wanted.append(after)

    async def anew(engine: BatchingEngine) -> None:
        engine.load_weights(subject.other_weights, 7)
        (alone,) = await generate(engine, [fresh])
        assert alone.token_ids == wanted[0].token_ids
        np.testing.assert_allclose(alone.logprobs, wanted[0].logprobs, atol=1e-4)

    wanted: list[GenerationResult] = []
    serve(subject, use)
    serve(subject, anew)


def test_a_session_goes_on_after_new_weights_as_a_fresh_one_would(subject: Any) -> None:
    async def use(engine: BatchingEngine) -> None:
        session = engine.session()
        one = await session.generate(ask(prompt(30)))
        engine.load_weights(subject.other_weights, 2)
        more = ask([*prompt(30), *one.token_ids, 21, 22], seed=5)
        two = await session.generate(more)
        session.close()
        (fresh,) = await generate(engine, [more])
        assert two.token_ids == fresh.token_ids and two.routes_start == 0 and (two.policy_versions == 2).all()

    serve(subject, use)


def test_a_deadline_ends_a_request_with_what_there_is(subject: Any) -> None:
    async def use(engine: BatchingEngine) -> None:
        long = {"stop_ids": (), "max_new_tokens": 200}
        late, fine, *_ = await asyncio.gather(
            one(engine, 0, ask(prompt(30), deadline_s=0.02, **long)),
            one(engine, 1, ask(prompt(9), stop_ids=())),
            *(one(engine, 2 + i, ask(prompt(9, i), **long)) for i in range(14)),
        )
        assert len(fine.token_ids) == 12 and engine.metrics.deadlines <= 1
        assert (late.stop_reason is StopReason.DEADLINE) or len(late.token_ids) == 200
        assert len(late.logprobs) == len(late.token_ids) == len(late.forced)
        never = await one(engine, 0, ask(prompt(200), deadline_s=1e-9, stop_ids=()))
        assert never.stop_reason is StopReason.DEADLINE and len(never.token_ids) <= 1
        assert len((await one(engine, 0, ask(prompt(3), stop_ids=()))).token_ids) == 12

    serve(subject, use)


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("when", ["queued", "prefilling", "decoding", "idle", "paused"])
def test_whoever_leaves_leaves_nothing_behind(subject: Any, how: str, when: str) -> None:
    async def use(engine: BatchingEngine) -> None:
        session = engine.session()
        if when == "paused":
            await engine.pause(PauseMode.KEEP)
        task = asyncio.ensure_future(
            session.generate(ask(prompt(200), stop_ids=(), max_new_tokens=5 if when == "idle" else 50))
        )
        if when == "idle":
            await task
        elif when != "queued":
            for _ in range({"prefilling": 2, "decoding": 12, "paused": 3}[when]):
                await asyncio.sleep(0)
        task.cancel() if how == "cancel" else session.close()
        await asyncio.wait([task], timeout=10)
        assert task.done()
        session.close()
        engine.resume()
        now = engine.metrics
        assert (now.running, now.queued, now.cache_bytes) == (0, 0, 0)
        assert len(await generate(engine, [ask(prompt(200), seed=i) for i in range(20)])) == 20

    serve(subject, use, prefill_tokens=64) if "prefill_tokens" in subject.make.__code__.co_names else serve(
        subject, use
    )


def test_what_cannot_be_served_is_refused_and_disturbs_nobody(subject: Any) -> None:
    async def use(engine: BatchingEngine) -> None:
        others = [begin(engine, i, ask(prompt(9, i), stop_ids=())) for i in range(4)]
        session = engine.session((9,))
        for bad, message in (
            (ask([20] * 256), "leaves no room in the engine's capacity of 256"),
            (ask([20, subject.vocab_size]), f"id {subject.vocab_size} at 1 is outside the vocabulary"),
            (ask([-1]), "id -1 at 0 is outside the vocabulary"),
            (ask([1.5]), "token_ids are integers"),  # type: ignore[list-item]
            (ask([20], stop_ids=(subject.vocab_size,)), "stop id"),
        ):
            with pytest.raises(RequestError, match=message):
                await session.generate(bad)
        task = asyncio.ensure_future(session.generate(ask(prompt(30), stop_ids=())))
        twice = asyncio.ensure_future(session.generate(ask(prompt(30))))
        with pytest.raises(RuntimeError, match="one request at a time"):
            await twice
        assert all(len(r.token_ids) == 12 for r in [await task, *await asyncio.gather(*others)])
        with pytest.raises(RequestError, match="may only grow"):
            await session.generate(ask([59, 58, *prompt(60)]))
        for one in list(engine.sessions):
            one.close()
        with pytest.raises(RuntimeError, match="was closed"):
            await session.generate(ask(prompt(3)))

    serve(subject, use)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": []}, "at least one context token"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_new_tokens": 99}, "min_new_tokens is between"),
        ({"min_new_tokens": 3, "stop_ids": ()}, "keeps stop tokens back"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"budget": ReasoningBudget(limit=3)}, "asks for reasoning=True"),
        ({"media": (MediaSpan(offset=2, length=9, content_hash="a"),)}, "media spans lie in the context"),
    ],
)
def test_contradictions_are_told_when_a_request_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ask(**{"ids": changes.pop("token_ids", [1, 2, 3, 4]), **changes})


def test_an_engine_that_ends_tells_all_who_wait_and_none_hangs(subject: Any) -> None:
    async def run() -> None:
        engine = subject.make()
        with pytest.raises(EngineStopped, match="async with"):
            await engine.session().generate(ask(prompt(3)))
        for session in list(engine.sessions):
            session.close()
        async with engine:
            tasks = [begin(engine, i, ask(prompt(9, i), max_new_tokens=200, stop_ids=())) for i in range(30)]
            while engine.metrics.decode_steps < 3:
                await asyncio.sleep(0)
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(answer, (EngineStopped, GenerationResult))
        assert engine.synchronous or any(task.exception() for task in tasks)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_media_travel_and_alike_ids_of_other_media_share_nothing(subject: Any) -> None:
    def heard(name: str) -> GenerationRequest:
        return ask(prompt(150), media=(MediaSpan(offset=4, length=9, content_hash=name),))

    async def use(engine: BatchingEngine) -> None:
        (one,) = await generate(engine, [heard("a")])
        assert one.media == heard("a").media
        before = engine.metrics.shared_tokens
        await generate(engine, [heard("b")])
        assert engine.metrics.shared_tokens - before <= 4
        session = engine.session()
        await session.generate(heard("c"))
        before = engine.metrics.shared_tokens
        await generate(engine, [heard("c"), heard("c")])
        session.close()
        assert engine.metrics.shared_tokens - before >= 149

    serve(subject, use, **({"synchronous": False}))
