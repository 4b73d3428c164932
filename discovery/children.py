"""Child processes do not outlive us."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """To be run in a child before its program starts. On Linux it then gets SIGTERM when the thread that made it ends,
    even when we are killed with SIGKILL (prctl(2), PR_SET_PDEATHSIG); elsewhere this does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
