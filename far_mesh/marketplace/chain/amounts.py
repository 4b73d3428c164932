"""Units of the books (1e-9 FAR), wei of the token (1e-18 FAR), and how people see them."""

from __future__ import annotations

from decimal import Decimal

WEI_PER_UNIT = 10**9
UNITS_PER_FAR = 10**9


def units_to_wei(units: int) -> int:
    """Exact."""
    return units * WEI_PER_UNIT


def wei_to_units(wei: int) -> int:
    """Whole units in ``wei``; what is left over is less than one unit and stays on chain."""
    return wei // WEI_PER_UNIT


def wei_to_units_up(wei: int) -> int:
    """Like :func:`wei_to_units`, rounded up: for money that leaves, so that dust never becomes a balance."""
    return -(-wei // WEI_PER_UNIT)


def units_to_far(units: int) -> float:
    """For eyes and JSON only; the integer stands beside it wherever it is shown."""
    return float(Decimal(units).scaleb(-9))
