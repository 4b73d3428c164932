"""Round everything else: each exchange over HTTP is timed and counted, is a span, and leaves one line in the log.

Its route is named as the table of routes has it, never by the path that was asked for, which may have somebody's id in
it or, by mistake, somebody's key; nor is the query looked at.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.protocol.trace import read_trace_parent
from discovery.tracing import Span, Tracing
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.telemetry.metrics import UNMATCHED, Metrics
from far_mesh.marketplace.telemetry.refusals import counted_by

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Telemetry:
    """Where numbers and spans of an application go."""

    metrics: Metrics
    tracing: Tracing

    @classmethod
    def of(cls, settings: Settings) -> Telemetry:
        """Fresh counters, and a collector if the environment names one."""
        return cls(Metrics([offer.model_id for offer in settings.models]), Tracing.from_environment("far-mesh"))


class Watch:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._metrics, self._tracing = app, telemetry.metrics, telemetry.tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = read_trace_parent(Headers(scope=scope).get("traceparent"))
        with self._tracing.begin("request", parent) as span, bound_to(span), counted_by(self._metrics.answered_with):
            exchange = _Exchange(send)
            try:
                await self._app(scope, receive, exchange.send)
            finally:
                self._tell(scope, exchange, span)

    def _tell(self, scope: Scope, exchange: _Exchange, span: Span) -> None:
        method, route = scope["method"], getattr(scope.get("route"), "path", None)
        seconds = time.monotonic() - exchange.began
        self._metrics.asked(method, route, exchange.status, seconds)
        request_id = scope.get("state", {}).get("request_id", "")
        span.set(
            {
                "http.request.method": method,
                "http.route": route or UNMATCHED,
                "http.response.status_code": exchange.status,
                "far.request_id": request_id,
            }
        )
        log.info(
            "request",
            method=method,
            route=route,
            status=exchange.status,
            ms=round(seconds * 1000),
            bytes=exchange.sent,
            request_id=request_id,
        )


class _Exchange:
    """What goes out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.began = time.monotonic()
        self.status = self.sent = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
        self.sent += len(message.get("body", b""))


def bound_to(span: Span) -> AbstractContextManager[None]:
    """Log lines inside of this name the trace that ``span`` is of, if it is of one."""
    trace: dict[str, str] = {} if span.parent is None else {"trace_id": span.parent.trace_id}
    return structlog.contextvars.bound_contextvars(**trace)
