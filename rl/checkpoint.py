"""Checkpoints written while training goes on, and the configuration that each was made under.

What is saved is taken as bytes at the step's end, when nothing changes it; hashing, writing and syncing are a thread's. At most one is
under way: the next waits for it, and what went wrong with it is raised there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from .run_folder import RunError, RunFolder

_OF_THE_PLACE = ("output",)
"""Settings that say where a run lies rather than what it is."""


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
    folder.append("config-changes.jsonl", {"changes": lines})
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
