"""The nearest guess for a name that does not exist: one wording for every error message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or the list of what is known where nothing is near."""
    known = sorted(known)
    lower = {k.lower(): k for k in reversed(known)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {lower[close[0]]!r}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"Known: {shown}." if known else "None are known."
