"""Mathematical equality, graded in a process that is killed when it is late."""

import asyncio
import time

import pytest

from swannery.environments import EnvironmentFault
from swannery.rewards import same_math
from swannery.rewards.math import gradable, same_math_now


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("$x^2-1$", "(x-1)(x+1)", True),
        ("sqrt(8)", r"2\sqrt{2}", True),
        (r"\boxed{42}", "42", True),
        ("3", "4", False),
        ("1 2 3", "2", False),
        ("", "3", False),
        ("I do not know", "3", False),
        ("__import__('os').getpid()", "1", False),
    ],
)
def test_equal_is_what_is_equal_mathematically(answer: str, reference: str, same: bool) -> None:
    assert same_math_now(answer, reference) is same


def test_it_can_be_awaited() -> None:
    assert asyncio.run(same_math("1/3", r"\frac{1}{3}"))


@pytest.mark.parametrize("answer", ["9^9^9", "2**99999", "10^{10^{10}}", "1000!", "x" * 2_000, "9" * 80])
def test_what_would_take_forever_is_refused_before_it_is_read(answer: str) -> None:
    start = time.monotonic()
    assert not gradable(answer) and not same_math_now(answer, "3") and time.monotonic() - start < 1


def test_a_grader_that_is_late_is_a_fault() -> None:
    same_math_now("1", "1")
    with pytest.raises(EnvironmentFault) as caught:
        same_math_now("(x+y+z)^{999}", "(x+y+z+1)^{998}", timeout_s=0.3)
    assert caught.value.kind == "grader_timeout"
    assert same_math_now("1", "1")  # the next call has a worker again
