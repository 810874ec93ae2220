"""What a person sees while a run goes on: a progress bar, and a live table of the environments. Silent off a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

COLUMNS = {
    "reward": "reward",
    "pass_rate": "passed",
    "sampled_tokens": "tokens",
    "turns": "turns",
    "truncated": "truncated",
    "budget_asked": "budget",
    "reasoning_tokens": "reasoned",
    "budget_hit": "budget hit",
    "left_out": "left out",
    "lag": "lag",
}


class Display:
    """Progress of named phases on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.interactive = console.is_terminal

    def say(self, text: str) -> None:
        if self.interactive:
            self.console.print(text)

    @contextlib.contextmanager
    def phase(self, title: str, total: int, done: int = 0) -> Iterator[Phase]:
        progress = Progress(
            TextColumn(f"[bold]{title:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console,
        )  # fmt: skip
        phase = Phase(progress, progress.add_task(title, total=total, completed=done, note=""))
        if not self.interactive:
            yield phase
            return
        with Live(phase, console=self.console, refresh_per_second=4):
            yield phase


class Phase:
    """One progress bar, with a table above it where there is something to show."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self.progress, self.task = progress, task
        self.rows: Mapping[str, Mapping[str, float]] = {}

    def advance(self, note: str = "", rows: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self.progress.update(self.task, advance=1, note=note)
        self.rows = rows or self.rows

    def __rich__(self) -> Any:
        if not self.rows:
            return self.progress
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("environment")
        for title in COLUMNS.values():
            table.add_column(title, justify="right")
        for env_id, row in self.rows.items():
            table.add_row(env_id, *(f"{row[key]:.2f}" if key in row else "-" for key in COLUMNS))
        return Group(table, self.progress)
