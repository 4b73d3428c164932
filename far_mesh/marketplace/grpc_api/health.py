"""``grpc.health.v1.Health``: serving as long as ``/ready`` says so.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from grpc import StatusCode
from grpc.aio import ServicerContext
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

Context = ServicerContext[Any, Any]

LOOK_SECONDS = 5.0
SAME_SECONDS = 1.0
MAX_WATCHERS = 100


class Health:
    """Answers for the whole server (the empty name) and for each of ``services``. Who asks often gets an answer that is
    up to ``SAME_SECONDS`` old."""

    def __init__(self, is_ready: Callable[[], Awaitable[bool]], services: Iterable[str]) -> None:
        self._is_ready = is_ready
        self._names = frozenset({"", *services})
        self._lock = asyncio.Lock()
        self._closing = asyncio.Event()
        self._looked = float("-inf")
        self._serving = False
        self._watchers = 0

    def close(self) -> None:
        """Not serving from now on; who watches is told, and let go."""
        self._closing.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:  # noqa: N802
        """Once."""
        if request.service not in self._names:
            await context.abort(StatusCode.NOT_FOUND, "no such service")
        return HealthCheckResponse(status=await self._status())

    async def List(self, _: HealthListRequest, _context: Context) -> HealthListResponse:  # noqa: N802
        """All at once."""
        answer = HealthCheckResponse(status=await self._status())
        return HealthListResponse(statuses=dict.fromkeys(self._names, answer))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """Now, and whenever it changes."""
        if self._watchers >= MAX_WATCHERS:
            await context.abort(StatusCode.RESOURCE_EXHAUSTED, "too many watch already: ask with Check")
        self._watchers += 1
        try:
            await self._watch(request.service in self._names, context)
        finally:
            self._watchers -= 1

    async def _watch(self, is_known: bool, context: Context) -> None:
        told, is_last = None, False
        while not is_last:
            is_last = self._closing.is_set()
            found = await self._status() if is_known else HealthCheckResponse.SERVICE_UNKNOWN
            if found != told:
                told = found
                await context.write(HealthCheckResponse(status=found))
            if not is_last:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), LOOK_SECONDS)

    async def _status(self) -> Any:
        async with self._lock:
            if time.monotonic() - self._looked > SAME_SECONDS:
                self._serving = await self._is_ready()
                self._looked = time.monotonic()
        is_serving = self._serving and not self._closing.is_set()
        return HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
