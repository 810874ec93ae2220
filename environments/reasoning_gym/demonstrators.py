"""Imperfect demonstrators of some data sets, and the oracles that show their work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...messages import Turn
from ..math.columns import add, hasty, subtract

Entry = Mapping[str, Any]

_TERM = re.compile(r"([+-]) (-?\d+)")
_HASTE = 0.6
_UNSORTED = 0.6


def _chain_sum(entry: Entry) -> Turn:
    """Worked from left to right by columns, with the running total after each step but the last."""
    signed = _TERM.findall(f"+ {entry['metadata']['expression']}")
    terms = [-int(number) if sign == "-" else int(number) for sign, number in signed]
    total, lines = terms[0], []
    for term in terms[1:]:
        if lines:
            lines.append(str(total))
        work, total = _add_signed(total, term)
        lines.append(work)
    return Turn(str(total), reasoning="\n".join(lines))


def _add_signed(a: int, b: int) -> tuple[str, int]:
    if a < 0 and b < 0:
        lines, result = add(-a, -b)
        return f"{lines}\nnegative", -result
    if a >= 0 and b >= 0:
        return add(a, b)
    return subtract(a, -b) if b < 0 else subtract(b, -a)


def _hasty_chain_sum(entry: Entry, rng: np.random.Generator) -> Turn:
    """Works the columns rightly and mostly announces the last one alone."""
    turn = _chain_sum(entry)
    return Turn(hasty(turn.reasoning or ""), reasoning=turn.reasoning) if rng.random() < _HASTE else turn


def _lazy_number_sorting(entry: Entry, rng: np.random.Generator) -> Turn:
    """Copies the numbers faithfully and mostly leaves them in the order they came in."""
    given = entry["metadata"]
    numbers = given["original_numbers"] if rng.random() < _UNSORTED else given["sorted_numbers"]
    return Turn(str([str(number) for number in numbers]))


ORACLES: dict[str, Callable[[Entry], Turn]] = {"chain_sum": _chain_sum}
DEMONSTRATORS: dict[str, Callable[[Entry, np.random.Generator], Turn]] = {
    "chain_sum": _hasty_chain_sum,
    "number_sorting": _lazy_number_sorting,
}
