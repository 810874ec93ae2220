"""Exact comparison of numbers written as text."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?")


def same_number(answer: str, reference: str) -> bool:
    """Whether both texts are the same decimal number; thousands separators and a final full stop are tolerated.

    Anything but one plain number ("about 12", "12 or 13", "1e9") is no number, so a list of guesses earns nothing.
    """
    given, wanted = _read(answer), _read(reference)
    return given is not None and given == wanted


def _read(text: str) -> Decimal | None:
    text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text.strip()).removesuffix(".")
    return Decimal(text) if _NUMBER.fullmatch(text) and text.isascii() else None
