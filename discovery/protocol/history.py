"""What was sent over a link, kept so that it can be sent again to who comes after a lost node. Pure.

A history holds hidden states by position, as they stand after every rollback and row move, and the latest steps as they
were sent: those whose answers the client has not got yet. Memory is bounded by the session's length and by the steps in
flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from discovery.protocol.codec import WireTensor, join_positions, slice_positions
from discovery.protocol.messages import Step

REPLAY_POSITIONS = 256
"""Positions in a step of a replay, so that new nodes that follow each other work at the same time."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Hidden states of some positions; row ``i`` of the session is row ``rows[i]`` of them."""

    start: int
    hidden: WireTensor
    rows: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + self.hidden.shape[1]

    def between(self, start: int, end: int) -> _Piece:
        part = slice_positions(self.hidden, start - self.start, end - self.start)
        return _Piece(start, part, self.rows)

    def moved(self, rows: tuple[int, ...]) -> _Piece:
        return replace(self, rows=tuple(self.rows[row] for row in rows))


class History:
    """Steps in, steps out: those that bring a new node to where the lost one was."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._open: deque[Step] = deque()
        self._settled = 0

    @property
    def positions(self) -> int:
        """Positions of the settled part."""
        return self._pieces[-1].end if self._pieces else 0

    @property
    def held_bytes(self) -> int:
        """Bytes of hidden states kept."""
        settled = sum(len(piece.hidden.data) for piece in self._pieces)
        return settled + sum(len(step.hidden.data) for step in self._open)

    def add(self, step: Step) -> None:
        """A step that was sent. Those before its ``settled`` have been answered and are kept by position from now on;
        a replayed one at once.
        """
        self._open.append(step)
        while self._open and (self._open[0].index < step.settled or self._open[0].is_replay):
            self._settle(self._open.popleft())

    def replay(self) -> Iterator[Step]:
        """The settled part in steps of up to :data:`REPLAY_POSITIONS`, then the steps in flight as they were."""
        first = self._open[0].index if self._open else self._settled
        end = self.positions
        for start in range(0, end, REPLAY_POSITIONS):
            until = min(start + REPLAY_POSITIONS, end)
            parts = [
                piece.between(max(start, piece.start), min(until, piece.end))
                for piece in self._pieces
                if piece.start < until and start < piece.end
            ]
            hidden = join_positions([(piece.hidden, piece.rows) for piece in parts])
            yield Step(first, start, hidden, keep=1, settled=first, is_replay=True)
        yield from self._open

    def _settle(self, step: Step) -> None:
        kept = [piece for piece in self._pieces if piece.start < step.start_position]
        if kept and kept[-1].end > step.start_position:
            kept[-1] = kept[-1].between(kept[-1].start, step.start_position)
        if step.rows:
            kept = [piece.moved(step.rows) for piece in kept]
        self._pieces = [*kept, _Piece(step.start_position, step.hidden, tuple(range(step.hidden.shape[0])))]
        self._settled = step.index + (not step.is_replay)
