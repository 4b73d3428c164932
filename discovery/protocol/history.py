"""What was sent over a link, kept so that it can be sent again to who comes after a lost node. Pure.

A history holds hidden states by position, as they stand after every rollback and row move, and the latest steps as they
were sent: those whose answers the client has not got yet. Memory is bounded by the session's length and by the steps in
flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from discovery.protocol.codec import WireTensor, join_positions, position_bytes, slice_positions
from discovery.protocol.messages import Step

REPLAY_POSITIONS = 256
"""Positions in a step of a replay, so that new nodes that follow each other work at the same time."""
REPLAY_BYTES = 2**24
"""And bytes, unless a single position takes more."""


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
    """Steps in, steps out: those that bring a new node to where the lost one was.

    Args:
        joins: steps may be joined and divided anew. For some models a text is only the same in the same steps.
    """

    def __init__(self, *, joins: bool = True) -> None:
        self._joins = joins
        self._pieces: list[_Piece] = []
        self._open: deque[Step] = deque()
        self._settled = 0
        self._held_bytes = 0

    @property
    def positions(self) -> int:
        """Positions of the settled part."""
        return self._pieces[-1].end if self._pieces else 0

    @property
    def held_bytes(self) -> int:
        """Bytes of hidden states kept."""
        return self._held_bytes

    def add(self, step: Step) -> None:
        """A step that was sent. Those before its ``settled`` have been answered and are kept by position from now on;
        a replayed one at once.
        """
        self._open.append(step)
        self._held_bytes += len(step.hidden.data)
        while self._open and (self._open[0].index < step.settled or self._open[0].is_replay):
            self._settle(self._open.popleft())

    def replay(self) -> Iterator[Step]:
        """The settled part in steps of up to :data:`REPLAY_POSITIONS`, then the steps in flight as they were. Nothing
        may be added meanwhile.
        """
        first = self._open[0].index if self._open else self._settled
        end, most = self.positions, self._positions_in_a_step()
        if not self._joins:
            for piece in self._pieces:
                hidden = join_positions([(piece.hidden, piece.rows)])
                yield Step(first, piece.start, hidden, keep=1, settled=first, is_replay=True)
            end = 0
        for start in range(0, end, most):
            until = min(start + most, end)
            parts = [
                piece.between(max(start, piece.start), min(until, piece.end))
                for piece in self._pieces
                if piece.start < until and start < piece.end
            ]
            hidden = join_positions([(piece.hidden, piece.rows) for piece in parts])
            yield Step(first, start, hidden, keep=1, settled=first, is_replay=True)
        yield from self._open

    def _positions_in_a_step(self) -> int:
        if not self._pieces:
            return REPLAY_POSITIONS
        rows, _, size = self._pieces[0].hidden.shape
        each = rows * position_bytes(self._pieces[0].hidden.dtype, size)
        return max(1, min(REPLAY_POSITIONS, REPLAY_BYTES // each))

    def _settle(self, step: Step) -> None:
        while self._pieces and self._pieces[-1].end > step.start_position:
            last = self._pieces.pop()
            self._held_bytes -= len(last.hidden.data)
            if last.start < step.start_position:
                self._keep(last.between(last.start, step.start_position))
        if step.rows:
            self._pieces = [piece.moved(step.rows) for piece in self._pieces]
        self._held_bytes -= len(step.hidden.data)
        self._keep(_Piece(step.start_position, step.hidden, tuple(range(step.hidden.shape[0]))))
        self._settled = step.index + (not step.is_replay)

    def _keep(self, piece: _Piece) -> None:
        self._pieces.append(piece)
        self._held_bytes += len(piece.hidden.data)
