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
STEPS = 30
"""It still takes so many then; as many more when it gets the signal again."""

_compute = Blocks.run_together


class _Gate:
    """Counted in the executor's thread, set in the main one."""

    def __init__(self) -> None:
        self._taken = 0
        self._most = math.inf

    def hold(self, *_: object) -> None:
        self._most = STEPS + (self._taken if self._most == math.inf else self._most)

    def open(self, *_: object) -> None:
        self._most = math.inf

    def wait(self) -> None:
        while self._taken >= self._most:
            time.sleep(0.01)
        self._taken += 1


_gate = _Gate()


def _held(blocks: Blocks, *arguments: Any) -> Any:
    _gate.wait()
    return _compute(blocks, *arguments)


if __name__ == "__main__":
    setattr(Blocks, "run_together", _held)  # noqa: B010  # it is not of its type
    signal.signal(HOLD, _gate.hold)
    signal.signal(GO_ON, _gate.open)
    app()
