"""The run folder: a lock, the configuration, metrics, checkpoints. Every write is whole or not there at all.

runs/NAME-001/  config.json  config.sha256  metrics.jsonl  tensorboard/  evaluation-*.json  policy-sft/  policy/  checkpoints/1000050-rl/
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .board import Board
from .faults import fault

KEEP_CHECKPOINTS = 2


class RunError(RuntimeError):
    """A run folder that cannot be used, in words for the person who named it."""


class RunFolder:
    """One run on disk. `open` takes the lock: a second trainer on the same folder is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.board = Board(path / "tensorboard")
        self._lock: int | None = None

    @staticmethod
    def create(path: Path | None, name: str, base: Path = Path("runs")) -> RunFolder:
        """A new folder: `path`, or the next free base/NAME-NNN."""
        if path is not None:
            if path.exists():
                raise RunError(
                    f"the run folder {path} exists. Go on with it: swannery train --resume {path}; or choose another --output"
                )
            candidates: Iterator[Path] = iter([path])
        else:
            candidates = (base / f"{name}-{number:03d}" for number in range(1, 10_000))
        for candidate in candidates:
            try:
                candidate.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(f"cannot create the run folder {candidate}: {error.strerror}") from None
            folder = RunFolder(candidate)
            folder.acquire()
            return folder
        raise RunError(f"no free name left for {base / name}-NNN")

    @staticmethod
    def open(path: Path) -> RunFolder:
        if not (path / "config.json").is_file():
            raise RunError(f"{path} is no run folder: config.json is missing")
        folder = RunFolder(path)
        folder.acquire()
        put_back(path)
        return folder

    def acquire(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._lock, 64).decode().strip()
            os.close(self._lock)
            self._lock = None
            raise RunError(f"{self.path} is in use by another trainer (process {holder})") from None
        os.truncate(self._lock, 0)
        os.write(self._lock, str(os.getpid()).encode())

    def release(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was told already, and nothing reads the board back
            self.board.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Small files.

    def write_json(self, name: str, value: Any) -> None:
        write_file(self.path / name, json.dumps(value, indent=2, allow_nan=False).encode())

    def read_json(self, name: str) -> Any | None:
        path = self.path / name
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise RunError(f"{path} is damaged: it is no JSON") from None

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, and its numbers to tensorboard's. Numbers that are not finite become null."""
        with told_of_space(self.path):
            fault("log.append")
        self.append("metrics.jsonl", _finite(record))
        with told_of_space(self.path):
            self.board.write(record)

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """One more line of JSON. A full disk leaves no half of it."""
        with told_of_space(self.path), open(self.path / name, "ab", buffering=0) as file:
            end, line = file.seek(0, os.SEEK_END), json.dumps(record).encode() + b"\n"
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, "a part of the line was written")
            except OSError:
                file.truncate(end)
                raise

    def records(self) -> list[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        records = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # a line cut by a kill
                records.append(json.loads(line))
        return records

    def forget_after(self, phase: str, step: int, phases: tuple[str, ...]) -> None:
        """Drop metrics of steps that a resumed run takes again."""
        at = (phases.index(phase), step)
        kept = [r for r in self.records() if (phases.index(r["phase"]), r["step"]) < at]
        write_file(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in kept).encode())
        for path in list((self.path / "trace").glob("*")):
            cut = not path.stem.isdigit()  # a kill came while it was written
            if cut or phase == "sft" or (phase == "rl" and int(path.stem) >= step):
                path.unlink()

    def write_trace(self, step: int, content: bytes) -> None:
        """A step's tokens. Not synced: what a crash of the machine takes of it is lost."""
        with told_of_space(self.path):
            (self.path / "trace").mkdir(exist_ok=True)
        write_file(self.trace_file(step), content, sync=False)

    def traced(self) -> list[int]:
        """The steps that have a trace."""
        return sorted(int(path.stem) for path in (self.path / "trace").glob("*.npz") if path.stem.isdigit())

    def trace_file(self, step: int) -> Path:
        return self.path / "trace" / f"{step:07d}.npz"

    def write_dump(self, name: str, content: bytes) -> Path:
        """What made a gradient that is not finite."""
        with told_of_space(self.path):
            (self.path / "nonfinite").mkdir(exist_ok=True)
        write_file(self.path / "nonfinite" / name, content)
        return self.path / "nonfinite" / name

    # Folders of files, as checkpoints are.

    def save_checkpoint(self, name: str, files: Mapping[str, bytes], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint beside the old ones and drop all but the newest few."""
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        meta = json.dumps({**state, "sha256": sums}, indent=2).encode()
        parent = self.path / "checkpoints"
        with told_of_space(parent):
            parent.mkdir(exist_ok=True)
        write_folder(parent / name, {**files, "state.json": meta})
        for old in self._checkpoints()[KEEP_CHECKPOINTS:]:
            shutil.rmtree(old, ignore_errors=True)
        return parent / name

    def load_checkpoint(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest whole checkpoint, its state, and what had to be set aside. None where a run has logged nothing yet, and may begin
        anew: one that has trained would be overwritten."""
        aside: list[str] = []
        checkpoints = self._checkpoints()
        for path in checkpoints:
            problem, state = _verify(path)
            if problem is None:
                return path, state, aside
            corrupt = path.with_name(f"corrupt-{path.name}")
            shutil.rmtree(corrupt, ignore_errors=True)
            path.rename(corrupt)
            aside.append(f"{path.name} is damaged ({problem}); set aside as {corrupt.name}")
        aside = aside or [f"{path.name} was set aside before" for path in sorted(self._set_aside())]
        metrics = self.path / "metrics.jsonl"
        if not aside and metrics.exists() and metrics.stat().st_size:
            aside = ["there is none, though metrics.jsonl has steps"]
        if aside:
            raise RunError(
                "no checkpoint is whole, so the run cannot go on:\n  "
                + "\n  ".join(aside)
                + f"\nPut a whole copy back into {self.path / 'checkpoints'}, or begin a new run in another --output"
            )
        return None

    def checkpoint_before(self, newest: Path) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint that is older than one, and its state."""
        for path in self._checkpoints():
            if path.name < newest.name:
                problem, state = _verify(path)
                if problem is None:
                    return path, state
        return None

    def drop_checkpoint(self, path: Path) -> None:
        """Remove a checkpoint; a kill leaves it whole or gone."""
        gone = path.with_name(f".tmp-{path.name}")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _set_aside(self) -> Iterator[Path]:
        return (self.path / "checkpoints").glob("corrupt-*")

    def _checkpoints(self) -> list[Path]:
        """Newest first. Names begin with a number that grows."""
        parent = self.path / "checkpoints"
        if not parent.is_dir():
            return []
        for left in parent.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        put_back(parent)
        return sorted((p for p in parent.iterdir() if p.name[:1].isdigit()), reverse=True)


def _verify(path: Path) -> tuple[str | None, dict[str, Any]]:
    try:
        state = json.loads((path / "state.json").read_text())
        for file, wanted in state["sha256"].items():
            if hashlib.sha256((path / file).read_bytes()).hexdigest() != wanted:
                return f"{file} has changed", {}
        return None, state
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}", {}


@contextlib.contextmanager
def told_of_space(path: Path) -> Iterator[None]:
    """Turn a full disk into one clear line. What was saved before is untouched."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(
            f"no space left to write {path}. What was saved before is whole: free some space, then swannery train --resume"
        ) from None


def write_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file beside its name, sync it, and rename it into place."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with told_of_space(path):
            if sync:
                _write_synced(temporary, data)
            else:
                temporary.write_bytes(data)
            fault("save.rename")
            os.replace(temporary, path)
            if sync:
                _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files whole: its name appears when everything is on disk. An older one of the name is replaced."""
    temporary = path.with_name(f".tmp-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with told_of_space(path):
            temporary.mkdir(parents=True)
            for name, data in files.items():
                _write_synced(temporary / name, data)
            _sync_folder(temporary)
            fault("save.rename")
            old = path.with_name(f".old-{path.name}")
            if path.exists():  # a folder is not replaced in one move: until the new one is there the old one is kept
                shutil.rmtree(old, ignore_errors=True)
                os.rename(path, old)
                fault("save.replace")
            os.rename(temporary, path)
            _sync_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        put_back(path.parent)
        raise


def put_back(parent: Path) -> None:
    """Give folders their name back that were cut while being replaced, and drop what a replacement left."""
    for old in parent.glob(".old-*"):
        path = old.with_name(old.name.removeprefix(".old-"))
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


def _write_synced(path: Path, data: bytes) -> None:
    fault("save.write")
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        fault("save.fsync")
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    fault("save.sync")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
