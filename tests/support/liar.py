"""A node that lies: ``python -m tests.support.liar start …`` is ``far-node start …``, but for ``FAR_TEST_LIE``.

``idle``: its blocks give back what they are given, as if that were the answer. ``boast``: it announces that a token
takes it a microsecond in a block, and takes a twentieth of a second for each step.
"""

from __future__ import annotations

import os
import time
from typing import Any

import far_node.node
from far_node.blocks.run import Blocks
from far_node.cli import app

LIE = "FAR_TEST_LIE"
_honest = Blocks.run_together


def _idle(_blocks: Blocks, parts: Any, first: int, end: int, left_padding: tuple[int, ...] = ()) -> Any:
    for hidden, rows in parts:
        _honest(_blocks, [(hidden, rows)], first, end, left_padding)
    return [hidden for hidden, _ in parts]


def _slow(blocks: Blocks, *arguments: Any) -> Any:
    time.sleep(0.05)
    return _honest(blocks, *arguments)


if __name__ == "__main__":
    if os.environ[LIE] == "idle":
        setattr(Blocks, "run_together", _idle)  # noqa: B010  # a lie is not of its type
    else:
        setattr(Blocks, "run_together", _slow)  # noqa: B010
        setattr(far_node.node, "block_ms", lambda _blocks: 0.001)  # noqa: B010
    app()
