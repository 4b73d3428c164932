"""Which of the waiting steps run next: decided from what waits, what ran, and how long it took. No device, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from discovery.protocol.messages import Priority
from far_node.limits import Limits

DECODE_POSITIONS = 16
"""A step of more positions than this is a prefill: computed in chunks, and never in one pass with others."""
AGING_SECONDS = 2.0
"""Who has waited this long goes before all classes, so that nobody starves."""

_LATELY_SECONDS = 1.0
_PREFILL_SHARE = 1.0  # of the time of a decode pass, that a chunk of somebody's prefill may take beside it
_SMALLEST_CHUNK = 8
_PATIENCE_SHARE = 0.2
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
    """

    key: int
    session: Hashable
    client: str
    priority: Priority
    since: float
    rows: int
    positions: int
    kind: Hashable | None

    @property
    def is_prefill(self) -> bool:
        """Whether it is computed in chunks."""
        return self.positions > DECODE_POSITIONS


@dataclass(frozen=True, slots=True)
class Turn:
    """What the device does next: ``positions`` of each of these steps."""

    steps: tuple[Waiting, ...]
    positions: int

    @property
    def is_prefill(self) -> bool:
        """Whether it is a chunk of a prefill."""
        return self.steps[0].is_prefill

    @property
    def rows(self) -> int:
        """Rows in the pass."""
        return sum(step.rows for step in self.steps)


class Batcher:
    """Decode passes and prefill chunks take turns; priorities first, and round robin between clients inside each."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = 0
        self._served: dict[str, int] = {}
        self._decoded: dict[Hashable, float] = {}
        self._last: Turn | None = None
        self._chunk = 4 * _SMALLEST_CHUNK
        self.decode_seconds = 0.0
        self.decode_rows_per_second = 0.0
        self.prefill_positions_per_second = 0.0

    def next_turn(self, waiting: Sequence[Waiting], now: float) -> Turn:
        """What to run of ``waiting``, which is not empty."""
        if len(waiting) == 1:
            turn = self._alone(waiting[0], now)
        else:
            decodes = [step for step in waiting if not step.is_prefill]
            prefills = [step for step in waiting if step.is_prefill]
            decode_now = not prefills or (decodes and (self._last is None or self._last.is_prefill))
            turn = self._pass_of(decodes, now) if decode_now else self._alone(self._in_order(prefills, now)[0], now)
        self._turns += 1
        self._last = turn
        self._served = {client: at for client, at in self._served.items() if self._turns - at < _REMEMBERED_TURNS}
        self._served.update(dict.fromkeys((step.client for step in turn.steps), self._turns))
        return turn

    def learn(self, turn: Turn, seconds: float, now: float) -> None:
        """The turn took ``seconds`` and ended ``now``."""
        seconds = max(seconds, 1e-9)
        if turn.is_prefill:
            self.prefill_positions_per_second = _smooth(
                self.prefill_positions_per_second, turn.rows * turn.positions / seconds
            )
            if self.decode_seconds:
                wanted = _PREFILL_SHARE * self.decode_seconds / seconds
                fitting = turn.positions * min(max(wanted, 0.5), 2.0)
                self._chunk = int(min(max(fitting, _SMALLEST_CHUNK), self._limits.prefill_chunk))
            return
        self.decode_seconds = _smooth(self.decode_seconds, seconds)
        self.decode_rows_per_second = _smooth(self.decode_rows_per_second, turn.rows * turn.positions / seconds)
        for step in turn.steps:
            self._decoded[step.session] = now

    def patience(self, waiting: Sequence[Waiting]) -> float:
        """Seconds worth waiting for the others of the last pass: together they cost little more than one alone."""
        if self._last is None or self._last.is_prefill or any(step.is_prefill for step in waiting):
            return 0.0
        if len(waiting) >= len(self._last.steps):
            return 0.0
        return min(_PATIENCE_SHARE * self.decode_seconds, _MOST_PATIENCE_SECONDS)

    def _alone(self, step: Waiting, now: float) -> Turn:
        if not step.is_prefill:
            return Turn((step,), step.positions)
        size = self._chunk if self._others_decode(step, now) else self._limits.prefill_chunk
        return Turn((step,), min(step.positions, max(1, size // step.rows)))

    def _others_decode(self, step: Waiting, now: float) -> bool:
        lately = max(_LATELY_SECONDS, 10 * self.decode_seconds)
        self._decoded = {session: at for session, at in self._decoded.items() if now - at < lately}
        return any(session != step.session for session in self._decoded)

    def _pass_of(self, decodes: Sequence[Waiting], now: float) -> Turn:
        ordered = self._in_order(decodes, now)
        first = ordered[0]
        chosen, rows = [first], first.rows
        for step in ordered[1:]:
            together = first.kind is not None and (step.kind, step.positions) == (first.kind, first.positions)
            if together and rows + step.rows <= self._limits.max_batch_size:
                chosen.append(step)
                rows += step.rows
        return Turn(tuple(chosen), first.positions)

    def _in_order(self, steps: Sequence[Waiting], now: float) -> list[Waiting]:
        def urgency(step: Waiting) -> int:
            return -2 if now - step.since > AGING_SECONDS else step.priority

        ranked = sorted(steps, key=lambda step: (urgency(step), step.key))
        return [step for _, equals in groupby(ranked, urgency) for step in self._round_robin(equals)]

    def _round_robin(self, steps: Iterable[Waiting]) -> list[Waiting]:
        queues: dict[str, deque[Waiting]] = {}
        for step in steps:
            queues.setdefault(step.client, deque()).append(step)
        clients = deque(sorted(queues, key=lambda client: self._served.get(client, 0)))
        ordered: list[Waiting] = []
        while clients:
            client = clients.popleft()
            ordered.append(queues[client].popleft())
            if queues[client]:
                clients.append(client)
        return ordered


def _smooth(old: float, new: float) -> float:
    return new if not old else old + _SMOOTHING * (new - old)
