"""Column arithmetic as pupils write it: one line of reasoning for each column, units first.

    47 + 85:   7+5=12 carry 1
               4+8+1=13          -> 132

`hasty` is the mistake of our imperfect demonstrators: they work the columns and announce the last one alone.
"""

from __future__ import annotations


def add(a: int, b: int) -> tuple[str, int]:
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
        total += (column % 10 if more else column) * place
        place *= 10
    return "\n".join(lines), total


def subtract(a: int, b: int) -> tuple[str, int]:
    """The lines and the result of a - b, both >= 0. Where b is larger, b - a is worked and the sign turned."""
    if b > a:
        lines, result = subtract(b, a)
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
        total += digit * place
        place *= 10
    return "\n".join(lines), total


def multiply(a: int, b: int) -> tuple[str, int]:
    """The lines and the result of a * b for a digit b."""
    lines, total, carry, place = [], 0, 0, 1
    while a or place == 1:
        a, x = divmod(a, 10)
        column = x * b + carry
        terms = f"{x}*{b}+{carry}" if carry else f"{x}*{b}"
        carry = column // 10 if a else 0
        lines.append(f"{terms}={column}" + (f" carry {carry}" if carry else ""))
        total += (column % 10 if a else column) * place
        place *= 10
    return "\n".join(lines), total


def hasty(reasoning: str) -> str:
    """What someone announces who looks at the last column only: 13 for the sum above."""
    return reasoning.removesuffix("\nnegative").rsplit("=", 1)[1]
