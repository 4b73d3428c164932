"""The edge of the service: what a request may weigh, how often one may ask, and how failures and answers look."""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.web.address import caller_of, subscriber
from discovery.web.answers import body_of
from discovery.web.errors import (
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    UnsupportedMediaType,
)
from discovery.web.windows import Memory, Share

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 15.0
_PLACES = ("body", "query", "path", "header")
_BEARER = "bearer "
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

log = structlog.get_logger(__name__)

Watch = Callable[[str, int, float], None]
"""Told of each answer: the path as the document of the interface has it, the status, and how many seconds it took."""


def answer(request: Request, told: BaseModel | bytes) -> Response:
    """``told`` as JSON (if it is not yet) with its ETag (RFC 9110 §8.8.3), or 304 where the caller has just that."""
    body = told if isinstance(told, bytes) else told.model_dump_json().encode()
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    known = request.headers.get("if-none-match", "")
    if known == "*" or tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


class Limits:
    """So many requests a minute of one address; 0: as many as anybody likes."""

    def __init__(self, requests_per_minute: int, writes_per_minute: int) -> None:
        self._windows = Memory()
        self._per_minute = {"requests": requests_per_minute, "writes": writes_per_minute}

    async def take(self, kind: str, request: Request) -> None:
        """Count a request.

        Raises:
            RateLimited: it is one too many.
        """
        limit = self._per_minute[kind]
        if not limit:
            return
        window = f"{kind}/{subscriber(caller_of(request).address)}"
        verdict = await self._windows.take(secrets.token_hex(8), [Share(window, limit)])
        if verdict.wait_us:
            seconds = verdict.wait_us / 1_000_000
            raise RateLimited(
                f"your address has asked {limit} times within a minute: ask again in {math.ceil(seconds)} s",
                retry_after=seconds,
            )


async def may_ask(request: Request) -> None:
    """A dependency: who asks too often is refused."""
    await request.app.state.limits.take("requests", request)


async def may_write(request: Request) -> None:
    """A dependency of what changes something."""
    await request.app.state.limits.take("writes", request)


async def may_look(request: Request) -> None:
    """A dependency of metrics: for who has the token, and where there is none for this machine alone.

    Raises:
        Unauthorized: it is neither.
    """
    token: str | None = request.app.state.metrics_token
    said = request.headers.get("authorization", "")
    if token is None:
        caller = caller_of(request)
        is_direct = not any(name in request.headers for name in _FORWARDED)
        if is_direct and not caller.hidden and caller.address is not None and caller.address.is_loopback:
            return
    elif said.lower().startswith(_BEARER):
        shown = said[len(_BEARER) :].strip()
        if hmac.compare_digest(shown.encode(), token.encode()):
            return
    raise Unauthorized("metrics are for those who have FAR_DISCOVERY_METRICS_TOKEN")


def error_response(error: FarError) -> JSONResponse:
    """``error`` as an answer with its status and headers."""
    headers: dict[str, str] = {}
    if "allow" in error.facts:
        headers["allow"] = error.facts["allow"]
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body_of(error).model_dump(), error.status, headers)


def install(app: FastAPI, watch: Watch) -> None:
    """Put the edge round ``app``."""

    @app.exception_handler(FarError)
    async def far_error(_request: Request, error: FarError) -> JSONResponse:
        log.info("request_refused", code=error.code, status=error.status)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if first["loc"][0] == "body" and kind != "application/json":
            return error_response(UnsupportedMediaType("send JSON, with Content-Type: application/json"))
        if first["type"] == "json_invalid":
            return error_response(InvalidArgument("the body is not JSON"))
        param = ".".join(str(part) for part in first["loc"] if part not in _PLACES) or None
        return error_response(InvalidArgument(f"{param or 'the body'}: {first['msg']}", param=param))

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, FarError):  # raised while the framework read the body
            return error_response(error.__cause__)
        if error.status_code == MethodNotAllowed.status:
            allow = (error.headers or {}).get("Allow", "")
            return error_response(MethodNotAllowed("this path does not take this method", allow=allow))
        if error.status_code == NotFound.status:
            return error_response(NotFound("there is nothing at this path"))
        return error_response(InvalidArgument(str(error.detail)))

    app.add_middleware(Edge, watch=watch)


class Edge:
    """The outermost room: limits each request's body, and lets no exception out."""

    def __init__(self, app: ASGIApp, watch: Watch) -> None:
        self._app, self._watch = app, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._app, scope, receive, send)
        started = time.perf_counter()
        try:
            await exchange.go()
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._watch(path, exchange.status or 499, time.perf_counter() - started)


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self._request_id = "req_" + secrets.token_hex(12)
        self._body_bytes = 0
        self._has_body = self._has_given_up = False
        self._due = time.monotonic() + BODY_SECONDS
        self.status = 0

    async def go(self) -> None:
        try:
            self._check()
            await self._app(self._scope, self.receive, self.send)
        except FarError as error:
            await self._fail(error)
        except Exception as error:  # the one edge: whatever it was, nobody outside learns details
            log.error("request_broke", request_id=self._request_id, kind=type(error).__name__, exc_info=error)
            await self._fail(FarError("something broke here; it is in the logs"))

    def _check(self) -> None:
        if "\0" in self._scope["path"]:  # which PostgreSQL cannot even be asked about
            raise NotFound("there is nothing at this path")
        announced = Headers(scope=self._scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > MAX_BODY_BYTES:
            raise self._too_large()

    def _too_large(self) -> BodyTooLarge:
        self._has_given_up = True
        return BodyTooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes")

    async def receive(self) -> Message:
        message = await self._receive() if self._has_body else await self._more_of_the_body()
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            if self._body_bytes > MAX_BODY_BYTES:
                raise self._too_large()
        return message

    async def _more_of_the_body(self) -> Message:
        try:
            async with asyncio.timeout(max(0.0, self._due - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self._has_given_up = True
            raise RequestTimeout(f"the body was not here within {BODY_SECONDS:g} s") from None
        self._has_body = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._request_id
            headers["x-content-type-options"] = "nosniff"
            if self._has_given_up:
                headers["connection"] = "close"  # what is still to come of the body would be read as the next request
        await self._send(message)

    async def _fail(self, error: FarError) -> None:
        if not self.status:
            await error_response(error)(self._scope, self._receive, self.send)


def without_422(document: dict[str, Any]) -> dict[str, Any]:
    """The document of the interface without the failures of the framework, which have another shape and never come."""
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    return document
