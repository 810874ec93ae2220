"""Exact comparison of numbers."""

import pytest

from swannery.rewards import same_number


@pytest.mark.parametrize(
    ("answer", "reference"), [("12", "12"), (" 1,234. ", "1234"), ("+5", "5"), ("-3.50", "-3.5"), ("007", "7")]
)
def test_the_same_number_in_another_dress(answer: str, reference: str) -> None:
    assert same_number(answer, reference)


@pytest.mark.parametrize(
    "answer", ["", "13", "12 or 13", "about 12", "1e1", "１２", "0x0c", "12; 13", "1,2", "9" * 50, "nan", "--12"]
)
def test_what_is_no_plain_number_or_another_one(answer: str) -> None:
    assert not same_number(answer, "12")
