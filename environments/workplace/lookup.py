"""What the tools of all five databases share: finding one row, finding many, and ids for what is new."""

from __future__ import annotations

import zlib
from typing import Any

from ..state import SQLite
from ..tool import ToolError

Row = dict[str, Any]
MOST = 10
"""Rows that a search shows; it always tells how many there are."""
LONGEST = 2000


def one(db: SQLite, table: str, what: str, number: str) -> Row:
    """The row with an id. `table` comes from our own code only."""
    row = db.row(f"SELECT * FROM {table} WHERE id = ?", number.strip())
    if row is None:
        raise ToolError(f"there is no {what} {number[:40]!r}")
    return row


def shown(rows: list[Row]) -> Row:
    """A search's answer."""
    return {"found": len(rows), "results": rows[:MOST]}


def matches(query: str, *texts: str) -> bool:
    """Whether all words of a query occur, in whatever case and order."""
    text = " ".join(texts).casefold()
    return all(word in text for word in query.casefold().split())


def told(text: str, what: str) -> str:
    """A text that will be kept."""
    text = text.strip()
    if not text:
        raise ToolError(f"{what} is empty")
    if len(text) > LONGEST:
        raise ToolError(f"{what} has {len(text)} characters; {LONGEST} are the most")
    return text


def new_id(db: SQLite, table: str, prefix: str, name: str) -> str:
    """An id that follows from what is made, so that the order of actions leaves no trace."""
    number = zlib.crc32(name.casefold().encode()) % 9000
    while db.row(f"SELECT 1 FROM {table} WHERE id = ?", f"{prefix}{1000 + number}"):
        number = (number + 1) % 9000
    return f"{prefix}{1000 + number}"


def address(text: str) -> str:
    """Something like an email address, in lower case."""
    text = text.strip().lower()
    local, _, domain = text.partition("@")
    if not local or "." not in domain or any(c.isspace() or c in ",;<>" for c in text) or len(text) > 200:
        raise ToolError(
            f"an address looks like name@company.example, got {text[:60]!r}: find_person knows those of the company"
        )
    return text
