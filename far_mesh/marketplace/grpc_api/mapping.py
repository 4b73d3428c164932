"""Between the messages of ``far.proto`` and our words. Pure.

What a message asks for is checked by the shapes of ``/api/inference``, and answers are filled from them, so that both
doors accept, refuse and say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from pydantic import BaseModel, ValidationError

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.grpc_api import far_pb2
from far_mesh.marketplace.health.schemas import Readiness
from far_mesh.marketplace.http import from_validation
from far_mesh.marketplace.inference.schemas import GenerateAnswer, GenerateRequest, QuoteRequest, TokenEvent

MAX_KEY = 255

_JSON: dict[type[Message], tuple[str, ...]] = {far_pb2.Function: ("parameters",), far_pb2.JsonSchema: ("schema",)}
_ALWAYS: dict[type[Message], dict[str, Any]] = {
    far_pb2.Tool: {"type": "function"},
    far_pb2.ToolCall: {"type": "function"},
}

ShapeT = TypeVar("ShapeT", bound=BaseModel)
MessageT = TypeVar("MessageT", bound=Message)


def generate_request(request: far_pb2.InferRequest, *, stream: bool) -> GenerateRequest:
    """What to generate.

    Raises:
        InvalidArgument: a field is absent or means nothing; names it.
    """
    fields = _given(request)
    fields.pop("idempotency_key", None)
    choice = fields.get("tool_choice")
    if choice is not None and choice not in ("none", "auto", "required"):
        fields["tool_choice"] = {"type": "function", "function": {"name": choice}}
    return _checked(GenerateRequest, fields | {"stream": stream})


def idempotency_key(request: far_pb2.InferRequest) -> str | None:
    """The name that the caller gave the request, if it did.

    Raises:
        InvalidArgument: empty or too long.
    """
    if not request.HasField("idempotency_key"):
        return None
    if not 1 <= len(request.idempotency_key) <= MAX_KEY:
        raise InvalidArgument(f"idempotency_key has from 1 to {MAX_KEY} characters", param="idempotency_key")
    return request.idempotency_key


def quote_request(request: far_pb2.QuoteRequest) -> QuoteRequest:
    """What to quote.

    Raises:
        InvalidArgument: a field is absent or means nothing; names it.
    """
    return _checked(QuoteRequest, _given(request))


def response_of(answer: GenerateAnswer) -> far_pb2.InferResponse:
    """A whole answer."""
    bill = filled(far_pb2.Bill(), answer)
    bill.finish_reasons.extend(choice.finish_reason for choice in answer.choices or ())
    return filled(far_pb2.InferResponse(bill=bill), answer)


def event_of(told: TokenEvent) -> far_pb2.InferEvent:
    """What a token tells: its text alone, if that is all."""
    if told.index is None and told.logprob is None and told.tool_calls is None:
        return far_pb2.InferEvent(text=told.token)
    return far_pb2.InferEvent(token=filled(far_pb2.TokenEvent(), told))


def status_of(found: Readiness) -> far_pb2.NodeStatusResponse:
    """Whether requests can be served now."""
    models = [
        far_pb2.ModelStatus(
            id=model_id,
            ok=model.ok,
            reason=model.reason,
            active_nodes=model.active_nodes,
            uncovered=[far_pb2.BlockRange(first=first, end=end) for first, end in model.uncovered],
        )
        for model_id, model in found.models.items()
    ]
    return far_pb2.NodeStatusResponse(status=found.status, reasons=found.reasons, models=models)


def filled(message: MessageT, shape: BaseModel) -> MessageT:
    """``message`` with those of its fields that ``shape`` has too."""
    return ParseDict(shape.model_dump(mode="json", exclude_none=True), message, ignore_unknown_fields=True)


def _given(message: Message) -> dict[str, Any]:
    """The fields that somebody has set, and what is the same for all messages of a kind.

    Raises:
        InvalidArgument: text that should be JSON is none.
    """
    given = {field.name: _plain(value, is_repeated=field.is_repeated) for field, value in message.ListFields()}
    for name in _JSON.get(type(message), ()):
        if name in given:
            given[name] = _from_json(name, given[name])
    return _ALWAYS.get(type(message), {}) | given


def _plain(value: Any, *, is_repeated: bool) -> Any:
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if is_repeated:
        return [_plain(one, is_repeated=False) for one in value]
    return _given(value) if isinstance(value, Message) else value


def _from_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidArgument(f"{name} is the text of a JSON object", param=name) from None


def _checked(shape: type[ShapeT], fields: dict[str, Any]) -> ShapeT:
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error.errors(), fields) from None
