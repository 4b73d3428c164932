"""How fast nodes compute, by what rounds took and no longer by what they claim. Pure.

A client sees how long a step was under way round a whole ring, and not who of its nodes took how much of that. So each
step's excess over what was expected is shared out among the nodes by how much is not known of each: an estimate begins
as the claim, with a wide variance, and every round makes those that took part better known (a Kalman filter: R. Kalman,
Transactions of the ASME 82(1), 1960; of the covariances only the diagonal is kept). Who was in many rounds that took
what they should is blamed little for one that did not, and who is new is blamed most. So a claim counts for less with
every round, and a false one is gone after a few dozen (``benchmarks/liars.py``).

Nobody is faster than he claims: a node that claims too little may mean it, and one that is thought to be faster would
hide a liar that is always in its rings. What is not confirmed fades back to the claim, so that a machine that is faster
now is tried again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from discovery.score import remembered

HALF_LIFE_SECONDS = 6 * 3600.0
UNSURE = 2.0
"""The standard deviation of a claim at first, against the usual milliseconds for a block in its ring; and of what was
seen, however often (:data:`NEVER_SURE`)."""
NEVER_SURE = 0.1
LINK_ERROR, JITTER, LEAST_ERROR_MS = 0.1, 0.05, 1.0
"""What a round may be off for other reasons than its nodes: of the links' time, of its own, and in any case."""
_OUTLIER = 3.0  # standard deviations: what is beyond was something else, and counts as so much
_FORGOTTEN = 0.02

Key = tuple[str, str]
"""A peer id and a model: the same machine is not as fast with every model."""


@dataclass(frozen=True)
class Worked:
    """A node's part in a round: ``blocks`` blocks, of which it claims that each takes ``claimed_ms``."""

    key: Key
    claimed_ms: float
    blocks: int


@dataclass(frozen=True)
class _Speed:
    """An estimate of a node's milliseconds for a block, as it was at a time."""

    block_ms: float
    variance: float
    at: float


@dataclass
class Speeds:
    """Milliseconds that nodes take for a block, as far as rounds have told. Times are seconds of a steady clock."""

    _known: dict[Key, _Speed] = field(default_factory=dict)

    def of(self, key: Key, claimed_ms: float, now: float) -> float:
        """What a node is expected to take for a block that claims ``claimed_ms``."""
        known = self._known.get(key)
        return claimed_ms if known is None else max(claimed_ms, _faded(known, claimed_ms, now))

    def learn(self, ring: Sequence[Worked], elsewhere_ms: float, round_ms: float, now: float) -> None:
        """A step of one position went round a ring in ``round_ms``, of which ``elsewhere_ms`` were expected for ways,
        queues and all that is no block."""
        usual = statistics.median(one.claimed_ms for one in ring)
        states = [self._now(one, usual, now) for one in ring]
        expected = elsewhere_ms + sum(one.blocks * state.block_ms for one, state in zip(ring, states, strict=True))
        unsure = sum(one.blocks**2 * state.variance for one, state in zip(ring, states, strict=True))
        spread = unsure + (LINK_ERROR * elsewhere_ms) ** 2 + (JITTER * round_ms) ** 2 + LEAST_ERROR_MS**2
        most = _OUTLIER * math.sqrt(spread)
        surprise = min(max(round_ms - expected, -most), most)
        for one, state in zip(ring, states, strict=True):
            gain = state.variance * one.blocks / spread
            least = (NEVER_SURE * max(usual, one.claimed_ms)) ** 2
            variance = max(state.variance * (1.0 - gain * one.blocks), least)
            self._known[one.key] = _Speed(max(state.block_ms + gain * surprise, one.claimed_ms), variance, now)

    def forget(self, now: float) -> None:
        """What has faded away."""
        for key, known in list(self._known.items()):
            if remembered(now - known.at, HALF_LIFE_SECONDS) < _FORGOTTEN:
                del self._known[key]

    def _now(self, one: Worked, usual_ms: float, now: float) -> _Speed:
        """What is known of a node, brought up to now."""
        widest = (UNSURE * max(usual_ms, one.claimed_ms)) ** 2
        known = self._known.get(one.key)
        if known is None:
            return _Speed(one.claimed_ms, widest, now)
        left = remembered(now - known.at, HALF_LIFE_SECONDS) ** 2
        return _Speed(_faded(known, one.claimed_ms, now), known.variance * left + widest * (1.0 - left), now)


def _faded(known: _Speed, claimed_ms: float, now: float) -> float:
    return claimed_ms + (known.block_ms - claimed_ms) * remembered(now - known.at, HALF_LIFE_SECONDS)
