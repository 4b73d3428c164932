"""What was asked for in the last minute, entry by entry: a moving window of amounts.

An entry counts from when it was taken until a minute later, to the microsecond. So there is no minute in which more
than the limit was taken, and how long somebody has to wait is known exactly: until enough of the oldest entries are a
minute old. An entry's amount can be put right while it counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Protocol

PERIOD_US = 60_000_000
MOST_WINDOWS = 200_000


@dataclass(frozen=True)
class Share:
    """What one act takes of one window. ``amount`` is ``limit`` at most."""

    window: str
    limit: int
    amount: int = 1


@dataclass(frozen=True)
class Standing:
    """A window after an act. ``reset_us`` microseconds later nothing of it is taken any more, if nobody asks."""

    limit: int
    used: int
    reset_us: int

    @property
    def remaining(self) -> int:
        """What may still be taken now. The limit may have been higher when the rest was."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True)
class Verdict:
    """What came of an act. ``wait_us`` 0: it was counted in all its windows; else in none of them, and so many
    microseconds later it would be, if nobody else asks meanwhile."""

    wait_us: int
    standings: tuple[Standing, ...]


class Store(Protocol):
    """Keeps windows."""

    async def take(self, entry: str, shares: Sequence[Share]) -> Verdict:
        """Count an act that nobody else calls ``entry`` in all its windows, or in none."""

    async def put_right(self, entry: str, window: str, amount: int) -> None:
        """The entry turned out to be of this amount. One that does not count any more stays as it was."""


def monotonic_us() -> int:
    """Microseconds of a clock that never goes back."""
    return monotonic_ns() // 1000


@dataclass
class _Window:
    entries: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)
    used: int = 0

    def sweep(self, at: int) -> None:
        while self.entries:
            since, amount = next(iter(self.entries.values()))
            if at < since + PERIOD_US:
                return
            self.entries.popitem(last=False)
            self.used -= amount

    def wait(self, share: Share, at: int) -> int:
        missing = self.used + share.amount - share.limit
        if missing <= 0:
            return 0
        for since, amount in self.entries.values():
            missing -= amount
            if missing <= 0:
                return since + PERIOD_US - at
        raise ValueError("more is asked for than the whole limit")

    def ends(self) -> int:
        return next(reversed(self.entries.values()))[0] + PERIOD_US

    def standing(self, limit: int, at: int) -> Standing:
        return Standing(limit, self.used, self.ends() - at if self.entries else 0)


class Memory:
    """Windows of this process. Nothing in it waits, so nobody comes between."""

    def __init__(self, clock: Callable[[], int] = monotonic_us, most: int = MOST_WINDOWS) -> None:
        self.clock = clock
        self._most = most
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # the one that was taken from last is last

    async def take(self, entry: str, shares: Sequence[Share]) -> Verdict:
        """Count an act in all its windows, or in none."""
        at = self.clock()
        self._forget_old(at)
        windows = [self._windows.get(share.window) or _Window() for share in shares]
        for window in windows:
            window.sweep(at)
        wait = max((window.wait(share, at) for window, share in zip(windows, shares, strict=True)), default=0)
        if not wait:
            for window, share in zip(windows, shares, strict=True):
                window.entries[entry] = (at, share.amount)
                window.used += share.amount
                self._windows[share.window] = window
                self._windows.move_to_end(share.window)
        found = (window.standing(share.limit, at) for window, share in zip(windows, shares, strict=True))
        return Verdict(wait, tuple(found))

    async def put_right(self, entry: str, window: str, amount: int) -> None:
        """The entry turned out to be of this amount."""
        found = self._windows.get(window)
        if found is None or entry not in found.entries:
            return
        since, before = found.entries[entry]
        found.used += amount - before
        if amount:
            found.entries[entry] = (since, amount)
        else:
            del found.entries[entry]

    def __len__(self) -> int:
        return len(self._windows)

    def _forget_old(self, at: int) -> None:
        """Windows in which nothing counts any more, and beyond the bound those that were not taken from for longest."""
        while self._windows:
            name, window = next(iter(self._windows.items()))
            if window.entries and at < window.ends() and len(self._windows) < self._most:
                return
            del self._windows[name]
