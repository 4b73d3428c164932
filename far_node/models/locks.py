"""Locks between processes (flock(2)): they end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileLock:
    """One hold on a lock file. The file itself is never deleted: whoever waits on it would wait on nothing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take it, alone or with others who share it; False if it is taken and we do not wait."""
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock at ``path`` for a while; waits for it."""
    lock = FileLock(path)
    try:
        lock.acquire(shared=shared)
        yield
    finally:
        lock.release()
