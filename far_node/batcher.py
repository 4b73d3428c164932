"""Which of the waiting steps run next: decided from what waits, what ran, and how long it took. No device, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from discovery.protocol.messages import Priority
from far_node.limits import Limits

DECODE_POSITIONS = 16
"""A step of more positions than this is a prefill: it is computed in chunks."""
AGING_SECONDS = 2.0
"""Who has waited this long goes before all classes, so that nobody starves."""

_LATELY_SECONDS = 1.0
_PREFILL_SHARE = 1.2  # of the time of a decode pass, that prefills may add to it
_SMALLEST_CHUNK = 8
_QUIET_EVERY = 16  # passes; then one without prefills, which tells how long decoding takes by itself
_PATIENCE_SHARE = 0.5  # of a decode pass: one more would cost the device about that much
_MOST_PATIENCE_SECONDS = 0.01
_SMOOTHING = 0.2
_REMEMBERED_TURNS = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that waits, or the rest of a prefill.

    Attributes:
        key: number of arrival.
        session: whose step it is.
        client: the peer that opened the session.
        since: when it came, in seconds of a steady clock.
        positions: still to compute, in each row.
        kind: steps of the same kind may share a pass; None: it runs alone.
        packs: whether they may do so with different numbers of positions.
        divides: whether it may be cut in chunks.
    """

    key: int
    session: Hashable
    client: str
    priority: Priority
    since: float
    rows: int
    positions: int
    kind: Hashable | None
    packs: bool = False
    divides: bool = True

    @property
    def is_prefill(self) -> bool:
        """Whether it is computed in chunks."""
        return self.positions > DECODE_POSITIONS


@dataclass(frozen=True, slots=True)
class Share:
    """``positions`` of a step, in a pass."""

    step: Waiting
    positions: int

    @property
    def tokens(self) -> int:
        """Rows × positions."""
        return self.step.rows * self.positions


@dataclass(frozen=True, slots=True)
class Turn:
    """What the device does next, in one pass. ``shielded``: prefills were kept short for the sake of others."""

    shares: tuple[Share, ...]
    shielded: bool = False

    @property
    def rows(self) -> int:
        """Rows in the pass."""
        return sum(share.step.rows for share in self.shares)

    @property
    def decodes(self) -> tuple[Share, ...]:
        """Those that are not part of a prefill."""
        return tuple(share for share in self.shares if not share.step.is_prefill)

    @property
    def prefill_tokens(self) -> int:
        """Tokens of prefills."""
        return sum(share.tokens for share in self.shares if share.step.is_prefill)


@dataclass(eq=False, slots=True)
class _Departure:
    """Sessions whose decode steps ran in one pass: they come back one behind the other, after the way round."""

    at: float
    away: set[Hashable]
    first_back: float | None = None


