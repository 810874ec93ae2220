"""Rows 11 to 15 of the fault table: what is trained, and what is not."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.policies import HybridModel, preset
from swannery.policies.simulated import virtual_time
from swannery.rl import Learner, RunError
from swannery.rl.admission import Prompt
from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.buffer import GroupBuffer
from swannery.rl.patience import PATIENCE
from swannery.rl.policy_loss import PolicyLoss, Streams
from swannery.rl.trajectory import Group

from .harness import Wild, config, go, planned, records


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("calm") / "run"
    go(path, config(rl={"steps": 0}, sft={"steps": 40, "batch_size": 8}))
    return str(path / "policy")


def test_row_11_a_group_that_failed_trains_nothing_and_the_others_do(
    policy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wild, "share", 0.5)
    go(
        tmp_path / "run",
        config("faults/Wild-v0", policy={"folder": policy_folder}, sft={"steps": 0}, rl={"prompts_per_step": 6}),
    )
    rows = [r["environments"]["faults/Wild-v0"] for r in records(tmp_path / "run")]
    lost = sum(row["left_out"] for row in rows)
    kept = sum(row["rollouts"] for row in rows)
    assert lost + kept == 4 * 6 * 3 and lost == sum(row.get("left_out_connection_lost", 0) for row in rows)
    assert 0 < lost < 4 * 6 * 3 and lost % 3 == 0  # the task fails, so its whole group does


def test_row_11_when_every_group_fails_the_run_stops_and_says_why(
    policy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wild, "share", 1.0)
    chosen = config("faults/Wild-v0", policy={"folder": policy_folder}, sft={"steps": 0}, rl={"steps": PATIENCE + 5})
    with pytest.raises(RunError, match=rf"every rollout of {PATIENCE} steps in a row failed: connection_lost \(12\)"):
        go(tmp_path / "run", chosen)
    rows = records(tmp_path / "run")
    assert len(rows) == PATIENCE - 1 and not any(row["trained_tokens"] for row in rows)


def test_row_12_a_gradient_that_is_not_finite_changes_nothing_and_leaves_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with planned("learner.gradient:7=nan") as plan:
        run = go(path, config())
    assert plan.met["learner.gradient"] >= 8 and run.state.counts["skipped_steps"] == 1
    skipped = [row["step"] for row in records(path) if row.get("skipped")]
    assert len(skipped) == 1
    (dump,) = (path / "nonfinite").iterdir()
    assert dump.name.startswith(f"rl-{skipped[0]:07d}-")
    with np.load(dump, allow_pickle=False) as found:
        assert found["0.environments"].tolist() and len(found["0.targets_T"]) == len(found["0.advantages_T"]) > 0
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_row_12_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    with (
        planned("learner.gradient%1#0=nan"),
        pytest.raises(RunError, match=f"{PATIENCE} updates in a row .* learning rate"),
    ):
        go(tmp_path / "run", config(sft={"steps": PATIENCE + 5, "batch_size": 2}))


def test_row_12_a_skipped_update_leaves_the_weights_to_the_bit() -> None:
    from swannery.rl.batch import pack
    from swannery.rl.scoring import samples_of

    from ..made import made_groups

    model = HybridModel(preset("tiny-100k", vocab_size=320), seed=0)
    learner = Learner(model, optimizer="adamw", lr=1e-2)
    group = made_groups(0, model.config)[0]
    batch = pack([samples_of(group, group.rewards, "token")], 10.0)
    chosen = config()
    loss = PolicyLoss(chosen.algorithms, chosen.correction, chosen.kl, "rollout")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with planned("learner.gradient:1=nan"):
        skipped = learner.step([batch], loss)
    assert skipped.skipped and skipped.suspects == (0,)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not learner.step([batch], loss).skipped
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_row_12_a_ratio_that_overflows_stays_finite(name: str) -> None:
    """-91 against -2: exp(89) is beyond float32. And what is masked may hold anything."""
    chosen = config(algorithm={"name": name})
    loss = PolicyLoss(chosen.algorithms, chosen.correction, chosen.kl, "rollout")
    for old, new in ((-91.0, -2.0), (-2.0, -91.0)):
        logprobs_T = torch.tensor([new, -1.0, -1.5], requires_grad=True)
        value = loss(logprobs_T, streams(torch.tensor([old, -1.0, -1.5])))
        value.backward()
        assert bool(torch.isfinite(value)) and bool(torch.isfinite(logprobs_T.grad).all())  # type: ignore[union-attr, arg-type]


def streams(old_T: torch.Tensor) -> Streams:
    from swannery.rl.batch import Origin, TrainBatch

    zeros = np.zeros(3, np.int64)
    batch = TrainBatch(
        token_ids_N=zeros, routes_NEK=None, lengths=(3,), parents=(-1,), positions_T=zeros, targets_T=zeros,
        advantages_T=np.array([1, -1, 2], np.float32), rollout_logprobs_T=old_T.numpy(), weights_T=np.ones(3, np.float32),
        temperatures_T=np.ones(3, np.float32), versions_T=zeros, num_trained_tokens=3.0, support_TS=None,
        origins=(Origin("x", 0, 0, 0, 0),), sample_T=zeros, turn_T=zeros, place_T=np.arange(3), oldest_T=zeros,
        returns_T=np.zeros(3, np.float32), values_T=np.zeros(3, np.float32),
    )  # fmt: skip
    return Streams.of(batch, torch.float32)


def trained(durations: list[float], *, lookahead: int, room: int, count: int, again: bool = False) -> list[Any]:
    """What a loop over a buffer trains, when groups take so long; with `again` every prompt is delivered twice."""

    async def play(prompt: Prompt) -> Group:
        await asyncio.sleep(durations[prompt.task_seed])
        return Group(env_id="x", task_seed=prompt.task_seed, number=prompt.number, rollouts=())

    async def run() -> list[Any]:
        buffer, admitted, found = GroupBuffer(play, lookahead=lookahead, room=room), 0, []
        steps = len(durations) // count
        for step in range(steps):
            while admitted < min(step + lookahead + 1, steps):
                new = [Prompt("x", -1, admitted * count + n, admitted, n) for n in range(count)]
                buffer.admit([*new, *new] if again else new)
                if again:
                    buffer.admit(reversed(new))
                admitted += 1
            found += await buffer.take(count)
            await asyncio.sleep(1.0)
            buffer.version += 1
        assert not buffer.pending
        return found

    return virtual_time(run)[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 9.0), min_size=24, max_size=24), st.integers(0, 3), st.integers(2, 9))
def test_rows_13_and_15_late_twice_or_out_of_order_each_prompt_is_trained_once_and_in_time(
    durations: list[float], lookahead: int, room: int
) -> None:
    found = trained(durations, lookahead=lookahead, room=room, count=4, again=True)
    assert sorted(one.prompt.task_seed for one in found) == list(range(24))  # nothing discarded, nothing twice
    assert all(0 <= one.lag <= lookahead for one in found)


def test_row_13_rollouts_that_are_handed_over_late_keep_the_bound_in_a_run(tmp_path: Path) -> None:
    chosen = config(rl={"lookahead": 2, "steps": 5}, sft={"steps": 0})
    with planned("rollout.deliver%0.3#1=late"):
        go(tmp_path / "run", chosen)
    rows = records(tmp_path / "run")
    assert max(row["lag"]["max"] for row in rows) <= 2
    prompts = [tuple(prompt[2:]) for row in rows for prompt in row["trained"]]
    assert sorted(prompts) == [(s, n) for s in range(5) for n in range(4)]


def test_environments_that_fail_take_nothing_from_the_others(policy_folder: str, tmp_path: Path) -> None:
    """A fifth of one environment's tasks fail: prompts are shared as configured, and the other's groups are what they would be."""
    both: dict[str, Any] = {
        "policy": {"folder": policy_folder},
        "sft": {"steps": 0},
        "rl": {"steps": 5, "prompts_per_step": 8},
    }
    go(tmp_path / "wild", config("faults/Calm-v0", "faults/Wild-v0", **both))
    rows = records(tmp_path / "wild")
    shares = [[prompt[0] for prompt in row["trained"]].count("faults/Wild-v0") for row in rows]
    assert shares == [4] * 5
    lost = sum(row["environments"]["faults/Wild-v0"]["left_out"] for row in rows)
    assert 0 < lost < 0.5 * 5 * 4 * 3
    calm = [row["environments"]["faults/Calm-v0"] for row in rows]
    assert all(row["rollouts"] == 12 and not row["left_out"] for row in calm)
    go(tmp_path / "calm", config("faults/Calm-v0", **{**both, "rl": {"steps": 5, "prompts_per_step": 4}}))
    alone = records(tmp_path / "calm")[0]["environments"]["faults/Calm-v0"]
    assert {k: alone[k] for k in ("reward", "sampled_tokens")} == {k: calm[0][k] for k in ("reward", "sampled_tokens")}
