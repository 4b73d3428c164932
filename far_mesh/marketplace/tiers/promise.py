"""What a tier promises of the time between tokens: measured, judged, and made up for. Pure.

Measured is how long we waited for the mesh with nothing else to do: the time between two tokens of a text without what
its reader, or a voucher that was missing, held us up. The first token of each text is apart: it has its prompt before
it. Of these times the 95th percentile is taken by nearest rank, in whole milliseconds, rounded up.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from far_mesh.marketplace.ledger.split import BPS

PERCENTILE = 95

T = TypeVar("T")


class TokenTimes:
    """The times between tokens of one request. ``now``: a steady clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waited = 0.0
        self._last: dict[int, float] = {}
        self._between: list[float] = []

    async def wait_for(self, items: AsyncIterator[T]) -> T | None:
        """The next of ``items``, or None after the last; what it took counts."""
        began = self._now()
        try:
            return await anext(items, None)
        finally:
            self._waited += self._now() - began

    def came(self, text: int) -> None:
        """What was waited for was a token of the text with this number."""
        last = self._last.get(text)
        if last is not None:
            self._between.append(self._waited - last)
        self._last[text] = self._waited

    @property
    def p95_ms(self) -> int | None:
        """None: no text had two tokens."""
        return percentile_ms(self._between) if self._between else None


def percentile_ms(seconds: Sequence[float]) -> int:
    """The 95th percentile of at least one time, by nearest rank, in milliseconds, rounded up."""
    rank = -(-len(seconds) * PERCENTILE // 100)
    return math.ceil(round(sorted(seconds)[rank - 1] * 1000, 3))


def is_met(promised_ms: int | None, p95_ms: int | None) -> bool | None:
    """Whether a promise was kept. None: there was none, or nothing to measure."""
    return None if promised_ms is None or p95_ms is None else p95_ms <= promised_ms


def credit_for(cost: int, fee: int, credit_bps: int) -> int:
    """What a request that missed its promise gives back, in units: a part of its cost, at most the platform's fee."""
    return min(fee, cost * credit_bps // BPS)
