"""What being seen from outside costs a request: nothing to speak of where nobody traces.

``python -m benchmarks.telemetry`` sends empty requests through an application that does nothing, bare and inside of
what counts, logs and traces, in turns; and opens spans where nobody records any. In one process, without a network.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.support import report
from discovery.tracing import Tracing, span
from far_mesh.marketplace import logs
from far_mesh.marketplace.telemetry.edge import Telemetry, Watch
from far_mesh.marketplace.telemetry.metrics import Metrics

RESULTS = Path(__file__).parent / "results"
SPANS = 4
"""As many as a request has below its own."""


class _Nowhere(SpanExporter):
    """A collector that is always there and keeps nothing."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    for _ in range(SPANS):
        with span("work", {"far.act": "nothing"}):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def _microseconds(app: ASGIApp, requests: int) -> float:
    """Of the mean request."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Message) -> None:
        """Nobody listens."""

    began = time.perf_counter()
    for _ in range(requests):
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "state": {}}
        await app(scope, receive, send)
    return (time.perf_counter() - began) / requests * 1e6


def _applications() -> dict[str, ASGIApp]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    metrics = Metrics(["m"])
    return {
        "bare": _bare,
        "with spans that nobody records": _application,
        "counted and logged, not traced": Watch(_application, Telemetry(metrics, Tracing())),
        "counted, logged and traced": Watch(_application, Telemetry(metrics, Tracing(provider))),
    }


async def measure(rounds: int, requests: int) -> dict[str, float]:
    """Microseconds per request of each, the median of the rounds."""
    applications = _applications()
    times: dict[str, list[float]] = {name: [] for name in applications}
    for _ in range(rounds):
        for name, app in applications.items():
            times[name].append(await _microseconds(app, requests))
    return {name: round(statistics.median(found), 2) for name, found in times.items()}


def main() -> None:
    """Measure, tell, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/telemetry.json")
    arguments, commit = parser.parse_args(), report.commit()
    logs.configure(io.StringIO())
    results = asyncio.run(measure(arguments.rounds, arguments.requests))
    for name, microseconds in results.items():
        print(f"{name:34} {microseconds:8.2f} µs a request")
    if arguments.keep:
        report.keep(RESULTS, "telemetry", "python -m benchmarks.telemetry --keep", commit, results)


if __name__ == "__main__":
    main()
