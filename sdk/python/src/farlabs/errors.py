"""What can go wrong, as one family. What ``code`` means never changes; with ``retry`` asking again can help."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any


class FarLabsError(Exception):
    """The parent of all errors of this package, bad arguments of its own included.

    Attributes:
        message: what went wrong and what to do.
        code: of the gateway, or of this package.
        status: of HTTP; None where there was no answer, or it broke off.
        type: the gateway's word for the kind of failure.
        param: the parameter that it is about, such as ``messages.0.role``.
        retry: whether asking again can help.
        retry_after: seconds after which it can.
        request_id: to be named when you ask the marketplace's operator.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        type: str | None = None,
        param: str | None = None,
        retry: bool = False,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.type = type
        self.param = param
        self.retry = retry
        self.retry_after = retry_after
        self.request_id = request_id


class ConnectionError(FarLabsError, builtins.ConnectionError):
    """The gateway could not be reached, or hung up before it answered."""


class TimeoutError(FarLabsError, builtins.TimeoutError):
    """Nothing came for longer than ``timeout``."""


class StreamError(FarLabsError):
    """An answer that had begun broke off: what came before is right, what it cost is told by ``request(id)``."""


class InvalidRequestError(FarLabsError):
    """400, 413, 415, 422: the request means nothing, or something that is not served."""


class AuthenticationError(FarLabsError):
    """401: no credential, or one that counts no more."""


class PaymentRequiredError(FarLabsError):
    """402: there is not enough money. ``accepts`` are the ways to pay, as x402 writes them."""

    def __init__(self, message: str, *, accepts: Sequence[Mapping[str, Any]] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.accepts = tuple(accepts)


class ForbiddenError(FarLabsError):
    """403: the credential is good, and not for this."""


class NotFoundError(FarLabsError):
    """404: there is no such thing, or it is somebody else's."""


class ConflictError(FarLabsError):
    """409: something else stands in the way, such as a request that was asked before."""


class RateLimitError(FarLabsError):
    """429: too much in this minute, or a queue that is full."""


class ServerError(FarLabsError):
    """5xx: the marketplace or its nodes could not do it."""


class ReceiptError(FarLabsError):
    """A receipt that proves nothing."""


class WebhookError(FarLabsError):
    """A message that does not come from the gateway, or is an old one that somebody sends again."""


_BY_STATUS: Mapping[int, builtins.type[FarLabsError]] = {
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}

CAN_RETRY = frozenset({408, 429, 502, 503, 504})
"""Statuses at which nothing was begun, so that the same request may be sent again."""


def error_of(
    status: int | None, body: object, *, retry_after: float | None = None, request_id: str | None = None
) -> FarLabsError:
    """What a body of the gateway's, of whatever shape, says of a failure. Without a ``status``: of a stream."""
    whole = body if isinstance(body, Mapping) else {}
    told = whole.get("error")
    told = told if isinstance(told, Mapping) else {}
    facts: dict[str, Any] = {
        "code": _text(told.get("code")) or f"http_{status or 'error'}",
        "status": status,
        "type": _text(told.get("type")),
        "param": _text(told.get("param")),
        "retry": status in CAN_RETRY,
        "retry_after": retry_after,
        "request_id": request_id,
    }
    message = _text(told.get("message")) or f"the gateway answered with status {status}"
    if status is None:
        return StreamError(_text(told.get("message")) or "the answer failed", **facts)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequestError)
    if kind is PaymentRequiredError:
        accepts = whole.get("accepts")
        offers = [one for one in accepts if isinstance(one, Mapping)] if isinstance(accepts, list) else []
        return PaymentRequiredError(message, accepts=offers, **facts)
    return kind(message, **facts)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
