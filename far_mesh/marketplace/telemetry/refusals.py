"""Who counts the errors that callers are given. They are put into words in one place, far below the doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from discovery.protocol.errors import FarError

Count = Callable[[FarError], None]

_count: ContextVar[Count | None] = ContextVar("far_mesh_refusals", default=None)


@contextmanager
def counted_by(count: Count) -> Iterator[None]:
    """Inside of this, and in tasks that begin there, ``count`` is told."""
    token = _count.set(count)
    try:
        yield
    finally:
        _count.reset(token)


def note(error: FarError) -> None:
    """Somebody is given ``error``."""
    count = _count.get()
    if count is not None:
        count(error)
