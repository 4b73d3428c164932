"""Spans: what is under what, what they tell, and what they cost where nobody wants them."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.trace import TraceParent
from discovery.tracing import ENDPOINTS, Tracing, here, span

PARENT = TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {one.name: one for one in exporter.get_finished_spans()}


def test_what_is_done_below_a_door_is_under_it_and_the_door_under_who_asked(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    with tracing.begin("door", PARENT, {"far.model": "m"}) as door:
        assert door.parent is not None
        with span("room", {"far.tokens": 3}) as room:
            room.set({"far.kept": True})
        with span("other"):
            pass
    spans = by_name(exporter)
    assert {f"{one.context.trace_id:032x}" for one in spans.values() if one.context} == {PARENT.trace_id}
    assert spans["door"].parent is not None
    assert f"{spans['door'].parent.span_id:016x}" == PARENT.span_id
    assert f"{spans['door'].context.span_id:016x}" == door.parent.span_id
    assert spans["room"].parent == spans["other"].parent == spans["door"].context
    assert dict(spans["room"].attributes or {}) == {"far.tokens": 3, "far.kept": True}


async def test_a_task_is_under_the_span_in_which_it_was_begun(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    async def work() -> None:
        with span("work"):
            await asyncio.sleep(0)

    with tracing.begin("door", None):
        task = asyncio.create_task(work())
    await task
    spans = by_name(exporter)
    assert spans["work"].parent == spans["door"].context
    assert spans["door"].parent is None


def test_a_failure_is_known_by_its_code_and_not_by_its_words(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(InvalidArgument), tracing.begin("door", None), span("room"):
        raise InvalidArgument("the secret word")
    with pytest.raises(ValueError, match="secret"), tracing.begin("door", None), span("bug"):
        raise ValueError("the secret word")
    for one in exporter.get_finished_spans():
        assert one.status.status_code is StatusCode.ERROR
        assert "secret" not in one.to_json()
    assert (by_name(exporter)["room"].attributes or {})["error.type"] == "invalid_argument"
    assert (by_name(exporter)["bug"].attributes or {})["error.type"] == "ValueError"


def test_who_asks_not_to_be_recorded_is_not(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    with tracing.begin("door", TraceParent(PARENT.trace_id, PARENT.span_id, False)) as door, span("room"):
        assert door.parent is not None
        assert (door.parent.trace_id, door.parent.sampled) == (PARENT.trace_id, False)
    assert exporter.get_finished_spans() == ()


def test_without_a_collector_the_span_of_who_asks_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing = Tracing.from_environment("test")
    with tracing.begin("door", PARENT), span("room") as room:
        room.set({"far.tokens": 3})
        assert here().parent == PARENT
    with tracing.begin("door", None):
        assert here().parent is None
    tracing.close()


@pytest.mark.parametrize("is_missing", [False, True])
def test_opentelemetry_is_loaded_only_where_it_is_wanted_and_may_be_absent(is_missing: bool) -> None:
    blocked = "sys.modules['opentelemetry.sdk'] = None;" if is_missing else ""
    wanted = "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://127.0.0.1:9';" if is_missing else ""
    code = (
        f"import os, sys; [os.environ.pop(n, 0) for n in {ENDPOINTS}]; {blocked}{wanted}"
        "from discovery.tracing import Tracing, span\n"
        "tracing = Tracing.from_environment('test')\n"
        "with tracing.begin('door', None), span('room'): pass\n"
        "print('opentelemetry.trace' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
    assert ("far-mesh[otel]" in ran.stdout) is is_missing
