"""What is kept of observations: counts by the hour, for each node, model and prober; what they say together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from discovery.probe.observation import Fate, Observation, Reach, Verdict
from discovery.score import Observations

HOUR = 3600
KEEP_HOURS = 168
"""A week."""
OVERCLAIMED = 3.0
"""Who is slower than announced by this factor has claimed too much; below it the way and the queue may be to blame."""


@dataclass(frozen=True)
class Hour:
    """What one prober saw of one node and model within an hour that began at ``hour`` (Unix seconds).

    Attributes:
        probes: looks at it: ``direct``, ``relay`` and ``unreached`` say how it was reached, those from ``completed`` to
            ``unasked`` what became of them; ``right``, ``wrong`` and ``undecided`` are of those completed.
        receipts_rejected: receipts that did not say what was done, or were not given.
        token_layers: what it was asked to compute.
        round_trip_ms: the shortest.
        block_ms: the sum over ``timed`` measurements, ``claimed_block_ms`` the sum of what was announced at each.
        last_at: when it was looked at last.
    """

    peer_id: str
    model_digest: str
    prober: str
    hour: int
    probes: int = 0
    direct: int = 0
    relay: int = 0
    unreached: int = 0
    completed: int = 0
    refused: int = 0
    failed: int = 0
    timed_out: int = 0
    unasked: int = 0
    right: int = 0
    wrong: int = 0
    undecided: int = 0
    receipts_rejected: int = 0
    token_layers: int = 0
    timed: int = 0
    block_ms: float = 0.0
    claimed_block_ms: float = 0.0
    round_trip_ms: float | None = None
    last_at: int = 0

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Of which there is one."""
        return self.peer_id, self.model_digest, self.prober, self.hour

    def __add__(self, other: Hour) -> Hour:
        """Both together; the key is the first one's."""
        values = {name: getattr(self, name) + getattr(other, name) for name in SUMS}
        trips = [one for one in (self.round_trip_ms, other.round_trip_ms) if one is not None]
        last_at = max(self.last_at, other.last_at)
        return Hour(*self.key, **values, round_trip_ms=min(trips, default=None), last_at=last_at)


KEY = ("peer_id", "model_digest", "prober", "hour")
SUMS = tuple(one.name for one in fields(Hour) if one.name not in (*KEY, "round_trip_ms", "last_at"))
"""The attributes of :class:`Hour` that are added up."""


def hours_of(prober: str, observations: Iterable[Observation]) -> list[Hour]:
    """The observations of one prober as counts, one for each key."""
    found: dict[tuple[str, str, str, int], Hour] = {}
    for one in observations:
        hour = _hour_of(prober, one)
        before = found.get(hour.key)
        found[hour.key] = hour if before is None else before + hour
    return list(found.values())


def _hour_of(prober: str, seen: Observation) -> Hour:
    is_timed = seen.block_ms is not None and seen.claimed_block_ms is not None
    return Hour(
        seen.peer_id,
        seen.model_digest,
        prober,
        seen.at - seen.at % HOUR,
        probes=1,
        direct=int(seen.reach is Reach.DIRECT),
        relay=int(seen.reach is Reach.RELAY),
        unreached=int(seen.reach is Reach.NONE),
        completed=int(seen.fate is Fate.COMPLETED),
        refused=int(seen.fate is Fate.REFUSED),
        failed=int(seen.fate is Fate.FAILED),
        timed_out=int(seen.fate is Fate.TIMED_OUT),
        unasked=int(seen.fate is Fate.UNASKED),
        right=int(seen.verdict is Verdict.RIGHT),
        wrong=int(seen.verdict is Verdict.WRONG),
        undecided=int(seen.verdict is Verdict.UNDECIDED),
        receipts_rejected=int(seen.receipt is False),
        token_layers=seen.token_layers,
        timed=int(is_timed),
        block_ms=(seen.block_ms or 0.0) if is_timed else 0.0,
        claimed_block_ms=(seen.claimed_block_ms or 0.0) if is_timed else 0.0,
        round_trip_ms=seen.round_trip_ms,
        last_at=seen.at,
    )


@dataclass(frozen=True)
class Summary:
    """What a vantage point has seen of a node lately.

    Attributes:
        reach: the best of the last hour in which it was looked at: a node that was reached can be.
        block_ms, claimed_block_ms: means; None: nothing was timed.
        overclaims: whether it is slower than it announced by :data:`OVERCLAIMED`.
    """

    prober: str
    last_at: int
    reach: Reach
    probes: int
    right: int
    wrong: int
    undecided: int
    round_trip_ms: float | None
    block_ms: float | None
    claimed_block_ms: float | None

    @property
    def overclaims(self) -> bool | None:
        """See above; None: nothing was timed."""
        if self.block_ms is None or self.claimed_block_ms is None:
            return None
        return self.block_ms > OVERCLAIMED * self.claimed_block_ms


def summaries(hours: Sequence[Hour]) -> list[Summary]:
    """For each vantage point, in the order of their ids, over all models of the node."""
    found = []
    for prober in sorted({one.prober for one in hours}):
        mine = [one for one in hours if one.prober == prober]
        total = _total(mine)
        newest = _total([one for one in mine if one.hour == max(other.hour for other in mine)])
        timed = total.timed or None
        found.append(
            Summary(
                prober,
                total.last_at,
                reach_of(newest),
                total.probes,
                total.right,
                total.wrong,
                total.undecided,
                newest.round_trip_ms,
                None if timed is None else total.block_ms / timed,
                None if timed is None else total.claimed_block_ms / timed,
            )
        )
    return found


def reach_of(hour: Hour) -> Reach:
    """The best that was seen."""
    return Reach.DIRECT if hour.direct else Reach.RELAY if hour.relay else Reach.NONE


def observed(hours: Sequence[Hour], now: float, uptime: float | None = None, age: float = 0.0) -> Observations:
    """What all vantage points have seen of one node, as a score is made of (:mod:`discovery.score`): what is older
    counts less. That one of them could not reach it in an hour in which another did is not the node's failure.

    Args:
        now: Unix seconds.
        uptime, age: of the node, as :class:`~discovery.score.Observations` has them.
    """
    total = Observations(uptime=uptime, age=age)
    reached = {one.hour for one in hours if one.direct or one.relay}
    for one in hours:
        seen = Observations(
            completed=one.completed,
            failed=one.failed + (0 if one.hour in reached else one.unreached),
            timed_out=one.timed_out,
            receipts_rejected=one.receipts_rejected,
            probes_right=one.right,
            probes_wrong=one.wrong,
        )
        total += seen.faded(now - one.last_at)
    return total


def _total(hours: Sequence[Hour]) -> Hour:
    total, *rest = hours
    for one in rest:
        total += one
    return total
