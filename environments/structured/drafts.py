"""Drafts: a document, its schema and the prose that tells it, drawn together so that they cannot disagree.

level 1   two or three plain fields, or a table of two rows and two columns (CSV)
level 2   a choice, what may be left out, nested records, lists; dates in words
level 3   tables that are sorted, derived and added up; other units; corrections, withdrawn entries, facts of no use
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .catalogue import CITIES, DOMAINS, PEOPLE
from .domains import Domain, Record, Scalar, Source, Table, Words

T = TypeVar("T")
Schema = dict[str, Any]
_MONTHS = "January February March April May June July August September October November December".split()


@dataclass(frozen=True)
class Draft:
    root: str
    value: Any
    schema: Schema
    prose: str


@dataclass(frozen=True)
class Part:
    """A field of the document. A value of None is one that is left out."""

    name: str
    value: Any
    schema: Schema
    told: str
    required: bool = True


class Drafter:
    """Draws drafts of one level from one random stream."""

    def __init__(self, rng: np.random.Generator, level: int) -> None:
        self.rng, self.level = rng, level

    def draft(self, *, table_only: bool = False) -> Draft:
        """A document about one of the domains; `table_only` where a format holds nothing but rows."""
        domain = self.one(DOMAINS)
        if table_only:
            part, _ = self.table(domain.table)
            return Draft(domain.name, part.value, part.schema, self.prose(domain, [part.told]))
        parts = self.parts(domain)
        value = {part.name: part.value for part in parts if part.value is not None}
        told = [parts[i].told for i in self.rng.permutation(len(parts)).tolist() if parts[i].told]
        return Draft(domain.name, value, _object(parts), self.prose(domain, told))

    def parts(self, domain: Domain) -> list[Part]:
        known = [scalar for scalar in domain.scalars if scalar.level <= self.level]
        count = int(self.rng.integers(2, 4)) if self.level < 3 else 2
        chosen = sorted(self.rng.permutation(len(known))[:count].tolist())
        parts = [self.scalar(known[i]) for i in chosen]
        if self.level == 1:
            return parts
        nested = [self.record(domain.record), self.words(domain.words)]
        if self.level == 2 and self.rng.random() < 0.5:
            return parts + nested
        table, total = self.table(domain.table)
        parts += [self.one(nested), table]
        return [*parts, total] if self.level == 3 else parts

    def scalar(self, scalar: Scalar) -> Part:
        if scalar.optional and self.rng.random() < 0.5:
            return Part(scalar.name, None, {"type": "string", "description": "only if told"}, "", required=False)
        value, said = self.value(scalar.values, scalar.divide)
        schema = _typed(value, scalar.about or ("only if told" if scalar.optional else ""))
        if isinstance(scalar.told, dict) and isinstance(value, str):
            schema = {"enum": list(scalar.values)}
        told = self.tell(scalar, value, said)
        if self.level == 3 and not scalar.optional and self.rng.random() < 0.4:
            other, other_said = self.value(scalar.values, scalar.divide)
            if other != value:
                correction = self.one(("Correction:", "No, that is wrong:", "That has changed:"))
                truth = told if told.startswith(said) else told[0].lower() + told[1:]
                told = f"{self.tell(scalar, other, other_said)} {correction} {truth}"
        return Part(scalar.name, value, schema, told, required=not scalar.optional)

    def tell(self, scalar: Scalar, value: Any, said: str) -> str:
        sentences = scalar.told[value] if isinstance(scalar.told, dict) else scalar.told
        return self.one(sentences).format(v=said)

    def record(self, record: Record) -> Part:
        drawn = {name: self.value(source) for name, source in record.fields.items()}
        parts = [Part(name, value, _typed(value), "") for name, (value, _) in drawn.items()]
        told = record.told.format_map({name: said for name, (_, said) in drawn.items()})
        return Part(record.name, {name: value for name, (value, _) in drawn.items()}, _object(parts), told)

    def words(self, words: Words) -> Part:
        chosen = self.some(words.values, int(self.rng.integers(1, 4)))
        told = words.told.format(v=_listed(chosen))
        schema = {"type": "array", "items": {"type": "string"}, "description": "in the order told"}
        if self.level == 3:
            chosen, schema["description"] = sorted(chosen), "from A to Z"
        return Part(words.name, chosen, schema, told)

    def table(self, table: Table) -> tuple[Part, Part]:
        """The rows, and what is derived from all of them."""
        count = 2 if self.level == 1 else int(self.rng.integers(2, 5))
        keys = self.some(table.fields[table.key], count + 1)  # type: ignore[arg-type]
        gone = int(self.rng.integers(count)) if self.level == 3 and self.rng.random() < 0.5 else count
        extras = (self.rng.random(count + 1) < 0.4).tolist()
        extras[0 if gone else 1] = True  # the optional column is never idle, so its place can be seen
        drawn = [self.row(table, key, extra and self.level > 1) for key, extra in zip(keys, extras, strict=True)]
        told = "; ".join(phrase for _, phrase in (drawn if gone < count else drawn[:count]))
        told = f"The {table.name} are: {told}."
        if gone < count:
            told += f" The entry with {table.key} {keys[gone]} has been withdrawn."
        fields = dict(list(table.fields.items())[: 2 if self.level == 1 else None])
        shown = (*fields, table.extra[0])
        kept = [row for i, (row, _) in enumerate(drawn) if i != gone]
        rows = [{name: row[name] for name in shown if name in row} for row in kept]
        parts = [Part(name, None, _typed(rows[0][name], table.about.get(name, "")), "") for name in fields]
        if self.level > 1:
            parts.append(
                Part(table.extra[0], None, {"type": "string", "description": "only if told"}, "", required=False)
            )
        order = "in the order told"
        if self.level == 3:
            name, about, derive = table.derived
            rows = [{**row, name: derive(row)} for row in sorted(rows, key=lambda row: row[table.key])]
            parts.append(Part(name, None, _typed(rows[0][name], about), ""))
            order = f"by {table.key}, ascending"
        name, about, derive_all = table.total
        total = derive_all(rows) if self.level == 3 else None
        schema = {"type": "array", "items": _object(parts), "description": order}
        return Part(table.name, rows, schema, told), Part(name, total, {"type": "integer", "description": about}, "")

    def row(self, table: Table, key: Any, extra: bool) -> tuple[dict[str, Any], str]:
        row = {name: key if name == table.key else self.value(source)[0] for name, source in table.fields.items()}
        phrase = table.told.format_map(row)
        if self.level == 3:
            phrase = table.told_in_other_units.format_map({**row, **table.other_units(row)})
        if extra:
            name, values, suffix = table.extra
            row[name] = self.one(values)
            phrase += suffix.format(v=row[name])
        return row, phrase

    def prose(self, domain: Domain, told: Sequence[str]) -> str:
        sentences = [self.one(domain.opening), *told]
        if self.level == 3:
            fact = self.one(domain.beside).format(
                n=int(self.rng.integers(20, 2000)), person=self.one(PEOPLE), city=self.one(CITIES)
            )
            sentences.insert(int(self.rng.integers(1, len(sentences) + 1)), fact)
        return " ".join(sentences)

    def value(self, source: Source, divide: int = 1) -> tuple[Any, str]:
        """A value, and how it is said."""
        if source == "date":
            date = datetime.date(2024, 1, 1) + datetime.timedelta(int(self.rng.integers(1500)))
            said = date.isoformat() if self.level == 1 else f"{date.day} {_MONTHS[date.month - 1]} {date.year}"
            return date.isoformat(), said
        if isinstance(source, str):
            text = "".join(
                str(self.rng.integers(10)) if c == "#" else chr(65 + int(self.rng.integers(26))) if c == "@" else c
                for c in source
            )
            return text, text
        value = self.one(source)
        while divide > 1 and value % divide == 0:  # 3.0 would leave open whether 3 is the same
            value = self.one(source)
        value = value / divide if divide > 1 else value
        return value, str(value)

    def one(self, of: Sequence[T]) -> T:
        return of[int(self.rng.integers(len(of)))]

    def some(self, of: Sequence[T], count: int) -> list[T]:
        return [of[i] for i in self.rng.permutation(len(of))[:count].tolist()]


def _typed(value: Any, about: str = "") -> Schema:
    kind = {bool: "boolean", int: "integer", float: "number", str: "string"}[type(value)]
    return {"type": kind, "description": about} if about else {"type": kind}


def _object(parts: Sequence[Part]) -> Schema:
    return {
        "type": "object",
        "properties": {part.name: part.schema for part in parts},
        "required": [part.name for part in parts if part.required],
        "additionalProperties": False,
    }


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