class Batcher:
    """Round robin between clients, and inside each its priorities: what a client says of its steps is its own word, so
    high gains nothing against others. Low gives way to all others.

    A prefill is computed in chunks: in the same pass as the decode steps that wait where the model packs, else in turn
    with them. While others decode, a chunk is as long as makes their passes a little more than twice as long.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = 0
        self._served: dict[str, int] = {}
        self._decoded: dict[Hashable, _Departure] = {}
        self._last = Turn(())
        self._chunk = float(2 * _SMALLEST_CHUNK)
        self._return_seconds = self._behind_seconds = 0.0
        self.decode_seconds = 0.0
        self.decode_rows_per_second = 0.0
        self.prefill_positions_per_second = 0.0

    def next_turn(self, waiting: Sequence[Waiting], now: float) -> Turn:
        """What to run of ``waiting``, which is not empty."""
        ordered = self._in_order(waiting, now) if len(waiting) > 1 else list(waiting)
        decodes = [step for step in ordered if not step.is_prefill]
        prefills = [step for step in ordered if step.is_prefill]
        turn = self._choose(decodes, prefills, now)
        self._turns += 1
        self._last = turn
        self._served = {client: at for client, at in self._served.items() if self._turns - at < _REMEMBERED_TURNS}
        self._served.update(dict.fromkeys((share.step.client for share in turn.shares), self._turns))
        return turn

    def came(self, session: Hashable, now: float) -> None:
        """A step has come: how soon a session comes back tells whether it is worth waiting for."""
        left = self._decoded.get(session)
        if left is None:
            return
        self._return_seconds = _smooth(self._return_seconds, min(now - left.at, _LATELY_SECONDS))
        if session not in left.away:
            return
        left.away.remove(session)
        if left.first_back is None:
            left.first_back = now
        else:
            self._behind_seconds = _smooth(self._behind_seconds, min(now - left.first_back, _LATELY_SECONDS))

    def learn(self, turn: Turn, seconds: float, now: float) -> None:
        """The turn took ``seconds`` and ended ``now``."""
        seconds = max(seconds, 1e-9)
        decodes, prefill_tokens = turn.decodes, turn.prefill_tokens
        departure = _Departure(now, {share.step.session for share in decodes})
        self._decoded |= dict.fromkeys(departure.away, departure)
        if prefill_tokens:
            self.prefill_positions_per_second = _smooth(self.prefill_positions_per_second, prefill_tokens / seconds)
            if turn.shielded and self.decode_seconds:
                allowed = (_PREFILL_SHARE + bool(decodes)) * self.decode_seconds
                self._fit_chunk(prefill_tokens, allowed / seconds)
        else:
            self.decode_seconds = _smooth(self.decode_seconds, seconds)
            rate = sum(share.tokens for share in decodes) / seconds
            self.decode_rows_per_second = _smooth(self.decode_rows_per_second, rate)

    def patience(self, waiting: Sequence[Waiting]) -> float:
        """Seconds worth waiting for others, who together cost little more than one alone.

        They are those of the last pass, where sessions are back in a moment; and after a longer way, who left in one
        pass with those who are here, where such follow each other closely.
        """
        patience = min(_PATIENCE_SHARE * self.decode_seconds, _MOST_PATIENCE_SECONDS)
        decodes = [step for step in waiting if not step.is_prefill]
        if sum(step.rows for step in decodes) >= self._limits.max_batch_size:
            return 0.0
        here, last = {step.session for step in waiting}, {share.step.session for share in self._last.decodes}
        if self._return_seconds < patience and len(decodes) < len(last) and not last <= here:
            return patience
        is_followed = any(self._decoded[one].away - here for one in here if one in self._decoded)
        return patience if is_followed and self._behind_seconds < patience else 0.0

    def _choose(self, decodes: list[Waiting], prefills: list[Waiting], now: float) -> Turn:
        if not prefills:
            return Turn(self._decode_pass(decodes))
        if not decodes:
            shielded = self._others_decode(prefills, now)
            return Turn(self._prefill_pass(prefills, shielded), shielded)
        stepping = self._decode_pass(decodes)
        rows = sum(share.step.rows for share in stepping)
        if not (_go_together(decodes[0], prefills[0]) and self._has_room(prefills[0], rows) and decodes[0].packs):
            if self._last.prefill_tokens:
                return Turn(stepping)
            return Turn(self._prefill_pass(prefills, shielded=True), shielded=True)
        if self._turns % _QUIET_EVERY == 0:
            return Turn(stepping)
        return Turn(stepping + self._prefill_pass(prefills, shielded=True, rows=rows), shielded=True)

    def _has_room(self, step: Waiting, rows: int) -> bool:
        """Beside so many rows that are in the pass; a step that is larger than any pass is one by itself."""
        return not rows or rows + step.rows <= self._limits.max_batch_size

    def _decode_pass(self, ordered: Sequence[Waiting]) -> tuple[Share, ...]:
        first = ordered[0]
        chosen, rows = [first], first.rows
        for step in ordered[1:]:
            together = _go_together(first, step) and (first.packs or step.positions == first.positions)
            if together and self._has_room(step, rows):
                chosen.append(step)
                rows += step.rows
        return tuple(Share(step, step.positions) for step in chosen)

    def _prefill_pass(self, ordered: Sequence[Waiting], shielded: bool, rows: int = 0) -> tuple[Share, ...]:
        """Chunks of prefills, in a pass that has so many ``rows`` of others."""
        first, shares = ordered[0], list[Share]()
        left = int(self._chunk) if shielded else self._limits.prefill_chunk
        for step in ordered:
            together = step is first or (first.packs and _go_together(first, step))
            if together and self._has_room(step, rows) and (left >= step.rows or not shares):
                share = Share(step, min(step.positions, max(1, left // step.rows)) if step.divides else step.positions)
                shares.append(share)
                left -= share.tokens
                rows += step.rows
        return tuple(shares)

    def _others_decode(self, prefills: Sequence[Waiting], now: float) -> bool:
        lately = max(_LATELY_SECONDS, 10 * self.decode_seconds)
        self._decoded = {session: left for session, left in self._decoded.items() if now - left.at < lately}
        return bool(self._decoded.keys() - {step.session for step in prefills})

    def _fit_chunk(self, tokens: int, wanted: float) -> None:
        """Longer or shorter chunks from now on, so that a shielded pass takes what it may: ``wanted`` times as long."""
        if tokens < 0.9 * int(self._chunk) and wanted > 1:
            return  # the end of a prompt says nothing of longer chunks
        fitting = self._chunk * min(max(wanted, 0.5), 1.25)
        self._chunk = min(max(fitting, _SMALLEST_CHUNK), self._limits.prefill_chunk)

    def _in_order(self, steps: Sequence[Waiting], now: float) -> list[Waiting]:
        def urgency(step: Waiting) -> int:
            if now - step.since > AGING_SECONDS:
                return Priority.HIGH
            return max(Priority.NORMAL, step.priority)

        ranked = sorted(steps, key=lambda step: (urgency(step), step.priority, step.key))
        return [step for _, equals in groupby(ranked, urgency) for step in self._round_robin(equals)]

    def _round_robin(self, steps: Iterable[Waiting]) -> list[Waiting]:
        queues: dict[str, deque[Waiting]] = {}
        for step in steps:
            queues.setdefault(step.client, deque()).append(step)
        first = {client: min(step.key for step in queue) for client, queue in queues.items()}
        clients = deque(sorted(queues, key=lambda client: (self._served.get(client, 0), first[client])))
        ordered: list[Waiting] = []
        while clients:
            client = clients.popleft()
            ordered.append(queues[client].popleft())
            if queues[client]:
                clients.append(client)
        return ordered


def _go_together(first: Waiting, other: Waiting) -> bool:
    return first.kind is not None and other.kind == first.kind


def _smooth(old: float, new: float) -> float:
    return new if not old else old + _SMOOTHING * (new - old)
