"""What the database said a moment ago, so that not every request asks it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

MOST = 10_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recall(Generic[K, V]):
    """Answers of at most ``seconds`` ago, the newest ``most`` of them. 0 seconds: none are kept."""

    def __init__(self, seconds: float, most: int = MOST) -> None:
        self._seconds = seconds
        self._most = most
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._changes = 0

    async def get(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        """What was read for ``key``, or what is read now."""
        found = self._known.get(key)
        if found is not None and monotonic() < found[0]:
            return found[1]
        started, changes = monotonic(), self._changes
        value = await read()
        if changes == self._changes and self._seconds > 0:  # else it may have been read before the change
            self._known[key] = (started + self._seconds, value)
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return value

    def forget(self) -> None:
        """Something was changed here: everything is read again."""
        self._changes += 1
        self._known.clear()
