"""Memory that was freed and is still counted as ours."""

from __future__ import annotations

import contextlib
import ctypes


def return_freed_memory() -> None:
    """glibc keeps what was freed, which after loading is as much as a layer in full precision."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
