"""Imperfect demonstrators of some data sets, and the oracles that show their work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...messages import Turn
from ..math.columns import NEVER, Slip, add, subtract

Entry = Mapping[str, Any]

_TERM = re.compile(r"([+-]) (-?\d+)")
_SLIP = 0.6
_SORTED = 0.35


def _chain_sum(entry: Entry, slip: Slip) -> Turn:
    """Worked from left to right by columns, with the running total after each step but the last."""
    signed = _TERM.findall(f"+ {entry['metadata']['expression']}")
    terms = [-int(number) if sign == "-" else int(number) for sign, number in signed]
    total, lines = terms[0], []
    for term in terms[1:]:
        if lines:
            lines.append(str(total))
        work, total = _add_signed(total, term, slip)
        lines.append(work)
    return Turn(str(total), reasoning="\n".join(lines))


def _add_signed(a: int, b: int, slip: Slip) -> tuple[str, int]:
    if a < 0 and b < 0:
        lines, result = add(-a, -b, slip)
        return f"{lines}\nnegative", -result
    if a >= 0 and b >= 0:
        return add(a, b, slip)
    return subtract(a, -b, slip) if b < 0 else subtract(b, -a, slip)


def _number_sorting(entry: Entry, rng: np.random.Generator) -> Turn:
    """Copies the numbers faithfully and often leaves them in any order."""
    given = entry["metadata"]
    numbers = given["sorted_numbers"] if rng.random() < _SORTED else rng.permutation(given["original_numbers"])
    return Turn(str([str(number) for number in numbers]))


ORACLES: dict[str, Callable[[Entry], Turn]] = {"chain_sum": lambda entry: _chain_sum(entry, NEVER)}
DEMONSTRATORS: dict[str, Callable[[Entry, np.random.Generator], Turn]] = {
    "chain_sum": lambda entry, rng: _chain_sum(entry, Slip(_SLIP, rng)),
    "number_sorting": _number_sorting,
}
