"""The door at which a serverless node is woken: it hears signed calls over HTTP and starts the node's process.

It is meant to be tried and to be copied from: whoever rents machines by the second puts the start of a machine in the
place of the start of a process. A caller decides nothing but that the node comes up: the command is the owner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from discovery.protocol.errors import CallRefused, FarError
from discovery.protocol.oncall import Calls
from discovery.protocol.signed import MAX_DOCUMENT_BYTES
from far_node.errors import Busy

log = structlog.get_logger(__name__)

END_SECONDS = 60.0
"""How long the node gets to end by itself when the door closes."""
BODY_SECONDS = 5.0


class Waker:
    """A node's process, started when somebody calls and none runs.

    Args:
        command: what starts the node; no shell reads it.
        calls: which calls are heard.
        every: least seconds between two starts, so that callers cannot keep the machine busy with them.
    """

    def __init__(self, command: Sequence[str], calls: Calls, every: float) -> None:
        self._command, self._calls, self._every = tuple(command), calls, every
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = float("-inf")
        self._starting = asyncio.Lock()

    @property
    def is_awake(self) -> bool:
        """Whether the node's process runs."""
        return self._process is not None and self._process.returncode is None

    async def hear(self, data: bytes) -> bool:
        """Start the node, if the call is one that is heard and the node does not run.

        Returns:
            Whether it had to be started.

        Raises:
            CallRefused: the call is not heard.
            Busy: the node was started a moment ago, and has ended again.
            OSError: the command cannot be run.
        """
        self._calls.hear(data)
        async with self._starting:
            if self.is_awake:
                return False
            wait = self._started_at + self._every - time.monotonic()
            if wait > 0:
                raise Busy("the node was started a moment ago", retry_after=round(wait, 1))
            self._started_at = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        log.info("node_started", pid=self._process.pid)
        return True

    async def close(self) -> None:
        """End the node, if it runs, as its owner would."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def create_app(waker: Waker, path: str) -> Starlette:
    """The door: ``POST path`` with a call, ``GET /health``."""

    async def wake(request: Request) -> JSONResponse:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                has_started = await waker.hear(await _body_of(request))
        except TimeoutError:
            return _refusal(CallRefused("the call did not come in time"))
        except FarError as error:
            log.info("call_refused", code=error.code, reason=error.message)
            return _refusal(error)
        except OSError as error:
            log.error("node_not_started", reason=error.strerror)
            return JSONResponse({"error": {"code": "internal_error", "message": "the node cannot be started"}}, 500)
        return JSONResponse({"state": "starting" if has_started else "awake"}, 202 if has_started else 200)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"state": "awake" if waker.is_awake else "asleep"})

    return Starlette(routes=[Route(path, wake, methods=["POST"]), Route("/health", health)])


async def _body_of(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_DOCUMENT_BYTES:
            raise CallRefused(f"a call has at most {MAX_DOCUMENT_BYTES} bytes")
    return body


def _refusal(error: FarError) -> JSONResponse:
    headers = {} if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after)))}
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status, headers)
