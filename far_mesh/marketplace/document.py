"""The document of the interface (OpenAPI), with the failures that each operation can meet.

The framework describes failures as it would answer them itself: 422, in a shape of its own. Here they have the one
shape of :mod:`far_mesh.marketplace.http`, on every path, and which of them an operation can meet follows from what it
takes: who asks, an id in the path, a body. What is particular to one, its route says with ``responses=errors(…)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from far_mesh.marketplace.http import ErrorBody, PaymentNeeded

_REF = "#/components/schemas/{model}"
_OF_THE_FRAMEWORK = ("HTTPValidationError", "ValidationError")
_WAIT = {
    "Retry-After": {"description": "Seconds after which asking again can help.", "schema": {"type": "integer"}},
}
_WITH_RETRY_AFTER = frozenset({408, 429, 503})


class Documented(FastAPI):
    """An application whose document says how its operations fail, and what the ``events`` of its streams look like,
    for which OpenAPI has no place of its own: they are among the schemas."""

    def __init__(self, *, events: Sequence[type[BaseModel]] = (), **options: Any) -> None:
        super().__init__(**options)
        self._events = tuple(events)

    def openapi(self) -> dict[str, Any]:
        """The document."""
        if self.openapi_schema is None:
            self.openapi_schema = with_failures(super().openapi(), self._events)
        return self.openapi_schema


def with_failures(document: dict[str, Any], events: Sequence[type[BaseModel]] = ()) -> dict[str, Any]:
    """``document`` with the failures of every operation in our shape, and with the shapes of ``events``."""
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _OF_THE_FRAMEWORK:
        schemas.pop(name, None)
    models: list[type[BaseModel]] = [ErrorBody, PaymentNeeded, *events]
    sent: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "serialization") for model in models]
    _, shapes = models_json_schema(sent, ref_template=_REF)
    schemas |= {name: shape for name, shape in shapes["$defs"].items() if name not in schemas}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses: dict[str, Any] = operation["responses"]
            responses.pop("422", None)
            told = {int(status) for status in responses if int(status) >= 400}
            for status in told | set(_statuses(path, operation)):
                if not _has_shape(responses.get(str(status), {})):
                    responses[str(status)] = _failure(status)
            operation["responses"] = dict(sorted(responses.items()))
    return document


def _statuses(path: str, operation: Mapping[str, Any]) -> Iterator[int]:
    yield from (429, 500, 503)
    if "{" in path:
        yield 404
    if "security" in operation:
        yield from (401, 403)
    if "parameters" in operation or "requestBody" in operation:
        yield 400
    if "requestBody" in operation:
        yield from (408, 413, 415)


def _has_shape(response: Mapping[str, Any]) -> bool:
    """Whether a route says itself what such an answer looks like, and it is not our usual failure."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema) and schema.get("$ref") != _REF.format(model=ErrorBody.__name__)


def _failure(status: int) -> dict[str, Any]:
    shape = PaymentNeeded if status == HTTPStatus.PAYMENT_REQUIRED else ErrorBody
    failure: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=shape.__name__)}}},
    }
    return failure | ({"headers": _WAIT} if status in _WITH_RETRY_AFTER else {})
