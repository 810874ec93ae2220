"""Rows 1 to 7 of the fault table: what is saved, and what a run goes on from."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from swannery.rl import RunConfig, RunError, RunFolder
from swannery.rl.controller import Interrupted
from swannery.rl.faults import POINTS, FaultPlan, set_plan
from swannery.rl.report import summarize
from swannery.rl.state import State

from .harness import config, forked, go, numbers, planned

SAVES = [point for point in POINTS if point.startswith("save.")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An undisturbed run and the hash of its weights."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, go(path, config()).weights_hash


@pytest.mark.parametrize(
    "point", ["step.begin", "rollout.deliver", "learner.gradient", "weights.publish", "step.end", "log.append"]
)
def test_row_1_killed_at_any_point_of_a_step_it_goes_on_bit_for_bit(
    whole: tuple[Path, str], tmp_path: Path, point: str
) -> None:
    path = tmp_path / "run"
    assert forked(path, config(), f"{point}:3=kill") == -signal.SIGKILL
    assert go(path, config()).weights_hash == whole[1] and numbers(path) == numbers(whole[0])


def test_row_2_a_kill_at_every_call_of_a_save_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    files = {"model": b"m" * 50, "optimizer": b"o" * 50}
    template = RunFolder(tmp_path / "template")
    template.path.mkdir()
    template.save_checkpoint("0000001-rl", files, {"step": 1})
    template.write_json("config.json", {})
    with planned("log.append:99=late") as calm:
        template.save_checkpoint("0000002-rl", files, {"step": 2})
    shutil.rmtree(template.path / "checkpoints" / "0000002-rl")
    points = [(point, k) for point in SAVES for k in range(1, calm.met[point] + 1)]
    assert len(points) >= 9
    for point, k in points:
        path = tmp_path / f"{point}-{k}"
        shutil.copytree(template.path, path)
        pid = os.fork()
        if pid == 0:
            set_plan(FaultPlan(f"{point}:{k}=kill"))
            RunFolder(path).save_checkpoint("0000002-rl", files, {"step": 2})
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, (point, k)
        found = RunFolder.open(path)
        checkpoint = found.load_checkpoint()
        assert checkpoint is not None and checkpoint[1]["step"] in (1, 2) and not checkpoint[2]
        found.save_checkpoint("0000003-rl", files, {"step": 3})
        assert found.load_checkpoint()[1]["step"] == 3  # type: ignore[index]
        found.release()


def test_row_2_a_trace_that_was_cut_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("0000001.npz", "0000003.npz", ".tmp-0000004.npz"):
        (tmp_path / "trace").mkdir(exist_ok=True)
        (tmp_path / "trace" / name).write_bytes(b"x")
    folder.forget_after("rl", 2, ("sft", "rl", "done"))
    assert [path.name for path in (tmp_path / "trace").iterdir()] == ["0000001.npz"] and folder.traced() == [1]


def test_row_2_a_folder_that_is_replaced_is_never_lost(tmp_path: Path) -> None:
    from swannery.rl.run_folder import write_folder

    (tmp_path / "config.json").write_text("{}")
    write_folder(tmp_path / "policy", {"weights": b"old"})
    pid = os.fork()
    if pid == 0:
        set_plan(FaultPlan("save.replace:1=kill"))
        write_folder(tmp_path / "policy", {"weights": b"new"})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "policy").exists()  # it was moved aside, and nothing is in its place
    RunFolder.open(tmp_path).release()
    assert (tmp_path / "policy" / "weights").read_bytes() == b"old"


@pytest.mark.parametrize("point", ["step.begin", "step.end"])
def test_row_3_asked_to_stop_it_saves_and_ends_with_143(whole: tuple[Path, str], tmp_path: Path, point: str) -> None:
    path = tmp_path / "run"
    assert forked(path, config(), f"{point}:3=stop") == 143
    saved = RunFolder.open(path)
    assert saved.load_checkpoint()[1]["step"] == len([n for n in numbers(path) if n[0] == "rl"]) or point == "step.end"  # type: ignore[index]
    saved.release()
    assert go(path, config()).weights_hash == whole[1] and numbers(path) == numbers(whole[0])


@pytest.mark.parametrize(
    "fault", ["save.write:10=full", "save.fsync:15=full", "save.rename:4=full", "log.append:8=full"]
)
def test_row_4_a_full_disk_is_one_clear_line_and_costs_nothing(
    whole: tuple[Path, str], tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "run"
    with planned(fault), pytest.raises(RunError, match="no space left .* free some space"):
        go(path, config())
    assert all(line.endswith("}") for line in (path / "metrics.jsonl").read_text().splitlines())
    assert not list(path.rglob(".tmp-*"))
    assert go(path, config()).weights_hash == whole[1] and numbers(path) == numbers(whole[0])


def test_row_5_the_newest_and_the_one_before_damaged_it_says_so_and_all_of_them_it_refuses(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    assert forked(path, config(), "step.end:9=kill") == -signal.SIGKILL
    checkpoints = sorted((path / "checkpoints").iterdir())
    (checkpoints[-1] / "optimizer.safetensors").write_bytes(b"")
    assert go(path, config()).weights_hash == whole[1] and numbers(path) == numbers(whole[0])
    assert [p.name for p in (path / "checkpoints").glob("corrupt-*")] == [f"corrupt-{checkpoints[-1].name}"]
    for checkpoint in (path / "checkpoints").iterdir():
        (checkpoint / "state.json").write_text("{")
    kept = (path / "metrics.jsonl").read_bytes()
    for _ in range(3):  # each time: what was set aside by the first still counts
        with pytest.raises(RunError, match="no checkpoint is whole(?s:.*)(is damaged|aside before)(?s:.*)Put a whole"):
            go(path, config())
    shutil.rmtree(path / "checkpoints")
    for _ in range(2):
        with pytest.raises(RunError, match=r"metrics\.jsonl has steps"):
            go(path, config())
    assert (path / "metrics.jsonl").read_bytes() == kept


def test_row_5_killed_before_its_first_checkpoint_a_run_begins_anew(whole: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert forked(path, config(), "save.write:4=kill") == -signal.SIGKILL
    assert not (path / "metrics.jsonl").exists() and not list((path / "checkpoints").glob("0*"))
    other = config(seed=3)  # nothing is made of the seed yet, but it must be told
    with pytest.raises(RunError, match="seed: 0 -> 3(?s:.*)--allow-config-change"):
        go(path, other)
    assert go(path, config()).weights_hash == whole[1] and numbers(path) == numbers(whole[0])


def test_row_5_nothing_is_logged_before_the_first_checkpoint_is_whole(tmp_path: Path) -> None:
    """Else a slow disk and a kill would leave steps and no checkpoint, which is refused."""
    path = tmp_path / "run"
    assert forked(path, config(), "log.append:1=kill") == -signal.SIGKILL
    assert len(list((path / "checkpoints").glob("0*"))) == 1


def test_row_6_a_changed_configuration_refuses_with_what_differs_unless_told(tmp_path: Path) -> None:
    path, changed = tmp_path / "run", config(rl={"learning_rate": 1e-5})
    assert forked(path, config(), "step.end:8=kill") == -signal.SIGKILL
    with pytest.raises(RunError, match=r"rl\.learning_rate: 0\.0003 -> 1e-05(?s:.*)--allow-config-change"):
        go(path, changed)
    values = json.loads((path / "config.json").read_text())
    assert values["rl"]["learning_rate"] == 3e-4  # a refusal changes nothing
    go(path, changed, allow=True)
    assert json.loads((path / "config.json").read_text())["rl"]["learning_rate"] == 1e-5
    assert "rl.learning_rate" in (path / "config-changes.jsonl").read_text()
    go(path, changed)  # it is the run's own now


def test_row_6_what_a_run_that_has_begun_cannot_take_up_is_refused_though_allowed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert forked(path, config(), "step.end:8=stop") == 143  # two steps of reinforcement are saved
    began = (path / "config.json").read_bytes()
    small, wider = {"preset": "tiny-100k", "vocab_size": 300}, {"preset": "tiny-100k", "vocab_size": 320}
    for line, changed in {
        r"seed: 0 -> 7 \(its weights and its random streams": config(seed=7),
        r"policy\.vocab_size: 300 -> 320 \(its weights were made by it": config(policy=wider),
        r"sft\.steps: 6 -> 9 \(its warm start is over": config(sft={"steps": 9, "batch_size": 4}),
        r"rl\.steps: 4 -> 1 \(2 steps are done": config(rl={"steps": 1}),
    }.items():
        for allow in (False, True):
            with pytest.raises(RunError, match=f"this run has begun(?s:.*){line}"):
                go(path, changed, allow=allow)
    assert (path / "config.json").read_bytes() == began and not (path / "config-changes.jsonl").exists()
    go(path, config(policy={**small, "exact_replay": True}), allow=True)  # how it computes is no part of its weights
    with pytest.raises(RunError, match=r"learning_rate(?s:.*)it is finished; a higher rl\.steps would train on"):
        go(path, config(policy={**small, "exact_replay": True}, rl={"learning_rate": 1e-5}), allow=True)


def longer(steps: int) -> RunConfig:
    """Runs whose learning rate does not depend on how many steps are to come."""
    return config(rl={"steps": steps, "decay_share": 0.0}, evaluation={"num_tasks": 2})


def test_row_6_a_finished_run_that_is_given_more_steps_is_the_longer_run_to_the_bit(tmp_path: Path) -> None:
    at_once, path = tmp_path / "at-once", tmp_path / "run"
    wanted = go(at_once, longer(6)).weights_hash
    short = go(path, longer(4)).weights_hash
    assert short != wanted
    (path / "summary.json").write_text("{}")
    evaluated = {name: (path / f"evaluation-{name}.json").read_bytes() for name in ("before", "after")}
    with pytest.raises(RunError, match=r"rl\.steps: 4 -> 6(?s:.*)--allow-config-change"):
        go(path, longer(6))
    assert (path / "summary.json").exists() and (path / "evaluation-after.json").read_bytes() == evaluated["after"]
    assert forked(path, longer(6), "save.rename:1=kill", allow=True) == -signal.SIGKILL  # before it is the run's own
    assert not (path / "summary.json").exists() and not (path / "evaluation-after.json").exists()
    assert go(path, longer(4)).weights_hash == short  # as if it had not been asked
    assert {name: (path / f"evaluation-{name}.json").read_bytes() for name in evaluated} == evaluated
    assert forked(path, longer(6), "step.end:1=kill", allow=True) == -signal.SIGKILL
    assert go(path, longer(6)).weights_hash == wanted and numbers(path) == numbers(at_once)
    for name in ("before", "after"):
        assert (path / f"evaluation-{name}.json").read_bytes() == (at_once / f"evaluation-{name}.json").read_bytes()
    weights = [(at / "policy" / "model.safetensors").read_bytes() for at in (path, at_once)]
    assert weights[0] == weights[1]


def test_row_6_without_the_checkpoint_of_its_last_step_a_finished_run_refuses_more(tmp_path: Path) -> None:
    path = tmp_path / "run"
    go(path, longer(4))
    (last,) = (path / "checkpoints").glob("*-rl")
    (last / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"last step is gone or damaged(?s:.*)--policy\.folder"):
        go(path, longer(6), allow=True)
    assert json.loads((path / "config.json").read_text())["rl"]["steps"] == 4
    assert (path / "evaluation-after.json").exists()


def test_the_hash_of_the_configuration_is_saved_with_the_run_and_follows_a_change(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def hashes() -> set[str]:
        values = json.loads((path / "config.json").read_text())
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        newest = json.loads((max((path / "checkpoints").iterdir()) / "state.json").read_text())
        summary = summarize(RunFolder(path), State(), weights="", wall_s=0.0)
        told = (path / "config.sha256").read_text().strip()
        return {hashlib.sha256(canonical.encode()).hexdigest(), newest["config_hash"], summary["config_hash"], told}

    assert forked(path, config(), "step.end:8=kill") == -signal.SIGKILL
    (old,) = hashes()
    go(path, config(rl={"learning_rate": 1e-5}), allow=True)
    (new,) = hashes()
    (change,) = map(json.loads, (path / "config-changes.jsonl").read_text().splitlines())
    assert (change["old_hash"], change["new_hash"]) == (old, new) and old != new


def test_row_7_at_a_boundary_of_phases_nothing_is_skipped_and_nothing_done_twice(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    assert forked(path, config(), "step.end:6=kill") == -signal.SIGKILL  # the last step of the warm start
    run = go(path, config())
    assert [(n[0], n[1]) for n in numbers(path)] == [("sft", s) for s in range(6)] + [("rl", s) for s in range(4)]
    assert run.weights_hash == whole[1]
    before = numbers(path)
    assert go(path, config()).weights_hash == whole[1] and numbers(path) == before  # a finished run


def test_row_19_a_second_trainer_is_refused(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run", "run")
    first.write_json("config.json", {})
    with pytest.raises(RunError, match="in use by another trainer"):
        RunFolder.open(tmp_path / "run")
    first.release()


def test_a_failed_writer_is_told_at_the_end_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint has no next save that would tell."""
    kept = RunFolder.save_checkpoint

    def fail(folder: RunFolder, name: str, *rest: Any) -> Path:
        if name.endswith("done"):
            raise RunError("no space left to write it")
        return kept(folder, name, *rest)

    monkeypatch.setattr(RunFolder, "save_checkpoint", fail)
    with pytest.raises(RunError, match="no space left"):
        go(tmp_path / "run", config())
    assert Interrupted(15).exit_code == 143
