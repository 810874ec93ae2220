"""metrics.jsonl for tensorboard: `tensorboard --logdir RUN/tensorboard`. Each phase is a run of its own there, with its own steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Board:
    """Writes the numbers of records as scalars. Nothing reads them back: what is lost in a crash is in metrics.jsonl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, Any] = {}

    def write(self, record: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        phase, step = str(record["phase"]), int(record["step"])
        if phase not in self.writers:
            self.writers[phase] = EventFileWriter(str(self.folder / phase))
            # A resumed run takes the steps after its snapshot again: those of before are not shown.
            start = SessionLog(status=SessionLog.START)
            self.writers[phase].add_event(Event(wall_time=time.time(), step=step, session_log=start))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(record)]
        self.writers[phase].add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self.writers[phase].flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers.clear()


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a record by name; an environment's under its own."""
    for key, value in record.items():
        if key in ("phase", "step"):
            continue
        if isinstance(value, Mapping):
            prefix = "" if key == "environments" else f"{key}/"
            yield from ((f"{prefix}{name}", number) for name, number in scalars(value))
        elif isinstance(value, int | float) and math.isfinite(value):
            yield key, float(value)
