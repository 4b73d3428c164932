"""A node that can be made to stop in the middle of an answer: ``python -m tests.support.held start …`` is
``far-node start …`` until it gets the signal :data:`HOLD`. Whether it is there it says all the while."""

from __future__ import annotations

import math
import signal
import time
from typing import Any

from far_node.blocks.run import Blocks
from far_node.cli import app

HOLD, GO_ON = signal.SIGUSR1, signal.SIGUSR2
POSITIONS = 50
"""So many it still computes then; as many more when it gets the signal again. Tokens are no more than positions, and
not many fewer: those that a client has guessed wrong."""

_compute = Blocks.run_together


class _Gate:
    """Counted in the executor's thread, set in the main one."""

    def __init__(self) -> None:
        self._taken = 0
        self._most = math.inf

    def hold(self, *_: object) -> None:
        self._most = POSITIONS + (self._taken if self._most == math.inf else self._most)

    def open(self, *_: object) -> None:
        self._most = math.inf

    def take(self, positions: int) -> None:
        while self._taken >= self._most:
            time.sleep(0.01)
        self._taken += positions


_gate = _Gate()


def _held(blocks: Blocks, parts: Any, *arguments: Any) -> Any:
    _gate.take(sum(hidden.shape[1] for hidden, _ in parts))
    return _compute(blocks, parts, *arguments)


if __name__ == "__main__":
    setattr(Blocks, "run_together", _held)  # noqa: B010  # it is not of its type
    signal.signal(HOLD, _gate.hold)
    signal.signal(GO_ON, _gate.open)
    app()
