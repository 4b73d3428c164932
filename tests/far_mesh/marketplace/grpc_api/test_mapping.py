"""The messages say what the shapes of ``/api/inference`` say."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from discovery.protocol.errors import FarError
from far_mesh.marketplace.grpc_api import far_pb2
from far_mesh.marketplace.grpc_api.refusals import code_of
from far_mesh.marketplace.inference.schemas import (
    DoneEvent,
    GenerateRequest,
    ModelEntry,
    NodeUsed,
    QuoteAnswer,
    VoucherEvent,
)
from far_mesh.marketplace.inference.schemas import QuoteRequest as QuoteShape


@pytest.mark.parametrize(
    ("message", "shape", "own"),
    [
        (far_pb2.InferRequest, GenerateRequest, {"idempotency_key"}),
        (far_pb2.QuoteRequest, QuoteShape, set()),
        (far_pb2.QuoteResponse, QuoteAnswer, set()),
        (far_pb2.Model, ModelEntry, set()),
        (far_pb2.Bill, DoneEvent, set()),
        (far_pb2.NodeUsed, NodeUsed, set()),
        (far_pb2.VoucherNeeded, VoucherEvent, set()),
    ],
)
def test_every_field_is_one_of_the_http_door(message: type, shape: type[BaseModel], own: set[str]) -> None:
    fields = {field.name for field in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]
    assert fields - own <= set(shape.model_fields)


def test_every_error_has_a_code_and_those_that_may_pass_are_told_apart() -> None:
    kinds = set(FarError._by_code.values())
    assert len(kinds) > 30
    for kind in kinds:
        code = code_of(kind("…")).name
        assert code not in ("OK", "UNKNOWN", "CANCELLED")
        if kind.status >= 500:
            assert (code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")) >= kind.retry, kind
