"""The process of a node, which may be a child of the one that was here before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

KILL_SECONDS = 30.0


class NodeProcess:
    """A child of this process. Terminals do not signal it: what reaches it is decided here."""

    def __init__(self, pid: int) -> None:
        """For a child that runs already, such as one that was started before this process was replaced."""
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._wait, daemon=True).start()

    @classmethod
    def start(cls, argv: Sequence[str], environment: Mapping[str, str]) -> NodeProcess:
        """Start it, as the leader of a group of its own.

        Raises:
            OSError: there is no such program.
        """
        child = subprocess.Popen(argv, env=dict(environment), stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603
        started = cls(child.pid)
        started._child = child  # else its end would be reaped by whoever forgets it
        return started

    _child: subprocess.Popen[bytes] | None = None

    async def ended(self) -> int:
        """Returns when it has ended: its exit status, 128 + the signal's number for one that was killed."""
        return await asyncio.shield(self._ended)

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._ended.done()

    def signal(self, number: int) -> None:
        """Tell it something, if it is there."""
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and the loop has not heard of it
                os.kill(self.pid, number)

    async def end(self) -> None:
        """Be rid of it and of all that it started, at once if it does not go by itself."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGTERM)  # it is to wait for nobody
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await self.ended()
        except TimeoutError:
            self._kill()
            await self.ended()
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS calls that the other
            os.killpg(self.pid, signal.SIGKILL)

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._loop.call_soon_threadsafe(self._ended.set_result, 128 - code if code < 0 else code)
