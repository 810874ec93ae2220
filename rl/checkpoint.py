"""Checkpoints written while training goes on, and the configuration that each was made under.

What is saved is taken as bytes at the step's end, when nothing changes it; hashing, writing and syncing are a thread's. At most one is
under way: the next waits for it, and what went wrong with it is raised there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import RunConfig
from .run_folder import RunError, RunFolder, write_file

_OF_THE_PLACE = ("output",)
"""Settings that say where a run lies rather than what it is."""

_OF_EVALUATION = ("evaluation.", "generation.", "environments", "num_threads")
"""What a run whose training is over still goes by, until it is evaluated."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, name: str, files: Mapping[str, bytes], state: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint. Raises what the one before failed by; older ones are whole whatever happens."""
        self.wait()
        plain = json.loads(json.dumps(state))  # the run changes its own from now on
        self._thread = threading.Thread(target=self._write, args=(name, files, plain), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun is on disk. Raises what it failed by."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, name: str, files: Mapping[str, bytes], state: Mapping[str, Any]) -> None:
        try:
            self.folder.save_checkpoint(name, files, state)
        except BaseException as error:  # it is raised where somebody sees it
            self._error = error


@dataclass(frozen=True)
class Resumed:
    """What a run goes on from."""

    path: Path
    state: Mapping[str, Any]
    aside: list[str] = field(default_factory=list)
    """Damaged checkpoints that were set aside, a line each."""
    changed: bool = False
    """Whether it goes on under another configuration than the checkpoint's."""


def resume(folder: RunFolder, after: Mapping[str, Any], *, change: bool) -> Resumed | None:
    """The checkpoint that a run goes on from under a configuration, which becomes the run's own; None where nothing is trained yet. A
    finished run that is given more steps goes on from the end of its last one."""
    found = folder.load_checkpoint()
    if found is None:
        accept_config(folder, folder.read_json("config.json"), after, change=change)
        _keep_hash(folder)
        return None
    path, state, aside = found
    before = state.get("config")
    if before is not None:
        _refuse_what_is_settled(folder, state, before, after)
    longer = before is not None and state["phase"] == "done" and after["rl"]["steps"] > before["rl"]["steps"]
    if before is not None and longer and change:
        last = folder.checkpoint_before(path)
        if last is None or (last[1]["phase"], last[1]["step"]) != ("rl", before["rl"]["steps"]):
            raise RunError(
                f"the run is finished, and the checkpoint of its last step is gone or damaged, so rl.steps cannot be raised to "
                f"{after['rl']['steps']}. Begin a new run from its weights: --policy.folder {folder.path / 'policy'} --sft.steps 0"
            )
        # In this order a kill leaves a run that finishes as it did before: the end is forgotten first, the configuration changed last.
        folder.drop_checkpoint(path)
        for name in ("evaluation-after.json", "summary.json"):
            (folder.path / name).unlink(missing_ok=True)
        path, state = last
    changed = accept_config(folder, before, after, change=change)
    _keep_hash(folder)
    return Resumed(path, state, aside, changed)


def config_hash(values: Mapping[str, Any]) -> str:
    """The sha256 of a configuration's canonical JSON: keys sorted, no spaces."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def configured(config: RunConfig) -> dict[str, Any]:
    """What a checkpoint tells of the configuration that made it."""
    values = config.model_dump(mode="json")
    return {"config": values, "config_hash": config_hash(values)}


def _keep_hash(folder: RunFolder) -> None:
    """config.sha256 beside config.json. Nothing reads it: it is for people who ask whether two runs are of one configuration."""
    values = folder.read_json("config.json")
    if values is not None:
        write_file(folder.path / "config.sha256", config_hash(values).encode() + b"\n")


def resume_config(folder: RunFolder) -> dict[str, Any]:
    """The configuration that a run folder was started with."""
    values = folder.read_json("config.json")
    if not isinstance(values, dict):
        raise RunError(f"{folder.path / 'config.json'} holds no configuration")
    return values


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, a line each."""
    old, new = _flat(before), _flat(after)
    names = [name for name in {**old, **new} if name not in _OF_THE_PLACE and old.get(name) != new.get(name)]
    said = lambda values, name: json.dumps(values[name]) if name in values else "(not there)"  # noqa: E731
    return [f"{name}: {said(old, name)} -> {said(new, name)}" for name in names]


def _refuse_what_is_settled(
    folder: RunFolder, state: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """RunError where a change could not be taken up any more: written down, it would tell of a run that never was."""
    phase, done = state["phase"], before["rl"]["steps"] if state["phase"] == "done" else state["step"]
    over = phase == "done" and after["rl"]["steps"] <= before["rl"]["steps"]
    evaluated = folder.read_json("evaluation-after.json") is not None or not after["evaluation"]["num_tasks"]
    told = []
    for line in changes(before, after):
        name, why = line.split(": ", 1)[0], ""
        if "(not there)" in line:  # a setting that another version of swannery has, or an environment's
            continue
        if name == "seed":
            why = "its weights and its random streams began with it"
        elif name.startswith("policy.") and name != "policy.exact_replay":
            why = "its weights were made by it"
        elif name.startswith("sft.") and phase != "sft":
            why = "its warm start is over"
        elif name == "rl.steps" and phase != "sft" and after["rl"]["steps"] < done:
            why = f"{done} steps are done"
        elif over and (evaluated or not name.startswith(_OF_EVALUATION)):
            why = "it is finished; a higher rl.steps would train on"
        told += [f"{line} ({why})"] if why else []
    if told:
        raise RunError(
            "this run has begun, and can no longer take up:\n  "
            + "\n  ".join(told)
            + "\nUndo it, or begin a new run under it"
        )


def accept_config(
    folder: RunFolder, before: Mapping[str, Any] | None, after: Mapping[str, Any], *, change: bool
) -> bool:
    """Whether a run goes on under another configuration than it began with. RunError, with what differs, where it was not told to. Told
    to, it keeps the new one, and what changed in config-changes.jsonl."""
    lines = changes(before, after) if before is not None else []
    if not lines:
        return False
    if not change:
        raise RunError(
            "the configuration is not the one that this run was saved under:\n  "
            + "\n  ".join(lines)
            + "\nGo on with the new one by --allow-config-change, or undo the change"
        )
    folder.write_json("config.json", dict(after))
    hashes = {"old_hash": config_hash(before or {}), "new_hash": config_hash(after)}
    folder.append("config-changes.jsonl", {"changes": lines, **hashes})
    return True


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; environments by their ids."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "id" in one for one in value):
            flat[f"{prefix}{key}"] = [one["id"] for one in value]
            for one in value:
                flat |= _flat({k: v for k, v in one.items() if k != "id"}, f"{prefix}{key}.{one['id']}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
