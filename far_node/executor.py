"""The only owner of the device: one thread, one call after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from far_node.blocks.thread import ComputeThread
from far_node.errors import Busy

T = TypeVar("T")

_OUT_OF_MEMORY_RETRY_SECONDS = 5.0


class Executor:
    """Runs calls on the compute thread in the order they come."""

    def __init__(self) -> None:
        self._thread = ComputeThread("compute")

    async def run(self, call: Callable[[], T]) -> T:
        """Wait for ``call`` to run on the compute thread.

        Raises:
            Busy: the device is out of memory.
        """
        try:
            return await self._thread.run(call)
        except (torch.OutOfMemoryError, MemoryError):
            raise Busy("the device is out of memory", retry_after=_OUT_OF_MEMORY_RETRY_SECONDS) from None

    def close(self) -> None:
        """Wait for the call in progress and end the thread."""
        self._thread.close()
