"""The bank: its tables, and worlds to fill them with: one customer who writes in, and others who must be left alone."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Row = list[Any]

SCHEMA = """
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, birth TEXT, tier TEXT, waived INTEGER);
CREATE TABLE accounts (id TEXT PRIMARY KEY, customer TEXT, label TEXT, cents INTEGER);
CREATE TABLE cards (id TEXT PRIMARY KEY, customer TEXT, kind TEXT, status TEXT, cash INTEGER, online INTEGER);
CREATE TABLE transactions (id TEXT PRIMARY KEY, account TEXT, date TEXT, text TEXT, cents INTEGER, kind TEXT);
CREATE TABLE codes (customer TEXT PRIMARY KEY);
CREATE TABLE identified (customer TEXT PRIMARY KEY);
CREATE TABLE replacements (card TEXT PRIMARY KEY, express INTEGER);
CREATE TABLE disputes (payment TEXT PRIMARY KEY, reason TEXT);
CREATE TABLE waivers (fee TEXT PRIMARY KEY);
CREATE TABLE pending (card TEXT, kind TEXT, amount INTEGER, PRIMARY KEY (card, kind));
CREATE TABLE documents (customer TEXT, kind TEXT, PRIMARY KEY (customer, kind));
CREATE TABLE transfers (source TEXT, target TEXT, cents INTEGER);
CREATE TABLE ticket (status TEXT, department TEXT, about TEXT);
"""

NAMES = (
    "Ines Falk",
    "Omar Said",
    "Yuki Mori",
    "Pavel Novak",
    "Amara Obi",
    "Lotte Brandt",
    "Diego Ruiz",
    "Priya Nair",
    "Soren Dahl",
    "Mei Tan",
    "Aino Laine",
    "Hugo Petit",
)
MERCHANTS = (
    "Kiosk Nord",
    "Tern Books",
    "Hotel Quay",
    "Bike Barn",
    "Cinema Lux",
    "Oak Pharmacy",
    "Volta Electronics",
    "Reed Travel",
    "Mill Bakery",
    "Glass & Co",
)
FEES = ("Card fee", "Late payment fee", "Cash abroad fee", "Statement fee", "Urgent transfer fee")
SAVINGS = ("Holiday savings", "Rainy day savings", "House savings", "Study savings")
CAPS = {"basic": 2000, "plus": 5000}
_MONTHS = "January February March April May June July August September October November December".split()


@dataclass
class Person:
    """A customer with all that is theirs, as rows of the tables."""

    id: str
    name: str
    birth: str
    tier: str
    accounts: list[Row] = field(default_factory=list)
    cards: list[Row] = field(default_factory=list)
    transactions: list[Row] = field(default_factory=list)
    waived: int = 0


class World:
    """Draws people and what they own. Ids are unlike each other and never depend on what an agent does."""

    def __init__(self, rng: np.random.Generator, level: int) -> None:
        self.rng, self.level = rng, level
        self.today = datetime.date(2026, 7, 1) + datetime.timedelta(int(rng.integers(180)))
        self._numbers = (rng.permutation(9000)[:120] + 1000).tolist()
        names = self.some(NAMES, 3)
        self.me = self.person(names[0])
        # A namesake makes the date of birth matter.
        others = names[1:2] if level == 1 else names[1:3] if level == 2 else [names[0], names[1]]
        self.people = [self.me, *(self.person(name) for name in others)]

    def person(self, name: str) -> Person:
        birth = datetime.date(1945, 1, 1) + datetime.timedelta(int(self.rng.integers(21_000)))
        found = Person(f"C{self.number()}", name, birth.isoformat(), self.one(("basic", "plus")))
        savings = self.some(SAVINGS, 1 if self.level == 1 else 2)
        for label in ("Current account", *savings):
            cents = int(self.rng.integers(40_000, 900_000))
            found.accounts.append([f"A{self.number()}", found.id, label, cents])
        for kind in ("debit", "credit"):
            cash, online = (100 * int(n) for n in self.rng.integers(5, 15, size=2))
            found.cards.append([f"K{self.number()}", found.id, kind, "active", cash, online])
        for text in self.some(MERCHANTS, 3 if self.level == 1 else 5):
            self.transaction(found, text, int(self.rng.integers(300, 40_000)))
        for text in self.some(FEES, 2):
            self.transaction(found, text, 50 * int(self.rng.integers(4, 60)), kind="fee")
        return found

    def transaction(
        self, person: Person, text: str, cents: int, *, days_ago: int | None = None, kind: str = "payment"
    ) -> Row:
        """A booking on the current account."""
        days = int(self.rng.integers(2, 55)) if days_ago is None else days_ago
        date = (self.today - datetime.timedelta(days)).isoformat()
        row = [f"T{self.number()}", person.accounts[0][0], date, text, cents, kind]
        person.transactions.append(row)
        return row

    def rows(self) -> dict[str, list[Row]]:
        """What the tables hold when the conversation begins."""
        people = self.people
        return {
            "customers": [[p.id, p.name, p.birth, p.tier, p.waived] for p in people],
            "accounts": [row for p in people for row in p.accounts],
            "cards": [row for p in people for row in p.cards],
            "transactions": [row for p in people for row in sorted(p.transactions, key=lambda row: (row[2], row[0]))],
        }

    def number(self) -> int:
        return self._numbers.pop()

    def one(self, of: Sequence[T]) -> T:
        return of[int(self.rng.integers(len(of)))]

    def some(self, of: Sequence[T], count: int) -> list[T]:
        return [of[i] for i in self.rng.permutation(len(of))[:count].tolist()]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def amount(self, low: int, high: int, step: int = 10) -> int:
        """A round amount in euros."""
        return step * int(self.rng.integers(low // step, high // step + 1))


def in_words(date: str) -> str:
    """4 March 1986."""
    day = datetime.date.fromisoformat(date)
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def euros(cents: int) -> str:
    return f"{cents / 100:.2f}"
