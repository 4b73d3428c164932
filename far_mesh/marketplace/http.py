"""The edge: request ids, body limits, and the one place where failures become answers.

{"error": {"message", "type", "param", "code"}}, and for 402 ``accepts``: what would be accepted as payment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.web.answers import ErrorBody as ErrorBody
from discovery.web.answers import body_of
from discovery.web.answers import errors as errors
from far_mesh.marketplace.errors import (
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from far_mesh.marketplace.logs import broke
from far_mesh.marketplace.telemetry.refusals import note

X402_VERSION = 2
_PLACES = ("body", "query", "path", "header")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

log = structlog.get_logger(__name__)


class PaymentNeeded(ErrorBody):
    """A failure for want of money, and the ways to pay what is missing, where there are any, as x402 writes them."""

    x402Version: int | None = None  # noqa: N815  # as x402 names it
    accepts: list[dict[str, Any]] | None = None


def error_body(error: FarError) -> ErrorBody:
    """``error`` for the wire. Whoever counts what callers are given is told."""
    note(error)
    return body_of(error)


Accepts = Callable[[FarError], list[dict[str, Any]] | None]
"""The ways to pay what an error misses."""


def error_response(error: FarError, accepts: list[dict[str, Any]] | None = None) -> JSONResponse:
    """``error`` as an answer with its status and headers, and what would be accepted as payment."""
    headers: dict[str, str] = {}
    if "allow" in error.facts:
        headers["allow"] = error.facts["allow"]
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after * 1000)))  # which clients of OpenAI prefer
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    headers |= error.facts.get("headers", {})
    body = error_body(error).model_dump()
    if accepts:
        body |= {"x402Version": X402_VERSION, "accepts": accepts}
    return JSONResponse(body, error.status, headers)


def install(app: FastAPI, max_body_bytes: int, body_seconds: float) -> None:
    """Put the edge round ``app``. ``app.state.accepts`` says how what a 402 misses can be paid."""
    app.state.accepts = lambda error: None

    @app.exception_handler(FarError)
    async def far_error(request: Request, error: FarError) -> JSONResponse:
        log.info("request_refused", code=error.code, status=error.status)
        accepts: Accepts = request.app.state.accepts
        return error_response(error, accepts(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if _is_no_json(request, error):
            return error_response(UnsupportedMediaType("send JSON, with Content-Type: application/json"))
        return error_response(from_validation(error.errors(), error.body))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, FarError):  # raised while the framework read the body
            return error_response(error.__cause__)
        if error.status_code == MethodNotAllowed.status:
            routes = ((str(one.path), one.methods or ()) for one in iter_route_contexts(app.routes))
            allow = methods_at(routes, request.url.path)
            return error_response(MethodNotAllowed("this path does not take this method", allow=", ".join(allow)))
        if error.status_code == NotFound.status:
            return error_response(NotFound("there is nothing at this path"))
        return error_response(InvalidArgument(str(error.detail)))

    app.add_middleware(Edge, max_body_bytes=max_body_bytes, body_seconds=body_seconds)


async def whole_characters(request: Request) -> None:
    """A dependency: no half of a character comes in. JSON can write one (a surrogate alone, RFC 8259 §8.2), which is no
    text: it could be neither kept nor sent on.

    Raises:
        InvalidArgument: the body holds one.
    """
    body = await request.body()
    if _SURROGATE.search(body) is None:
        return
    with suppress(ValueError, RecursionError):  # no JSON: the framework says so
        try:
            json.dumps(json.loads(body), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidArgument("the body holds half a character: a surrogate without the other") from None


def methods_at(routes: Iterable[tuple[str, Iterable[str]]], path: str) -> list[str]:
    """The methods that ``path`` takes, of routes by their patterns and methods. Several routes may share a pattern; one
    without gaps goes before those that have a gap where ``path`` has its last part."""
    found: dict[str, set[str]] = {}
    for pattern, methods in routes:
        if compile_path(pattern)[0].match(path):
            found.setdefault(pattern, set()).update(methods)
    return sorted(found.get(path) or next(iter(found.values()), ()))


def _is_no_json(request: Request, error: RequestValidationError) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    return not is_json and any(one["loc"] == ("body",) and one["type"] != "missing" for one in error.errors())


def from_validation(errors: Sequence[Any], sent: Any = None) -> FarError:
    """The first of pydantic's ``errors`` about what somebody sent, as a member of our family."""
    if errors[0]["type"] == "json_invalid":
        return InvalidArgument("the body is not JSON")
    named = [(_place(error, sent), _shape(error, sent), error) for error in errors]
    top, wrong = named[0][0], Counter(shape for _, shape, _ in named)
    # Of several shapes that it could have, the one that it has the most of: right the farthest, wrong the least often.
    about = [one for one in named if one[0][: len(top)] == top]
    place, _, first = max(about, key=lambda one: (len(one[0]), -wrong[one[1]]))
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return UnsupportedParameter(f"the parameter {param!r} is not supported", param=param)
    return InvalidArgument(f"{param or 'the body'}: {first['msg']}", param=param)


