"""Mathematical equality of answers by math-verify, always in a process that can be killed: its parser evaluates.

    same_math("$\\\\frac{1}{2}$", "0.5") -> True        1,000 right answers written otherwise, and no list of guesses

Answers whose evaluation would be enormous (towers of powers, factorials of large numbers) are refused before they get there:
they earn nothing. What is late all the same is a fault of the grader, never a zero.
"""

from __future__ import annotations

import re

from ..sandbox import Pool

_CHECK = f"{__name__}:check"
_MAX_CHARS = 1_000
_ENORMOUS = re.compile(r"(?:\^|\*\*)\s*[({]?\s*\d{4,}|(?:\^|\*\*)[^+\-=,]{0,20}(?:\^|\*\*)|\d{3,}\s*!|\d{60,}")
_pool: Pool | None = None


async def same_math(answer: str, reference: str, *, timeout_s: float = 5.0) -> bool:
    """Whether both texts are the same mathematical object. EnvironmentFault where the grader was late or died."""
    if not gradable(answer):
        return False
    return bool(await _workers().acall(_CHECK, answer, reference, timeout_s=timeout_s))


def same_math_now(answer: str, reference: str, *, timeout_s: float = 5.0) -> bool:
    """`same_math`, for callers without an event loop."""
    return gradable(answer) and bool(_workers().call(_CHECK, answer, reference, timeout_s=timeout_s))


def gradable(answer: str) -> bool:
    """Whether an answer may be given to the parser at all."""
    return 0 < len(answer.strip()) <= _MAX_CHARS and _ENORMOUS.search(answer) is None


def check(answer: str, reference: str) -> bool:
    """In the child: parse both and compare."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    # The process is killed when it is late, so math-verify's own alarms stay off.
    reading = (LatexExtractionConfig(), ExprExtractionConfig())
    gold = parse(_delimited(reference), reading, parsing_timeout=None)  # type: ignore[arg-type]
    given = parse(_delimited(answer), reading, parsing_timeout=None)  # type: ignore[arg-type]
    return bool(given) and bool(verify(gold, given, timeout_seconds=None))


def _delimited(text: str) -> str:
    text = text.strip()
    return text if "$" in text or "\\boxed" in text or "\\(" in text else f"${text}$"


def _workers() -> Pool:
    global _pool
    _pool = _pool or Pool([_CHECK])
    return _pool
