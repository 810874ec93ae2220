"""Declared state: what an episode may change, so that it can be hashed, taken back, branched and compared.

    cart = State.dict({"items": []})          a JSON-like dict
    db = State.sqlite("CREATE TABLE ...")     a database in memory, from an SQL script or a .sql file

Each episode begins with a fresh copy. Both kinds know `snapshot`, `restore`, `hash` and `branch`. Databases are copied page by
page, 0.1 ms a megabyte; dicts container by container, 0.4 us each: keep thousands of records in a database.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

ATOMS = frozenset({str, int, float, bool, type(None), bytes})


class Restorable(Protocol):
    """What a state can do."""

    def snapshot(self) -> Any: ...
    def restore(self, snapshot: Any) -> None: ...
    def hash(self) -> str: ...
    def branch(self) -> Any: ...


S = TypeVar("S", bound=Restorable)


class State(Generic[S]):
    """The declaration in a class body; an instance sees its episode's own copy."""

    def __init__(self, blank: S) -> None:
        self.blank = blank
        self.first = blank.snapshot()
        self.name = ""

    @staticmethod
    def dict(initial: Mapping[str, Any] | None = None) -> State[DictState]:
        """A dict of JSON-like values."""
        return State(DictState(initial or {}))

    @staticmethod
    def sqlite(script: str | Path) -> State[SQLite]:
        """A database in memory. `script` is SQL, or the path of a .sql file."""
        path = Path(script) if isinstance(script, Path) or str(script).strip().endswith(".sql") else None
        return State(SQLite(path.read_text() if path else str(script)))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, env: None, owner: Any) -> State[S]: ...
    @overload
    def __get__(self, env: object, owner: Any) -> S: ...
    def __get__(self, env: Any, owner: Any = None) -> Any:
        if env is None:
            return self
        return env.states[self.name]

    def __set__(self, env: Any, value: Any) -> None:
        raise AttributeError(f"{self.name} is declared state: change its contents, as in self.{self.name}[...] = ...")


class DictState(dict[str, Any]):
    """A dict of JSON-like values: text, numbers, bools, None, bytes, lists and dicts of them."""

    def snapshot(self) -> dict[str, Any]:
        return copied(dict(self))

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        fresh = copied(dict(snapshot))
        self.clear()
        self.update(fresh)

    def hash(self) -> str:
        """Of the canonical JSON: the same in every process."""
        text = json.dumps(self, sort_keys=True, ensure_ascii=True, default=_bytes_as_text)
        return hashlib.sha256(text.encode()).hexdigest()

    def branch(self) -> DictState:
        twin = DictState()
        twin.restore(self)
        return twin


def copied(value: Any) -> Any:
    """A copy of a JSON-like value that shares no container. TypeError on anything else."""
    kind = value.__class__
    if kind in ATOMS:
        return value
    if kind is dict:
        twin = value.copy()  # in C; then only what is inside is replaced
        for key, inner in value.items():
            if inner.__class__ not in ATOMS:
                twin[key] = copied(inner)
        return twin
    if kind is list:
        twin = value.copy()
        for index, inner in enumerate(value):
            if inner.__class__ not in ATOMS:
                twin[index] = copied(inner)
        return twin
    if kind is DictState:
        return copied(dict(value))
    if kind is tuple:
        return tuple([v if v.__class__ in ATOMS else copied(v) for v in value])
    raise TypeError(f"State.dict holds text, numbers, bools, None, bytes, lists and dicts, got {kind.__name__}")


def _bytes_as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"State.dict holds text, numbers, bools, None, bytes, lists and dicts, got {type(value).__name__}")


_FORBIDDEN = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}


class SQLite:
    """A database in memory with three verbs: `rows`, `row`, `run`. Parameters are always bound, never pasted."""

    def __init__(self, script: str = "") -> None:
        self._open()
        try:
            self._db.executescript(script)
        except sqlite3.Error as error:
            raise ValueError(f"State.sqlite: the script fails: {error}") from None

    def _open(self) -> None:
        # Tools may run in a thread of their own; the episode calls one after the other.
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.row_factory = _as_dict
        self._db.set_authorizer(_authorize)

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """All rows of a query, as dicts."""
        return self._db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> dict[str, Any] | None:
        """The first row of a query, or None."""
        return self._db.execute(sql, values).fetchone()

    def run(self, sql: str, *values: Any) -> int:
        """Carry a statement out; the number of rows that it changed."""
        return self._db.execute(sql, values).rowcount

    def fill(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert many rows, each with a value for every column."""
        rows = list(rows)
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._db.execute("BEGIN")
            self._db.executemany(f'INSERT INTO "{table}" VALUES ({places})', rows)
            self._db.execute("COMMIT")

    @property
    def tables(self) -> list[str]:
        names = self.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return sorted(row["name"] for row in names)

    def snapshot(self) -> bytes:
        return self._db.serialize()

    def restore(self, snapshot: bytes) -> None:
        self._db.set_authorizer(None)  # SQLite attaches the image it is given
        self._db.deserialize(snapshot)
        self._db.set_authorizer(_authorize)

    def hash(self) -> str:
        """Of the contents: each table as a multiset of its rows, so the order of insertions does not count."""
        digest = hashlib.sha256()
        for table in self.tables:
            cursor = self._db.cursor()
            cursor.row_factory = None
            rows = sorted(map(repr, cursor.execute(f'SELECT * FROM "{table}"')))
            digest.update(f"{table}\x1e{len(rows)}\x1e".encode())
            digest.update("\x1f".join(rows).encode())
        return digest.hexdigest()

    def branch(self) -> SQLite:
        twin = SQLite()
        twin.restore(self.snapshot())
        return twin

    def close(self) -> None:
        self._db.close()

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()

    def __deepcopy__(self, memo: Any) -> SQLite:
        return self.branch()


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def _authorize(action: int, *_: Any) -> int:
    """No other database can be reached, and so no file."""
    return sqlite3.SQLITE_DENY if action in _FORBIDDEN else sqlite3.SQLITE_OK


def beside(owner: type, path: str | Path) -> Path:
    """A path as the author of a class means it: relative to the file that holds the class."""
    path = Path(path)
    module = sys.modules.get(owner.__module__)
    file = getattr(module, "__file__", None)
    return path if path.is_absolute() or path.exists() or file is None else Path(file).parent / path
