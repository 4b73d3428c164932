"""Spans of requests: what is under what, whichever door they come through, and what is told of them."""

from __future__ import annotations

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from discovery.tracing import Tracing
from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.grpc_api import far_pb2, far_pb2_grpc
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.mcp_api.test_door import send, session_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What a collector of the gateway gets."""
    exporter = InMemorySpanExporter()

    def to_memory(_service: str) -> Tracing:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return Tracing(provider)

    monkeypatch.setattr(Tracing, "from_environment", to_memory)
    return exporter


def tree(spans: tuple[ReadableSpan, ...], trace: str = TRACE) -> set[tuple[str, str]]:
    """The name of every span of a trace, and that of the one it is under."""
    names = {one.context.span_id: one.name for one in spans if one.context is not None}
    return {
        (names.get(one.parent.span_id, f"{one.parent.span_id:016x}") if one.parent else "", one.name)
        for one in spans
        if one.context is not None and f"{one.context.trace_id:032x}" == trace
    }


WHOLE = {
    ("request", "distributed_inference"),
    ("distributed_inference", "queue"),
    ("distributed_inference", "payment"),
    ("distributed_inference", "inference"),
}


def test_a_request_is_traced_from_its_client_to_its_payment(
    open_house: OpenHouse, exporter: InMemorySpanExporter
) -> None:
    mesh = MeshDouble()
    user = open_house(mesh).user()
    exporter.clear()
    user.http.headers["traceparent"] = TRACEPARENT
    answer = user.generate()
    assert answer.status_code == 200, answer.text
    user.wait_for(lambda: tree(exporter.get_finished_spans()) == {(SPAN, "request"), *WHOLE})
    spans = exporter.get_finished_spans()
    acts = {(one.attributes or {})["far.act"] for one in spans if one.name == "payment"}
    assert acts == {"hold", "lock", "capture"}
    (request,) = (one for one in spans if one.name == "request")
    facts = dict(request.attributes or {})
    assert facts["http.route"] == "/api/inference/distributed/generate"
    assert facts["http.response.status_code"] == 200
    assert facts["far.request_id"] == answer.headers["x-request-id"]
    (whole,) = (one for one in spans if one.name == "distributed_inference")
    told = dict(whole.attributes or {})
    assert (told["far.model_id"], told["far.tier"], told["far.finish_reason"]) == (MODEL, "standard", "stop")
    assert whole.context is not None
    assert str(mesh.treatments[-1].trace_parent) == f"00-{TRACE}-{whole.context.span_id:016x}-01"  # as nodes are told


def test_a_failure_is_told_by_its_code(open_house: OpenHouse, exporter: InMemorySpanExporter) -> None:
    mesh = MeshDouble()
    user = open_house(mesh).user()
    mesh.break_at, mesh.breaks_with = 1, GenerationFailed("lost after the secret word")
    exporter.clear()
    user.http.headers["traceparent"] = TRACEPARENT
    user.generate("say the secret word")
    user.wait_for(lambda: tree(exporter.get_finished_spans()) >= WHOLE)
    failed = {one.name: (one.attributes or {}).get("error.type") for one in exporter.get_finished_spans()}
    assert failed["distributed_inference"] == failed["inference"] == "generation_failed"
    assert all("secret" not in one.to_json() for one in exporter.get_finished_spans())


def test_grpc_and_mcp_are_doors_too(open_house: OpenHouse, exporter: InMemorySpanExporter) -> None:
    house = open_house(MeshDouble())
    user, port = house.user(), house.open_grpc()
    exporter.clear()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        metadata = (("authorization", f"Bearer {user.token}"), ("traceparent", TRACEPARENT))
        far_pb2_grpc.FarMeshStub(channel).Infer(far_pb2.InferRequest(model_id=MODEL, prompt="x"), metadata=metadata)
    user.wait_for(lambda: tree(exporter.get_finished_spans()) == {(SPAN, "request"), *WHOLE})
    session, asked = session_of(user), {"name": "generate", "arguments": {"model_id": MODEL, "prompt": "x"}}
    exporter.clear()
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}
    answer = send(user, call, mcp_session_id=session, traceparent=TRACEPARENT)
    assert answer.status_code == 200, answer.text
    user.wait_for(lambda: tree(exporter.get_finished_spans()) >= {(SPAN, "request"), *WHOLE})
