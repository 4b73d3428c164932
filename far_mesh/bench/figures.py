"""Times of answers made into figures. Pure; times in seconds, figures in milliseconds where their name says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from far_mesh.trace import Trace

_MS = 1000.0
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Timed:
    """One answer: when its session was open and when each of its tokens came, since it was asked for."""

    opened: float
    arrivals: tuple[float, ...]
    token_ids: tuple[int, ...]
    trace: Trace
    is_proven: bool

    @property
    def first(self) -> float | None:
        """Until the first token came."""
        return self.arrivals[0] if self.arrivals else None

    @property
    def gaps(self) -> list[float]:
        """Between one token and the next."""
        return [after - before for before, after in pairwise(self.arrivals)]

    @property
    def tokens_per_second(self) -> float | None:
        """After the first token; None where there are none."""
        seconds = self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        return (len(self.arrivals) - 1) / seconds if seconds > 0 else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that ``percent`` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def spread_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    """Percentiles, mean and extremes in milliseconds; None of nothing."""
    if not seconds:
        return None
    figures = {f"p{percent}": percentile(seconds, percent) for percent in _PERCENTILES}
    whole = {"min": min(seconds), **figures, "max": max(seconds), "mean": sum(seconds) / len(seconds)}
    return {name: round(value * _MS, 3) for name, value in whole.items()}


def longest_pause(arrivals: Sequence[float], since: float) -> float | None:
    """The longest wait for a token that came after ``since``; the first of them is waited for from then on."""
    after = [since, *(arrival for arrival in arrivals if arrival > since)]
    return max((later - earlier for earlier, later in pairwise(after)), default=None)


def of(values: Sequence[float], percent: float = 50) -> float | None:
    """A percentile, rounded; None of nothing."""
    return round(percentile(values, percent), 3) if values else None


def speeds(answers: Sequence[Timed]) -> list[float]:
    """Tokens per second of those that have more than one."""
    return [speed for answer in answers if (speed := answer.tokens_per_second) is not None]


def share(part: int, whole: int) -> float | None:
    """A part of a whole from 0 to 1."""
    return round(part / whole, 4) if whole else None


Facts = dict[str, Any]
