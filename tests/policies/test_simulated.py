"""The simulated engine: time that passes as planned, lengths as drawn, faults as asked for."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.policies import EngineStopped, GenerationRequest, StopReason
from swannery.policies.simulated import Fault, InjectedFault, LogNormal, Pace, SimulatedEngine, Trace, virtual_time


def requests(count: int, **changes: Any) -> list[GenerationRequest]:
    return [
        GenerationRequest(**{"token_ids": [7, 8, 9 + i % 40], "max_new_tokens": 2000, "seed": i, **changes})
        for i in range(count)
    ]


def simulate(
    asked: list[GenerationRequest], then: Callable[[SimulatedEngine], Any] = lambda e: None, **options: Any
) -> Any:
    async def main() -> Any:
        async with SimulatedEngine(**options) as engine:
            found = await asyncio.gather(*(serve(engine, i, r) for i, r in enumerate(asked)), return_exceptions=True)
            return found, then(engine)

    async def serve(engine: SimulatedEngine, number: int, request: GenerationRequest) -> Any:
        session = engine.session((number,))
        try:
            return await session.generate(request)
        finally:
            session.close()

    return virtual_time(main)


def test_an_hour_of_decoding_passes_in_no_time_and_as_reckoned() -> None:
    pace = Pace(step_s=2.0, row_s=0.5, prefill_token_s=0.1)
    (results, _), seconds = simulate(requests(4, max_new_tokens=900, stop_ids=()), pace=pace)
    assert all(len(r.token_ids) == 900 for r in results)
    assert seconds == pytest.approx(900 * (2.0 + 4 * 0.5) + 2 * 0.1)  # two tokens are common to all


def test_the_same_seeds_give_the_same_run() -> None:
    options: dict[str, Any] = {"pace": Pace(step_s=0.02), "lengths": LogNormal(median=40, sigma=0.7), "num_slots": 8}
    runs = [simulate(requests(40), **options) for _ in range(2)]
    assert [r.token_ids for r in runs[0][0][0]] == [r.token_ids for r in runs[1][0][0]] and runs[0][1] == runs[1][1]


def test_lengths_follow_the_distribution_and_the_trace(tmp_path: Path) -> None:
    (results, _), _ = simulate(requests(1500), lengths=LogNormal(median=30, sigma=0.5), num_slots=500)
    logs = np.log([len(r.token_ids) for r in results])
    assert abs(np.median(logs) - np.log(30)) < 0.06 and abs(logs.std() - 0.5) < 0.04
    assert all(r.stop_reason is StopReason.STOP and r.token_ids[-1] == 0 and 0 not in r.token_ids[:-1] for r in results)
    (tmp_path / "trace.csv").write_text("length\n3\n9\n1\n")
    (results, _), _ = simulate(requests(5), lengths=Trace.read(tmp_path / "trace.csv"))
    assert [len(r.token_ids) for r in results] == [3, 9, 1, 3, 9]
    (tmp_path / "trace.csv").write_text("length\n3\nx\n")
    with pytest.raises(ValueError, match=r"row 3: length is a count of at least 1, got 'x'"):
        Trace.read(tmp_path / "trace.csv")


def test_a_script_is_said_with_true_logprobs() -> None:
    (results, logits), _ = simulate(
        requests(3, temperature=0.8), lambda e: e.decoder.logits_VV, script=lambda ids, _: [ids[-1], 5, 6]
    )
    for i, result in enumerate(results):
        assert result.token_ids == [9 + i, 5, 6, 0] and result.stop_reason is StopReason.STOP
        before = [9 + i, 9 + i, 5, 6]
        expected = (logits[before] / 0.8).log_softmax(-1)[range(4), result.token_ids]
        np.testing.assert_allclose(result.logprobs, expected.numpy(), atol=1e-5)


def test_faults_strike_as_asked_and_are_counted() -> None:
    (results, struck), seconds = simulate(
        requests(400, max_new_tokens=5, stop_ids=(), deadline_s=50.0),
        lambda e: dict(e.faults_struck),
        pace=Pace(step_s=0.01),
        faults=[
            Fault(kind="raises", share=0.1),
            Fault(kind="hangs", at=7),
            Fault(kind="slow", share=0.05, delay_s=9.0),
        ],
    )
    raised = sum(isinstance(r, InjectedFault) for r in results)
    late = [r for r in results if not isinstance(r, Exception) and r.stop_reason is StopReason.DEADLINE]
    assert 20 < raised == struck["raises"] < 65 and len(late) == struck["hangs"] == 1 and struck["slow"] > 5
    assert sum(not isinstance(r, Exception) and len(r.token_ids) == 5 for r in results) == 400 - raised - 1
    assert 50 < seconds < 51  # the one that hangs waits for its deadline by the simulated clock


def test_an_engine_that_dies_tells_all() -> None:
    (results, struck), _ = simulate(
        requests(9, stop_ids=()), lambda e: dict(e.faults_struck), faults=[Fault(kind="dies", at=20)]
    )
    assert all(isinstance(r, EngineStopped) and "dies at step 20" in str(r) for r in results) and struck == {"dies": 1}


@pytest.mark.parametrize("bad", [{"kind": "dies"}, {"kind": "raises"}, {"kind": "slow", "share": 2.0}])
def test_faults_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="fault has|engine dies"):
        Fault(**bad)
