"""The mismatch monitor: each cause, really produced, gets its name; a healthy run gets none."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from swannery.environments import make
from swannery.policies import ChatRenderer, HybridModel, PauseMode, Policy, make_engine
from swannery.rl.batch import Sample, TrainBatch, pack, total_weight
from swannery.rl.learner import Learner
from swannery.rl.mismatch import MismatchMonitor
from swannery.rl.report import show, summarize
from swannery.rl.run_folder import RunFolder
from swannery.rl.runner import EnvironmentPool, RolloutSpec, rollout
from swannery.rl.state import State
from swannery.rl.trajectory import Segment, Trajectory

from .faults.harness import config, go, records


def played(policy: Policy, update: HybridModel | None = None, **changes: Any) -> list[Trajectory]:
    """Rollouts; with an update, the weights change in their middle and the states are kept."""
    settings = {"env_id": "math/Arithmetic-v0", "max_new_tokens": 24, **changes}
    specs = [RolloutSpec(**{**settings, "task_seed": i // 2, "rollout": i, "seed": i}) for i in range(16)]

    async def run() -> list[tuple[Trajectory, ...]]:
        pool = EnvironmentPool(lambda: make(settings["env_id"]))
        async with make_engine(policy, num_slots=16, capacity=384, synchronous=False) as engine:
            chat = ChatRenderer(policy.tokenizer)
            tasks = [asyncio.ensure_future(rollout(pool, engine, chat, spec)) for spec in specs]
            if update is not None:
                while engine.metrics.decode_steps < 6:
                    await asyncio.sleep(0)
                await engine.pause(PauseMode.KEEP)
                engine.load_weights(update.state_dict(), 1)
                engine.resume()
            return list(await asyncio.gather(*tasks))

    return [branches[-1] for branches in asyncio.run(run())]


def batch_of(trajectories: list[Trajectory]) -> TrainBatch:
    samples = [Sample(trajectory, 1.0) for trajectory in trajectories]
    return pack([[sample] for sample in samples], total_weight(samples))


@torch.no_grad()
def watched(policy: Policy, batch: TrainBatch, version: int = 0, scored: TrainBatch | None = None) -> MismatchMonitor:
    """The monitor after one batch, which the learner may have scored otherwise than it was recorded."""
    learner, monitor = Learner(policy.model, optimizer="adamw", lr=0.0), MismatchMonitor()
    logprobs = learner.logprobs(scored or batch)[0].numpy()
    monitor.observe(batch, logprobs, version, lambda: learner.live_routes(batch))
    return monitor


def test_a_healthy_run_has_no_alarm_and_tells_its_worst_tokens(policy: Policy) -> None:
    batch = batch_of(played(policy, temperature=0.7))
    monitor = watched(policy, batch)
    assert monitor.alarms == {} and monitor.largest <= 1e-4
    worst = monitor.worst()
    assert len(worst) == 16 and [w.engine for w in worst] and len(worst[0].routes) == policy.model.config.num_moe_layers
    sizes = [abs(w.engine - w.learner) for w in worst]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == np.float32(monitor.largest)
    figures = monitor.step_figures()
    assert figures["p50"] <= figures["p99"] <= figures["p999"] <= figures["max"] == np.float32(monitor.largest)
    assert figures["compared"] == monitor.compared == len(batch.targets_T)
    assert monitor.step_figures()["compared"] == 0  # told once


def test_a_forgotten_temperature_is_named(policy: Policy) -> None:
    batch = batch_of(played(policy, temperature=0.6))
    scored = dataclasses.replace(batch, temperatures_T=np.ones_like(batch.temperatures_T))
    assert list(watched(policy, batch, scored=scored).alarms) == ["temperature"]


def test_a_forgotten_support_is_named(policy: Policy) -> None:
    batch = batch_of(played(policy, top_p=0.7))
    alarms = watched(policy, batch, scored=dataclasses.replace(batch, support_TS=None)).alarms
    assert list(alarms) == ["sampling_support"] and "the mass" in alarms["sampling_support"].evidence


def test_states_kept_over_an_update_are_named(policy: Policy) -> None:
    newer = HybridModel(policy.model.config, seed=5)
    with torch.no_grad():
        for old, new in zip(policy.model.parameters(), newer.parameters(), strict=True):
            new.copy_(old + 0.05 * new)
    trajectories = played(policy, update=newer)
    batch = batch_of(trajectories)
    assert set(np.unique(batch.versions_T)) == {0, 1}
    monitor = watched(policy, batch, version=1)  # the model holds the newer weights now
    assert list(monitor.alarms) == ["stale_cache"]


def test_flipped_routes_are_named(policy: Policy) -> None:
    batch = batch_of(played(policy))
    rng = np.random.default_rng(0)
    assert batch.routes_NEK is not None
    with torch.no_grad():  # a router that is a little off chooses otherwise now and then
        for moe in policy.model.routers():
            moe.gate.e_score_correction_bias += torch.from_numpy(rng.normal(0, 0.02, moe.gate.weight.shape[0]))
    alarms = watched(policy, batch, scored=dataclasses.replace(batch, routes_NEK=None)).alarms
    assert list(alarms) == ["route_flip"]
    assert watched(policy, batch).alarms == {}  # replayed, the same flips do no harm


def test_a_context_that_was_tokenized_anew_is_named(policy: Policy) -> None:
    """Of some rollouts the learner reads a context with one token more."""
    trajectories = played(policy)

    def longer(trajectory: Trajectory) -> Trajectory:
        first, *rest = trajectory.segments
        ids = np.concatenate([first.token_ids[:-2], [40, 41], first.token_ids[-2:]])
        routes = np.concatenate([trajectory.routes[:1], trajectory.routes[:1], trajectory.routes])
        return dataclasses.replace(trajectory, segments=(Segment.given(ids.tolist(), 0), *rest), routes=routes)

    changed = [longer(t) if t.rollout % 4 == 0 else t for t in trajectories]
    alarms = watched(policy, batch_of(trajectories), scored=batch_of(changed)).alarms
    assert list(alarms) == ["template"]


def test_noise_everywhere_is_a_matter_of_precision(policy: Policy) -> None:
    batch = batch_of(played(policy))
    noise = np.random.default_rng(0).normal(0, 2e-3, len(batch.targets_T)).astype(np.float32)
    monitor = watched(policy, dataclasses.replace(batch, rollout_logprobs_T=batch.rollout_logprobs_T + noise))
    assert list(monitor.alarms) == ["precision"]


def test_where_all_tokens_are_older_than_the_weights_nothing_is_compared_rather_than_equal(
    policy: Policy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = watched(policy, batch_of(played(policy)), version=3)
    assert monitor.compared == 0 and monitor.report()["largest"] is None and monitor.report()["compared"] == 0
    folder, state = RunFolder(tmp_path), State()
    folder.log({"phase": "rl", "step": 0, "mismatch": monitor.step_figures()})
    (record,) = folder.records()
    assert record["mismatch"] == {"compared": 0, "p50": None, "p99": None, "p999": None, "max": None}
    state.counts = {"mismatch_max": 0.0, "compared_tokens": 0}
    summary = summarize(folder, state, weights="", wall_s=1.0)
    assert summary["mismatch_max"] is None and summary["compared_tokens"] == 0
    show(Console(stderr=True, width=200), folder, summary)
    assert "engine against learner: nothing was compared" in capsys.readouterr().err
    state.counts["compared_tokens"] = 5
    assert summarize(folder, state, weights="", wall_s=1.0)["mismatch_max"] == 0.0
    folder.release()


def test_each_step_of_an_asynchronous_run_says_how_many_tokens_it_compared(tmp_path: Path) -> None:
    run = go(tmp_path / "run", config(rl={"lookahead": 2, "steps": 6}))
    rows = [record["mismatch"] for record in records(tmp_path / "run") if record["phase"] == "rl"]
    assert all((row["max"] is None) == (row["compared"] == 0) for row in rows) and len(rows) == 6
    assert sum(row["compared"] for row in rows) == run.state.counts["compared_tokens"] == run.monitor.compared
