"""How members of the error family travel over gRPC.

A status code of gRPC, the message, and in the trailers a ``google.rpc.Status`` with an ``ErrorInfo``: its ``reason`` is
our code, its ``metadata`` names the culprit; and a ``RetryInfo`` where somebody knows when to ask again
(AIP-193, the richer error model).
"""

from __future__ import annotations

import math

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from discovery.protocol.errors import FarError

DOMAIN = "far-mesh"
DETAILS = "grpc-status-details-bin"
_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    402: StatusCode.FAILED_PRECONDITION,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ALREADY_EXISTS,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: FarError) -> StatusCode:
    """The status of gRPC that says the same. UNAVAILABLE is what may be tried again."""
    if error.status in _CODES:
        return _CODES[error.status]
    if error.status < 500:
        return StatusCode.FAILED_PRECONDITION
    return StatusCode.UNAVAILABLE if error.retry else StatusCode.INTERNAL


def trailers_of(error: FarError) -> tuple[tuple[str, bytes], ...]:
    """The details of ``error``, as trailing metadata."""
    param = error.facts.get("param")
    details: list[Message] = [
        ErrorInfo(reason=error.code, domain=DOMAIN, metadata={} if param is None else {"param": str(param)})
    ]
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMicroseconds(math.ceil(error.retry_after * 1_000_000))
        details.append(RetryInfo(retry_delay=delay))
    status = Status(code=code_of(error).value[0], message=error.message, details=list(map(_packed, details)))
    return ((DETAILS, status.SerializeToString()),)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
