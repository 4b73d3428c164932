"""How fast nodes compute, by what rounds took and no longer by what they claim. Pure.

A client sees how long a step was under way round a whole ring, and how long until each node of it sent a receipt, but
not who of them took how much of that. So what it took more or less than was expected is shared out among the nodes on
the way by what is not known of them: an estimate begins as the claim, with a wide variance, and every round makes those
that took part better known, and how they hang together (a Kalman filter: R. Kalman, Transactions of the ASME 82(1),
1960). One more unknown is what is wrong with all rounds of this client, such as ways that are longer than they were
guessed, for which no node is to blame. So a claim counts for less with every round, and in the end not at all: whatever
was claimed, the same rounds lead to the same estimate (``benchmarks/liars.py``).

A node whose links are better or worse than they were guessed counts as faster or slower, which is what a route wants to
know. What is not confirmed fades back to the claim, so that a machine that is faster now is tried again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from discovery.score import remembered

HALF_LIFE_SECONDS = 6 * 3600.0
UNSURE = 2.0
"""The standard deviation of a claim, against the usual milliseconds for a block in its ring."""
LEAST_USUAL_MS = 0.5
"""What is usual at least, so that those who all claim next to nothing are not believed for it."""
UNSURE_WAYS = 0.1
"""Of what is wrong with all rounds, against what they are expected to take outside of blocks."""
LINK_ERROR, JITTER, LEAST_ERROR_MS = 0.02, 0.02, 1.0
"""What a round may be off for other reasons than its nodes: of the links' time, of its own, and in any case."""
MOST_NODES = 512
_OUTLIER = 3.0  # standard deviations: what is beyond was something else, and counts as so much
_FORGOTTEN = 0.02
_ALL = 0  # the first unknown: of all rounds

Key = tuple[str, str]
"""A peer id and a model: the same machine is not as fast with every model."""


@dataclass(frozen=True)
class Worked:
    """A node's part in a round: ``blocks`` blocks, of which it claims that each takes ``claimed_ms``."""

    key: Key
    claimed_ms: float
    blocks: int


class Speeds:
    """Milliseconds that nodes take for a block, as far as rounds have told. Times are seconds of a steady clock."""

    def __init__(self) -> None:
        self._place: dict[Key, int] = {}
        self._seen_at: dict[Key, float] = {}
        self._at = 0.0
        # (unknowns,): what each is at first, what it seems to be, and its variance at first; the first is of all rounds
        self._claimed = self._found = self._widest = np.zeros(1)
        self._covariance = np.zeros((1, 1))

    def of(self, key: Key, claimed_ms: float, now: float) -> float:
        """What a node is expected to take for a block that claims ``claimed_ms``."""
        place = self._place.get(key)
        if place is None:
            return claimed_ms
        found = float(self._found[place])
        return max(0.0, claimed_ms + (found - claimed_ms) * remembered(now - self._at, HALF_LIFE_SECONDS))

    def learn(self, ring: Sequence[Worked], elsewhere_ms: float, round_ms: float, now: float) -> None:
        """We heard ``round_ms`` after it had left that a step of one position had gone through a ring, or the beginning
        of one; ``elsewhere_ms`` were expected for ways, queues and all that is no block."""
        self._fade(now)
        usual = max(statistics.median(one.claimed_ms for one in ring), LEAST_USUAL_MS)
        if not self._seen_at:
            self._widest[_ALL] = self._covariance[_ALL, _ALL] = (UNSURE_WAYS * elsewhere_ms) ** 2
        share = np.zeros(len(self._found))
        share[_ALL] = 1.0
        for one in ring:
            place = self._place_of(one, (UNSURE * max(usual, one.claimed_ms)) ** 2)
            share = np.append(share, 0.0) if place == len(share) else share
            share[place] += one.blocks
            self._seen_at[one.key] = now
        reach = self._covariance @ share
        noise = (LINK_ERROR * elsewhere_ms) ** 2 + (JITTER * round_ms) ** 2 + LEAST_ERROR_MS**2
        spread = float(share @ reach) + noise
        most = _OUTLIER * math.sqrt(spread)
        surprise = min(max(round_ms - elsewhere_ms - float(share @ self._found), -most), most)
        self._found = self._found + reach * (surprise / spread)
        self._covariance -= np.outer(reach, reach) / spread

    def forget(self, now: float) -> None:
        """What has faded away, and more where there are too many."""
        by_age = sorted(self._seen_at, key=self._seen_at.__getitem__, reverse=True)
        kept = [
            key for key in by_age[:MOST_NODES] if remembered(now - self._seen_at[key], HALF_LIFE_SECONDS) >= _FORGOTTEN
        ]
        if len(kept) < len(by_age):
            places = [_ALL, *(self._place[key] for key in kept)]
            self._claimed, self._found, self._widest = (
                values[places] for values in (self._claimed, self._found, self._widest)
            )
            self._covariance = self._covariance[np.ix_(places, places)]
            self._seen_at = {key: self._seen_at[key] for key in kept}
            self._place = {key: place for place, key in enumerate(kept, 1)}

    def _fade(self, now: float) -> None:
        """Everything comes nearer to what it was at first."""
        left = remembered(now - self._at, HALF_LIFE_SECONDS)
        self._at = max(now, self._at)
        self._found = self._claimed + (self._found - self._claimed) * left
        self._covariance = self._covariance * left**2 + np.diag(self._widest * (1.0 - left**2))

    def _place_of(self, one: Worked, widest: float) -> int:
        """Where a node stands among the unknowns; it claims what it claims now."""
        place = self._place.get(one.key)
        if place is not None:
            self._claimed[place] = one.claimed_ms
            return place
        place = self._place[one.key] = len(self._found)
        self._claimed, self._found = np.append(self._claimed, one.claimed_ms), np.append(self._found, one.claimed_ms)
        self._widest = np.append(self._widest, widest)
        self._covariance = np.pad(self._covariance, (0, 1))
        self._covariance[place, place] = widest
        return place
