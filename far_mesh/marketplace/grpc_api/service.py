"""The calls of ``far.v1.FarMesh``. What is allowed, priced and paid is decided by the services behind them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import structlog
from google.protobuf.message import Message
from grpc import GenericRpcHandler, StatusCode, method_handlers_generic_handler, unary_unary_rpc_method_handler
from grpc import unary_stream_rpc_method_handler as unary_stream_handler
from grpc.aio import AbortError, InternalError, ServicerContext
from starlette.datastructures import Headers

from discovery.protocol.errors import FarError
from discovery.protocol.trace import read_trace_parent
from discovery.web.address import Address, Networks, find_caller
from far_mesh.marketplace.auth.door import Needs
from far_mesh.marketplace.auth.principal import Principal, Scope
from far_mesh.marketplace.auth.service import AuthService
from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.errors import GenerationFailed, Unauthorized
from far_mesh.marketplace.grpc_api import far_pb2
from far_mesh.marketplace.grpc_api.mapping import (
    event_of,
    filled,
    generate_request,
    idempotency_key,
    quote_request,
    response_of,
    status_of,
)
from far_mesh.marketplace.grpc_api.refusals import code_of, trailers_of
from far_mesh.marketplace.health.service import HealthService
from far_mesh.marketplace.http import id_of_call, new_request_id
from far_mesh.marketplace.inference.endpoints import (
    Telling,
    model_entry,
    question_of,
    quote_answer,
    voucher_event,
    whole_answer,
    wish_of,
)
from far_mesh.marketplace.inference.jobs import Said
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.inference.schemas import GenerateRequest
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.limits.service import RateLimits
from far_mesh.marketplace.logs import broke
from far_mesh.marketplace.telemetry.edge import Telemetry, bound_to
from far_mesh.marketplace.telemetry.metrics import Metrics
from far_mesh.marketplace.telemetry.refusals import counted_by, note

SERVICE = far_pb2.DESCRIPTOR.services_by_name["FarMesh"].full_name
REQUEST_ID = "x-request-id"

log = structlog.get_logger(__name__)

Context = ServicerContext[Any, Any]
Act = Callable[[Any, "Call"], Awaitable[Message | None]]


@dataclass
class Call:
    """One call and its metadata."""

    context: Context
    request_id: str
    trailers: tuple[tuple[str, str], ...] = ()

    def address(self, trusted_proxies: Networks) -> Address | None:
        """Who calls, by address: the other end of the connection, or whom trusted proxies name."""
        said = self.context.invocation_metadata() or ()
        headers = Headers(raw=[(key.encode(), value.encode()) for key, value in said if isinstance(value, str)])
        return find_caller(peer_address(self.context.peer()), headers, trusted_proxies).address

    def bearer(self) -> str | None:
        """The credential in ``authorization``.

        Raises:
            Unauthorized: several, or of another kind than Bearer.
        """
        said = [value for key, value in self.context.invocation_metadata() or () if key == "authorization"]
        if not said:
            return None
        scheme, _, credential = str(said[0]).partition(" ")
        if len(said) > 1 or scheme.lower() != "bearer":
            raise Unauthorized("authorization must be one 'Bearer' with a token or an API key")
        return credential

    def name(self, request_id: str) -> None:
        """Give it another name, in the logs too."""
        self.request_id = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)


class FarMesh:
    """The door. It owns nothing."""

    def __init__(
        self,
        auth: AuthService,
        inference: InferenceService,
        health: HealthService,
        limits: RateLimits,
        trusted_proxies: Networks,
        telemetry: Telemetry,
    ) -> None:
        self._auth = auth
        self._inference = inference
        self._health = health
        self._limits = limits
        self._trusted_proxies = trusted_proxies
        self._telemetry = telemetry

    def handler(self) -> GenericRpcHandler:
        """What a server of gRPC takes."""
        request: dict[str, type[Message]] = {
            "Infer": far_pb2.InferRequest,
            "InferStream": far_pb2.InferRequest,
            "Quote": far_pb2.QuoteRequest,
            "ListModels": far_pb2.ListModelsRequest,
            "NodeStatus": far_pb2.NodeStatusRequest,
        }
        acts: dict[str, Act] = {
            "Infer": self.infer,
            "InferStream": self.infer_stream,
            "Quote": self.quote,
            "ListModels": self.list_models,
            "NodeStatus": self.node_status,
        }
        handlers = {
            name: (unary_stream_handler if name == "InferStream" else unary_unary_rpc_method_handler)(
                _behaviour(name, act, self._telemetry), request[name].FromString, _bytes
            )
            for name, act in acts.items()
        }
        return method_handlers_generic_handler(SERVICE, handlers)

    async def infer(self, request: far_pb2.InferRequest, call: Call) -> far_pb2.InferResponse:
        """A whole answer at once. Who goes away stops it."""
        asked, run = await self._start(request, call, stream=False)
        try:
            items = [item async for item in run]
            return response_of(whole_answer(asked, items, await run.answer(), run.tool_format))
        finally:
            run.reader_left()

    async def infer_stream(self, request: far_pb2.InferRequest, call: Call) -> None:
        """The answer token by token, and last the bill. Who goes away stops it, and pays for what was delivered."""
        asked, run = await self._start(request, call, stream=True)
        told, write = Telling(asked, run), call.context.write
        try:
            async for one in run:
                if isinstance(one, VoucherNotice):
                    needed = filled(far_pb2.VoucherNeeded(), voucher_event(one))
                    await write(far_pb2.InferEvent(voucher_needed=needed))
                elif isinstance(one, Said):
                    for token in told.tokens(one):
                        await write(event_of(token))
            answer = await run.answer()
            for token in told.rest():
                await write(event_of(token))
            await write(far_pb2.InferEvent(bill=filled(far_pb2.Bill(), told.end(answer))))
        except InternalError:  # what a write meets when the call is gone
            raise GenerationFailed("the reader left") from None
        finally:
            run.reader_left()

    async def quote(self, request: far_pb2.QuoteRequest, call: Call) -> far_pb2.QuoteResponse:
        """What a request would cost."""
        wallet = (await self._caller(call)).wallet
        quoted = await self._inference.quote(wallet, question_of(wallet, quote_request(request)))
        return filled(far_pb2.QuoteResponse(), quote_answer(quoted))

    async def list_models(self, _: far_pb2.ListModelsRequest, call: Call) -> far_pb2.ListModelsResponse:
        """The models on sale."""
        await self._limits.public(call.address(self._trusted_proxies))
        entries = [model_entry(state) for state in await self._inference.models()]
        return far_pb2.ListModelsResponse(models=[filled(far_pb2.Model(), entry) for entry in entries])

    async def node_status(self, _: far_pb2.NodeStatusRequest, call: Call) -> far_pb2.NodeStatusResponse:
        """Whether requests can be served now."""
        await self._limits.public(call.address(self._trusted_proxies))
        return status_of(await self._health.readiness())

    async def _caller(self, call: Call) -> Principal:
        address = call.address(self._trusted_proxies)
        return await Needs(Scope.INFERENCE).principal(self._auth, self._limits, call.bearer(), address)

    async def _start(self, request: far_pb2.InferRequest, call: Call, *, stream: bool) -> tuple[GenerateRequest, Run]:
        principal = await self._caller(call)
        key = idempotency_key(request)
        if key is not None:
            call.name(id_of_call(principal.wallet, key))
        asked = generate_request(request, stream=stream)
        wish = replace(wish_of(asked), api_key_id=principal.api_key_id)
        run = await self._inference.start(principal.wallet, call.request_id, wish)
        call.trailers = tuple(run.grant.headers.items())
        return asked, run


def peer_address(peer: str) -> str | None:
    """The address in what gRPC calls a peer: ``ipv4:192.0.2.1:4711``, ``ipv6:%5B2001:db8::1%5D:4711``."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else None


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _behaviour(method: str, act: Act, telemetry: Telemetry) -> Any:
    async def behave(request: Message, context: Context) -> Message | None:
        metadata = dict(context.invocation_metadata() or ())
        parent = read_trace_parent(str(metadata.get("traceparent", "")))
        with (
            telemetry.tracing.begin("request", parent, {"rpc.method": method}) as span,
            bound_to(span),
            counted_by(telemetry.metrics.answered_with),
        ):
            async with _exchange(method, context, telemetry.metrics) as call:
                return await act(request, call)

    return behave


@asynccontextmanager
async def _exchange(method: str, context: Context, metrics: Metrics) -> AsyncIterator[Call]:
    """Names a call, logs and counts its end, and lets no exception out."""
    call, started, status = Call(context, new_request_id()), time.monotonic(), StatusCode.CANCELLED
    with structlog.contextvars.bound_contextvars(request_id=call.request_id):
        try:
            yield call
            context.set_trailing_metadata((*call.trailers, (REQUEST_ID, call.request_id)))
            status = StatusCode.OK
        except AbortError:
            raise
        except Exception as error:  # the edge: whatever it was, nobody outside learns details
            refusal = error if isinstance(error, FarError) else broke("request_broke", error)
            note(refusal)
            status = code_of(refusal)
            await context.abort(status, refusal.message, (*trailers_of(refusal), (REQUEST_ID, call.request_id)))
        finally:
            milliseconds = round((time.monotonic() - started) * 1000)
            log.info("call", method=method, status=status.name, ms=milliseconds)
            metrics.called(method, status.name)