def _place(error: Mapping[str, Any], sent: Any) -> list[str]:
    """Where in a body it is, such as ``messages.0.role``. Where there are several shapes to choose from pydantic puts
    their names in between: they are no part of what was sent."""
    where, *place = error["loc"] if error["loc"] and error["loc"][0] in _PLACES else ("body", *error["loc"])
    if where == "body" and sent is not None:
        place = list(_followed(place, sent, is_missing=error["type"] == "missing"))
    return list(map(str, place))


def _shape(error: Mapping[str, Any], sent: Any) -> tuple[Any, ...]:
    """Which of several shapes an error is about: its place as far as the first name that is no part of it."""
    loc = [part for part in error["loc"] if part not in _PLACES]
    for depth, (part, named) in enumerate(zip_longest(loc, _place(error, sent)), 1):
        if str(part) != named:
            return tuple(loc[:depth])
    return tuple(loc)


def _followed(place: Sequence[str | int], sent: Any, *, is_missing: bool) -> Iterator[str | int]:
    for depth, part in enumerate(place, 1):
        if (isinstance(sent, list) and isinstance(part, int)) or (isinstance(sent, Mapping) and part in sent):
            yield part
            sent = sent[part]  # type: ignore[index]  # a number where it is a list
        elif is_missing and depth == len(place):
            yield part


class Edge:
    """The outermost room: names each request, limits its body, and lets no exception out."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_seconds: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            exchange = _Exchange(self._app, scope, receive, send, self._max_body_bytes, self._body_seconds)
            await exchange.go()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, max_body_bytes: int, body_seconds: float
    ) -> None:
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self._max_body_bytes, self._body_seconds = max_body_bytes, body_seconds
        self._body_bytes = 0
        self._has_body = self._has_given_up = False
        self._status = 0
        self._started = time.monotonic()

    async def go(self) -> None:
        try:
            self._check_path()
            self._check_announced_length()
            await self._app(self._scope, self.receive, self.send)
        except FarError as error:
            await self._fail(error)
        except Exception as error:  # the one edge: whatever it was, nobody outside learns details
            await self._fail(broke("request_broke", error))

    def _milliseconds(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def _check_path(self) -> None:
        if "\0" in self._scope["path"]:  # which PostgreSQL cannot even be asked about
            raise NotFound("there is nothing at this path")

    def _check_announced_length(self) -> None:
        announced = Headers(scope=self._scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> BodyTooLarge:
        self._has_given_up = True
        return BodyTooLarge(f"the body is longer than {self._max_body_bytes} bytes")

    async def receive(self) -> Message:
        message = await self._receive() if self._has_body else await self._more_of_the_body()
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            if self._body_bytes > self._max_body_bytes:
                raise self._too_large()
        return message

    async def _more_of_the_body(self) -> Message:
        due = self._started + self._body_seconds
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self._has_given_up = True
            raise RequestTimeout(f"the body was not here within {self._body_seconds:g} s") from None
        self._has_body = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            if self._has_given_up:
                headers["connection"] = "close"  # what is still to come of the body would be read as the next request
            headers["x-request-id"] = self._scope["state"]["request_id"]
            headers["openai-processing-ms"] = str(self._milliseconds())
            headers["x-content-type-options"] = "nosniff"  # pages of this origin hold credentials
        await self._send(message)

    async def _fail(self, error: FarError) -> None:
        if not self._status:
            await error_response(error)(self._scope, self._receive, self.send)


def new_request_id() -> str:
    """A name that no other request has."""
    return "req_" + secrets.token_hex(12)


def request_id_of(request: Request) -> str:
    """The name of this request: in the answer's header, in the logs, in the books and on chain."""
    state: Mapping[str, str] = request.scope["state"]
    return state["request_id"]


def call_request(request: Request, wallet: str, idempotency_key: str) -> str:
    """Name a request after the key that its caller gave it: the same wallet and key are the same request for ever."""
    request_id = request.scope["state"]["request_id"] = id_of_call(wallet, idempotency_key)
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


def id_of_call(wallet: str, idempotency_key: str) -> str:
    """The id of the request that ``wallet`` makes with this key."""
    return "req_" + hashlib.sha256(f"{wallet}/{idempotency_key}".encode()).hexdigest()[:24]
