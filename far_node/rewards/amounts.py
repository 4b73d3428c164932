"""Units of the books (1e-9 FAR), wei of the token (1e-18 FAR), and how people read them."""

from __future__ import annotations

WEI_PER_UNIT = 10**9
UNITS_PER_FAR = 10**9


def far(units: int) -> str:
    """Exactly, with nine decimals: ``12.000000001 FAR``."""
    whole, rest = divmod(units, UNITS_PER_FAR)
    return f"{whole:,}.{rest:09d} FAR"
