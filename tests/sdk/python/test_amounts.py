"""Amounts are exact both ways."""

from __future__ import annotations

import pytest
from farlabs import FarLabsError, format_far, parse_far
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_234_567_890, "1.23456789"),
        (10**9, "1"),
        (-15 * 10**8, "-1.5"),
        (10**18, str(10**9)),
    ],
)
def test_amounts_are_written_as_people_write_them(units: int, text: str) -> None:
    assert format_far(units) == text


@given(st.integers(0, 10**38))
def test_what_is_written_is_read_as_the_same(units: int) -> None:
    assert parse_far(format_far(units)) == units


@pytest.mark.parametrize("text", ["", ".", "1.", ".5", "-1", "1e3", "1,5", "0.0000000001", "١", "1 2", "0x1"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(FarLabsError) as wrong:
        parse_far(text)
    assert wrong.value.code == "invalid_amount"
