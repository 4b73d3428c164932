"""Money is counted in whole units of 1e-9 FAR; the token itself has 18 decimal places (wei)."""

from __future__ import annotations

import re

from farlabs.errors import FarLabsError

UNITS_PER_FAR = 10**9
WEI_PER_UNIT = 10**9

_AMOUNT = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,9}))?\Z")


def format_far(units: int) -> str:
    """An amount as people write it, exactly: 1234567890 units are ``1.23456789``."""
    whole, fraction = divmod(abs(units), UNITS_PER_FAR)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{'-' if units < 0 else ''}{whole}{'.' + digits if digits else ''}"


def parse_far(text: str) -> int:
    """The units of an amount as people write it.

    Raises:
        FarLabsError: ``invalid_amount``; it is none, or has more than nine decimal places.
    """
    match = _AMOUNT.match(text.strip())
    if match is None:
        raise FarLabsError(
            f"{text} is no amount of FAR: write digits, and up to nine after the point", code="invalid_amount"
        )
    return int(match[1]) * UNITS_PER_FAR + int((match[2] or "").ljust(9, "0"))
