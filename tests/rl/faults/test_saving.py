"""Rows 1 to 7 of the fault table: what is saved, and what a run goes on from."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from swannery.rl import RunError, RunFolder
from swannery.rl.controller import Interrupted
from swannery.rl.faults import POINTS, FaultPlan, set_plan

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
    "fault", ["save.write:9=full", "save.fsync:14=full", "save.rename:3=full", "log.append:8=full"]
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
    with pytest.raises(RunError, match="no checkpoint is whole"):
        go(path, config())


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
