"""Column arithmetic as pupils write it: one line of reasoning for each column, units first.

    47 + 85:   7+5=12 carry 1
               4+8+1=13          -> 132

`slip` makes the imperfect demonstrator: a pupil who, with that probability, forgets a carry (or a borrow).
"""

from __future__ import annotations

import numpy as np


class Slip:
    """Whether the carry of a column is forgotten: never for the oracle, sometimes for the demonstrator."""

    def __init__(self, probability: float = 0.0, rng: np.random.Generator | None = None) -> None:
        if probability and rng is None:
            raise ValueError("a slip with a probability needs a random generator")
        self.probability, self.rng = probability, rng

    def __call__(self) -> bool:
        return self.rng is not None and self.rng.random() < self.probability


NEVER = Slip()


def add(a: int, b: int, slip: Slip = NEVER) -> tuple[str, int]:
    """The lines and the result of a + b, both >= 0."""
    lines, total, carry, place = [], 0, 0, 1
    while a or b or place == 1:
        a, x = divmod(a, 10)
        b, y = divmod(b, 10)
        column = x + y + carry
        terms = f"{x}+{y}+1" if carry else f"{x}+{y}"
        more = bool(a or b)
        carry = int(column >= 10 and more)
        lines.append(f"{terms}={column}" + (f" carry {carry}" if carry else ""))
        if carry and slip():
            carry = 0
        total += (column % 10 if more else column) * place
        place *= 10
    return "\n".join(lines), total


def subtract(a: int, b: int, slip: Slip = NEVER) -> tuple[str, int]:
    """The lines and the result of a - b, both >= 0. Where b is larger, b - a is worked and the sign turned."""
    if b > a:
        lines, result = subtract(b, a, slip)
        return f"{lines}\nnegative", -result
    lines, total, borrow, place = [], 0, 0, 1
    while a or b or place == 1:
        a, x = divmod(a, 10)
        b, y = divmod(b, 10)
        lend = int(x - y - borrow < 0 and a > 0)
        top = x + 10 * lend
        digit = top - y - borrow
        terms = f"{top}-{y}-1" if borrow else f"{top}-{y}"
        lines.append(f"{terms}={digit}" + (" borrow 1" if lend else ""))
        borrow = lend
        if borrow and slip():
            borrow = 0
        total += digit * place
        place *= 10
    return "\n".join(lines), total


def multiply(a: int, b: int, slip: Slip = NEVER) -> tuple[str, int]:
    """The lines and the result of a * b for a digit b."""
    lines, total, carry, place = [], 0, 0, 1
    while a or place == 1:
        a, x = divmod(a, 10)
        column = x * b + carry
        terms = f"{x}*{b}+{carry}" if carry else f"{x}*{b}"
        carry = column // 10 if a else 0
        lines.append(f"{terms}={column}" + (f" carry {carry}" if carry else ""))
        if carry and slip():
            carry = 0
        total += (column % 10 if a else column) * place
        place *= 10
    return "\n".join(lines), total
