"""Law 7: nothing is lost. Killed at any moment, a synchronous run goes on bit for bit; what is damaged is set aside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swannery.rl import RunError, RunFolder
from swannery.rl.run_folder import write_file, write_folder

CONFIG = """
name = "tiny"
num_threads = 1
checkpoint_every = 2
[policy]
preset = "tiny-100k"
vocab_size = 320
[[environments]]
id = "math/Arithmetic-v0"
reasoning_budgets = ["unlimited", 4]
[[environments]]
id = "tools/Calculator-v0"
[[environments]]
id = "chat/Guess-v0"
[sft]
steps = 6
batch_size = 8
[rl]
steps = 6
prompts_per_step = 4
group_size = 4
[generation]
max_new_tokens = 24
context_size = 256
num_slots = 32
[evaluation]
num_tasks = 2
"""


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    (folder / "tiny.toml").write_text(CONFIG)
    return subprocess.Popen(
        [sys.executable, "-m", "swannery", "train", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> dict[str, object]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def wait_for(folder: Path, phase: str, step: int) -> None:
    deadline = time.monotonic() + 200
    metrics = folder / "run" / "metrics.jsonl"
    while time.monotonic() < deadline:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if any(f'"phase": "{phase}", "step": {step},' in line for line in lines):
            return
        time.sleep(0.01)
    raise AssertionError(f"the run never came to {phase} {step}")


def losses(folder: Path) -> list[tuple[object, ...]]:
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [(r["phase"], r["step"], r["loss"], r["grad_norm"]) for r in records]


def test_law_7_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir(), killed.mkdir()
    whole = finish(start(undisturbed, "tiny.toml", "--output", "run"))
    for phase, step in (("sft", 3), ("rl", 2)):  # both between two checkpoints
        arguments = ("--resume", "run") if (killed / "run").exists() else ("tiny.toml", "--output", "run")
        process = start(killed, *arguments)
        wait_for(killed, phase, step)
        process.kill()
        process.communicate()
    resumed = finish(start(killed, "--resume", "run"))
    assert resumed["weights"] == whole["weights"]
    assert losses(killed) == losses(undisturbed)
    assert resumed["environments"] == whole["environments"]
    assert resumed["rollouts"] == whole["rollouts"] and resumed["sampled_tokens"] == whole["sampled_tokens"]


def ledger(folder: Path) -> list[list[tuple[object, ...]]]:
    """The prompts that each step trained."""
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [[tuple(prompt) for prompt in r["trained"]] for r in records if r["phase"] == "rl"]


def test_law_7_a_killed_asynchronous_run_skips_no_prompt_and_trains_none_twice(tmp_path: Path) -> None:
    ahead = ("tiny.toml", "--output", "run", "--rl.lookahead", "2", "--generation.num-slots", "8")
    process = start(tmp_path, *ahead)
    wait_for(tmp_path, "rl", 2)
    process.kill()
    process.communicate()
    finish(start(tmp_path, "--resume", "run"))
    steps = ledger(tmp_path)
    assert [len(prompts) for prompts in steps] == [4] * 6
    trained = [prompt for prompts in steps for prompt in prompts]
    assert sorted((step, number) for _, _, step, number in trained) == [(s, n) for s in range(6) for n in range(4)]
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    finish(start(undisturbed, *ahead))
    assert sorted(trained) == sorted(prompt for prompts in ledger(undisturbed) for prompt in prompts)


def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "tiny.toml", "--output", "run", "--sft.steps", "400")
    wait_for(tmp_path, "sft", 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "--resume run" in err
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    state = json.loads((newest / "state.json").read_text())
    logged = [r for r in losses(tmp_path) if r[0] == "sft"]
    assert state["step"] == len(logged)


def checkpoint(folder: RunFolder, number: int) -> Path:
    return folder.save_checkpoint(f"{number:07d}-sft", {"model.safetensors": b"w" * 100}, {"step": number})


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty state", "no state", "gone"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    checkpoint(folder, 1)
    newest = checkpoint(folder, 2)
    weights, state = newest / "model.safetensors", newest / "state.json"
    if damage == "truncated":
        weights.write_bytes(b"w" * 99)
    elif damage == "flipped":
        weights.write_bytes(b"w" * 50 + b"x" + b"w" * 49)
    elif damage == "empty state":
        state.write_text("")
    elif damage == "no state":
        state.unlink()
    else:
        weights.unlink()
    found = folder.load_checkpoint()
    assert found is not None and found[1]["step"] == 1 and "0000002-sft is damaged" in found[2][0]
    checkpoint(folder, 2)  # its name is free again
    assert folder.load_checkpoint()[1]["step"] == 2  # type: ignore[index]


def test_when_every_checkpoint_is_damaged_the_run_refuses_rather_than_starting_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in (1, 2):
        (checkpoint(folder, number) / "state.json").write_text("{}")
    with pytest.raises(RunError, match="no checkpoint is whole"):
        folder.load_checkpoint()


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in range(5):
        checkpoint(folder, number)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["0000003-sft", "0000004-sft"]


def test_a_second_trainer_on_one_run_is_refused(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run", "run")
    first.write_json("config.json", {})
    with pytest.raises(RunError, match=f"in use by another trainer .process {os.getpid()}"):
        RunFolder.open(tmp_path / "run")
    first.release()
    RunFolder.open(tmp_path / "run").release()


def test_a_full_disk_leaves_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    checkpoint(folder, 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="no space left to write .* free some space"):
            checkpoint(folder, 2)
        with pytest.raises(RunError, match="no space left"):
            write_file(tmp_path / "x.json", b"{}")
    assert not list(tmp_path.rglob(".tmp-*")) and not (tmp_path / "x.json").exists()
    assert folder.load_checkpoint()[1]["step"] == 1  # type: ignore[index]
    checkpoint(folder, 2)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path / "policy", {"a": b"1"})
    with pytest.raises(TypeError):
        write_folder(tmp_path / "policy", {"a": b"2", "b": None})  # type: ignore[dict-item]
    assert (tmp_path / "policy" / "a").read_bytes() == b"1" and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.slow
def test_law_7_twelve_kills_at_random_moments(tmp_path: Path) -> None:
    import random

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir(), killed.mkdir()
    whole = finish(start(undisturbed, "tiny.toml", "--output", "run"))
    moments = random.Random(0)
    for _ in range(12):
        ready = (killed / "run" / "config.json").exists()
        if not ready:
            shutil.rmtree(killed / "run", ignore_errors=True)
        process = start(killed, *(("--resume", "run") if ready else ("tiny.toml", "--output", "run")))
        time.sleep(moments.uniform(3, 8))
        process.kill()
        process.communicate()
    resumed = finish(start(killed, "--resume", "run"))
    assert resumed["weights"] == whole["weights"] and losses(killed) == losses(undisturbed)
