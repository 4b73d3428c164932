"""The only owner of the device: one thread, one call after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog
import torch

from discovery.protocol.errors import FarError
from far_node.blocks.thread import ComputeThread
from far_node.errors import Busy, ComputeFailed

T = TypeVar("T")
log = structlog.get_logger(__name__)

_OUT_OF_MEMORY_RETRY_SECONDS = 5.0


class Executor:
    """Runs calls on the compute thread in the order they come."""

    def __init__(self) -> None:
        self._thread = ComputeThread("compute")

    async def run(self, call: Callable[[], T]) -> T:
        """Wait for ``call`` to run on the compute thread.

        Raises:
            Busy: the device is out of memory.
            ComputeFailed: anything else that is not of our error family; the log says what.
        """
        try:
            return await self._thread.run(call)
        except (torch.OutOfMemoryError, MemoryError):
            raise Busy("the device is out of memory", retry_after=_OUT_OF_MEMORY_RETRY_SECONDS) from None
        except FarError:
            raise
        except Exception as error:  # the edge of the device: torch raises what it likes, the client gets a typed error
            log.error("compute_failed", kind=type(error).__name__, exc_info=True)
            raise ComputeFailed("the node's computation failed; its log says why") from error

    def close(self) -> None:
        """Wait for the call in progress and end the thread."""
        self._thread.close()
