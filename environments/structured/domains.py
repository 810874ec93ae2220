"""What a document can be about, as data: plain fields, a nested record, a list, a table, and the sentences that tell each.

`catalogue.py` holds six of them; `drafts.py` draws from one, and decides how much of it a level uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Source = tuple[Any, ...] | range | str
"""Where a value comes from: one of several, a whole number, or a pattern (`#` is a digit, `@` a letter, "date" a date)."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Scalar:
    """One plain field. `told` is a choice of sentences, by value where the value is not said itself."""

    name: str
    values: Source
    told: tuple[str, ...] | dict[Any, tuple[str, ...]]
    about: str = ""
    divide: int = 1
    optional: bool = False
    level: int = 1


@dataclass(frozen=True)
class Record:
    """A field with fields of its own, told in one sentence."""

    name: str
    fields: dict[str, Source]
    told: str


@dataclass(frozen=True)
class Words:
    """A list of texts."""

    name: str
    values: tuple[str, ...]
    told: str


@dataclass(frozen=True)
class Table:
    """A list of records, each told in a phrase; what is derived from a row, and from all rows."""

    name: str
    key: str
    fields: dict[str, Source]
    told: str
    told_in_other_units: str
    other_units: Callable[[Row], Row]
    extra: tuple[str, tuple[str, ...], str]
    """An optional column: its name, values, and how it is told."""
    derived: tuple[str, str, Callable[[Row], Any]]
    total: tuple[str, str, Callable[[list[Row]], Any]]
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Domain:
    name: str
    opening: tuple[str, ...]
    scalars: tuple[Scalar, ...]
    record: Record
    words: Words
    table: Table
    beside: tuple[str, ...]
    """Facts that belong to nothing asked for."""


def flag(name: str, yes: tuple[str, ...], no: tuple[str, ...], **options: Any) -> Scalar:
    return Scalar(name, (True, False), {True: yes, False: no}, **options)


def choice(name: str, told: dict[str, tuple[str, ...]], **options: Any) -> Scalar:
    return Scalar(name, tuple(told), told, level=2, **options)
