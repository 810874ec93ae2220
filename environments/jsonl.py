"""Task files: one JSON object a line, read when first needed and checked row by row.

    tasks = jsonl("wiki.jsonl", prompt="q", answer="a")

A relative path is beside the file that holds the class. A bad row is told with its number and the reason: `strict` stops at
the first, otherwise at most one row in a hundred is skipped, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from ..messages import Task
from .state import beside
from .wire import read_json, task_from_prompt

_MAX_ROW = 10_000_000
_SKIPPED_SHARE = 0.01


class TaskFileError(ValueError):
    """A task file that cannot be used, with the row and the reason."""


class TaskFile(Sequence[Task]):
    """The tasks of a file. Fields that are neither prompt, answer nor difficulty become metadata."""

    def __init__(
        self,
        path: str | Path,
        *,
        prompt: str = "prompt",
        answer: str = "answer",
        difficulty: str = "difficulty",
        strict: bool = True,
        convert: Callable[[Mapping[str, Any]], Task] | None = None,
    ) -> None:
        self.path, self.strict, self.convert = Path(path), strict, convert
        self.names = {"prompt": prompt, "answer": answer, "difficulty": difficulty}
        self.skipped: list[str] = []
        """What was passed over, where not strict: row number and reason."""
        self._tasks: list[Task] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.path = beside(owner, self.path)

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __bool__(self) -> bool:
        return True

    def _read(self) -> list[Task]:
        if self._tasks is None:
            self._tasks = self._load()
        return self._tasks

    def _load(self) -> list[Task]:
        tasks, num_rows = [], 0
        try:
            for number, line in self._lines():
                num_rows += 1
                try:
                    tasks.append(self._task(line))
                except (ValueError, TypeError, KeyError) as error:
                    problem = f"{self.path}, row {number}: {error}"
                    if self.strict:
                        raise TaskFileError(problem) from None
                    self.skipped.append(problem)
        except OSError as error:
            raise TaskFileError(f"{self.path} cannot be read: {error.strerror}") from None
        if len(self.skipped) > _SKIPPED_SHARE * num_rows:
            raise TaskFileError(
                f"{len(self.skipped)} of {num_rows} rows are bad, more than 1 %; the first is {self.skipped[0]}"
            )
        if not tasks:
            raise TaskFileError(f"{self.path} holds no tasks: write one JSON object a line")
        return tasks

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line

    def _task(self, line: bytes) -> Task:
        if len(line) > _MAX_ROW:
            raise ValueError(f"the row has {len(line)} bytes; at most {_MAX_ROW}")
        try:
            row = read_json(line.decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"no UTF-8: {error.reason} at byte {error.start}") from None
        if not isinstance(row, dict):
            raise ValueError(f"a row is a JSON object, got {type(row).__name__}")
        _check_text(row)
        if self.convert is not None:
            return self.convert(row)
        names = self.names
        for needed in ("prompt", "answer"):
            if names[needed] not in row:
                raise ValueError(f"no field {names[needed]!r}; the row has {', '.join(row) or 'none'}")
        answer, difficulty = row[names["answer"]], row.get(names["difficulty"])
        if isinstance(answer, (dict, list)) or answer is None:
            raise ValueError(f"the answer must be text or a number, got {type(answer).__name__}")
        if difficulty is not None and (isinstance(difficulty, bool) or not isinstance(difficulty, (int, float))):
            raise ValueError(f"the difficulty must be a number, got {difficulty!r}")
        rest = {key: value for key, value in row.items() if key not in names.values()}
        return Task(task_from_prompt(row[names["prompt"]]), str(answer), difficulty=difficulty, metadata=rest)


def jsonl(path: str | Path, **options: Any) -> TaskFile:
    """The tasks of a JSONL file: `tasks = jsonl("wiki.jsonl", prompt="q", answer="a")`. Options are TaskFile's."""
    return TaskFile(path, **options)


def _check_text(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise ValueError("a text holds lone surrogates, which are no Unicode") from None
        elif isinstance(item, dict):
            waiting.extend([*item.keys(), *item.values()])
        elif isinstance(item, list):
            waiting.extend(item)
