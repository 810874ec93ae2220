"""Every sampled token of a step can be found again, with what became of it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.policies import HybridModel, preset
from swannery.rl import ConfigError, Learner
from swannery.rl.config import RunConfig, load_config
from swannery.rl.scoring import informative
from swannery.rl.trace import COLUMNS, REASONS, StepTrace, batch_bytes, pick, read_trace, summary
from swannery.rl.trajectory import Group
from swannery.rl.update import PolicyUpdate

from .made import made_groups

ENVS = ("chat/Guess-v0", "math/Arithmetic-v0")


def config(**changes: Any) -> RunConfig:
    values = {"environments": [{"id": env_id} for env_id in ENVS], "rl": {"updates_per_step": 2}}
    return load_config({**values, **changes})


def groups(seed: int) -> list[Group]:
    """With numbers of their own, as admission gives them; the last one agrees."""
    model = preset("tiny-100k", vocab_size=320)
    found = []
    for number, group in enumerate(made_groups(seed, model, ENVS, count=6)):
        own = [
            tuple(dataclasses.replace(branch, group=number, task_seed=number) for branch in branches)
            for branches in group.rollouts
        ]
        if number == 5:
            own = [own[0], (dataclasses.replace(own[0][0], rollout=1),)]
        found.append(dataclasses.replace(group, rollouts=tuple(own)))
    return found


def traced(chosen: RunConfig, played: list[Group]) -> tuple[dict[str, Any], list[Any]]:
    model = HybridModel(preset("tiny-100k", vocab_size=320), seed=0)
    trace, seen = StepTrace(chosen, played), []

    def observe(update: int, batch: Any, logprobs_T: np.ndarray) -> None:
        trace.observe(update, batch, logprobs_T)
        seen.append((update, batch, logprobs_T.copy()))

    PolicyUpdate(chosen, Learner(model, optimizer="adamw", lr=1e-3))(played, seed=0, observe=observe)
    return read_trace(trace.to_bytes()), seen


@pytest.mark.parametrize("seed", range(3))
def test_every_sampled_token_is_there_once_with_what_was_done_to_it(seed: int) -> None:
    played = groups(seed)
    rows, seen = traced(config(), played)
    sampled = [
        (t.env_id, t.group, t.rollout, place, int(t.token_ids[place]), float(np.float32(t.logprobs[place])))
        for group in played
        for (t,) in group.rollouts
        for place in np.flatnonzero(np.concatenate([np.full(len(s.token_ids), s.sampled) for s in t.segments]))
    ]
    told = [
        (rows["environments"][e], g, r, p, token, logprob)
        for e, g, r, p, token, logprob in zip(
            *(rows[n].tolist() for n in ("environment", "group", "rollout", "place", "token", "rollout_logprob")),
            strict=True,
        )
    ]
    assert told == sampled and set(COLUMNS) < set(rows)
    trained = {}
    for update, batch, logprobs_T in seen:
        for t, target in enumerate(batch.targets_T):
            origin = batch.origins[batch.sample_T[t]]
            trained[(origin.group, origin.rollout, int(batch.place_T[t]))] = (
                update, int(target), logprobs_T[t], batch.advantages_T[t], batch.weights_T[t] / batch.num_trained_tokens,
            )  # fmt: skip
    for i in range(len(told)):
        key = (rows["group"][i], rows["rollout"][i], rows["place"][i])
        assert (REASONS[rows["reason"][i]] == "trained") == (key in trained)
        if key in trained:
            update, target, *numbers = trained[key]
            assert (rows["update"][i], rows["token"][i]) == (update, target)
            columns = ("learner_logprob", "advantage", "weight")
            np.testing.assert_allclose([rows[name][i] for name in columns], numbers, rtol=1e-6)
    assert abs(rows["weight"].sum() - 2) < 1e-5  # each update's weights are a mean


def test_each_reason_is_told() -> None:
    played = groups(1)
    assert informative(played[0]) and not informative(played[5])
    rows, _ = traced(config(shaping={"overlong_filter": True}), played)
    reasons = {REASONS[index] for index in rows["reason"]}
    assert {"trained", "forced", "the group agrees", "overlong"} <= reasons
    agreeing = rows["reason"][rows["group"] == 5]
    assert {REASONS[index] for index in agreeing} <= {"the group agrees", "forced"}
    rows, _ = traced(config(rl={"updates_per_step": 2, "entropy_share": 0.3}), played)
    assert "certain" in {REASONS[index] for index in rows["reason"]}
    # made-up rollouts are not of these weights, so a narrow mask leaves most of them out
    strict = {"kind": "mask", "low": 0.9, "high": 1.1}
    rows, _ = traced(config(rl={"updates_per_step": 1, "old_policy": "learner"}, correction=strict), played)
    away = rows["reason"] == REASONS.index("corrected away")
    assert away.any() and not rows["weight"][away].any() and np.isfinite(rows["learner_logprob"][away]).all()


def test_a_rollout_is_picked_or_the_nearest_name_is_told() -> None:
    rows, _ = traced(config(), groups(0))
    at = pick(rows, "math/Arithmetic-v0", 3, 1)
    assert set(rows["group"][at]) == {3} and set(rows["rollout"][at]) == {1}
    assert sum(int(line["trained"]) for line in summary(rows)) == int((rows["reason"] == 0).sum())
    with pytest.raises(ConfigError, match="Did you mean 'chat/Guess-v0'"):
        pick(rows, "chat/Gess-v0", -1, -1)
    with pytest.raises(ConfigError, match="its groups are 0, 1, 2, 3, 4, 5"):
        pick(rows, "", 17, -1)


def test_a_dump_holds_the_batches_as_they_were() -> None:
    _, seen = traced(config(), groups(2))
    batches = [batch for _, batch, _ in seen]
    import io

    with np.load(io.BytesIO(batch_bytes(batches)), allow_pickle=False) as found:
        for number, batch in enumerate(batches):
            for name in ("token_ids_N", "targets_T", "advantages_T", "weights_T", "routes_NEK"):
                assert np.array_equal(found[f"{number}.{name}"], getattr(batch, name))
            assert found[f"{number}.environments"].tolist() == [origin.env_id for origin in batch.origins]


def test_the_command_line_tells_a_step(tmp_path: Path) -> None:
    rows = StepTrace(config(), groups(0))
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / "0000003.npz").write_bytes(rows.to_bytes())
    (tmp_path / "config.json").write_text(json.dumps({}))
    call = [sys.executable, "-m", "swannery", "trace", str(tmp_path)]
    whole = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert "step 3" in whole and all(env_id in whole for env_id in ENVS)
    one = subprocess.run([*call, "--group", "0"], capture_output=True, text=True, check=True).stdout
    assert "chat/Guess-v0, task seed 0, group 0, rollout 0" in one
    wrong = subprocess.run([*call, "--step", "4"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "there are 3 to 3" in wrong.stderr


def test_groups_of_one_task_that_two_steps_admitted_are_told_apart() -> None:
    first = groups(0)
    second = [
        dataclasses.replace(
            group,
            rollouts=tuple(tuple(dataclasses.replace(b, step=1) for b in branches) for branches in group.rollouts),
        )
        for group in groups(1)
    ]
    rows, seen = traced(config(), [*first, *second])
    assert int((rows["reason"] == 0).sum()) == sum(len(batch.targets_T) for _, batch, _ in seen)
    assert set(rows["admitted"]) == {0, 1}
