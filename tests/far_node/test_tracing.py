"""What a node tells of sessions whose clients trace them: on its log lines, and as spans of its own."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from discovery.console import quiet_libraries
from discovery.protocol.trace import TraceParent
from discovery.tracing import Tracing
from far_mesh.config import Treatment
from tests.support.door import knock, opened, opening, refusal
from tests.support.models import BLOCKS
from tests.support.ring import Ring, a_ring

PARENT = TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
TRACED = Treatment(trace_parent=PARENT)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced_ring(tiny: Path, exporter: InMemorySpanExporter) -> AsyncIterator[Ring]:
    """Two nodes whose owner has a collector."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with a_ring(tiny) as ring:
        await ring.add(0, 2, tracing=Tracing(provider))
        await ring.add(2, BLOCKS, tracing=Tracing(provider))
        yield ring


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    quiet_libraries(0)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stream))
    yield stream
    structlog.reset_defaults()


async def test_a_traced_session_is_one_span_at_each_node(traced_ring: Ring, exporter: InMemorySpanExporter) -> None:
    session = await traced_ring.opened(treatment=TRACED)
    await session.step(traced_ring.random_hidden(5), 0)
    await session.step(traced_ring.random_hidden(1), 5)
    await session.finish()
    await traced_ring.close()
    spans = exporter.get_finished_spans()
    assert [one.name for one in spans] == ["session", "session"]
    told = {str((one.attributes or {})["far.peer_id"]): one for one in spans}
    assert told.keys() == {node.peer_id for node in traced_ring.nodes}
    for one in spans:
        assert one.parent is not None
        assert (f"{one.parent.trace_id:032x}", f"{one.parent.span_id:016x}") == (PARENT.trace_id, PARENT.span_id)
        facts = dict(one.attributes or {})
        assert facts["far.steps"] == 2
        assert facts["far.token_layers"] == 6 * (facts["far.end_block"] - facts["far.first_block"])  # type: ignore[operator]
        assert facts["far.computed_seconds"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("treatment", [Treatment(), Treatment(trace_parent=TraceParent("1" * 32, "2" * 16, False))])
async def test_who_does_not_trace_a_session_has_no_span_of_it(
    traced_ring: Ring, exporter: InMemorySpanExporter, treatment: Treatment
) -> None:
    session = await traced_ring.opened(treatment=treatment)
    await session.finish()
    await traced_ring.close()
    assert exporter.get_finished_spans() == ()


async def test_a_session_that_is_refused_is_a_span_with_the_reason(
    traced_ring: Ring, exporter: InMemorySpanExporter
) -> None:
    channel = await knock(traced_ring, traced_ring.nodes[0])
    await channel.send(opening(traced_ring, traced_ring.nodes[0], model_digest="0" * 64, trace_parent=PARENT))
    await refusal(channel)
    await traced_ring.close()
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "blocks_not_served"


async def test_log_lines_of_a_traced_session_name_its_trace(ring: Ring, log: io.StringIO) -> None:
    channel = await opened(ring, ring.nodes[0], trace_parent=PARENT)
    await channel.send(opening(ring, ring.nodes[0]))
    await refusal(channel)
    assert PARENT.trace_id in log.getvalue()
    await channel.close()
