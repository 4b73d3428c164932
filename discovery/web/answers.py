"""The one shape of failures over HTTP: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from discovery.protocol.errors import FarError

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


class ErrorFacts(BaseModel):
    """What went wrong. ``code`` is stable; ``message`` says what to do; ``param`` names the culprit, if any."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every failure has this shape."""

    error: ErrorFacts


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the document of the interface says of answers with these statuses."""
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


def body_of(error: FarError) -> ErrorBody:
    """``error`` for the wire."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    param = error.facts.get("param")
    return ErrorBody(
        error=ErrorFacts(message=error.message, type=kind, param=None if param is None else str(param), code=error.code)
    )
