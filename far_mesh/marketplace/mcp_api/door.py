"""``/mcp``: MCP's streamable HTTP on the gateway's port.

Clients of revision 2026-07-28 send each request by itself, and any gateway answers it. Those of earlier revisions have
sessions, which live in the gateway that opened them and belong to the wallet that did.
https://modelcontextprotocol.io/specification/2026-07-28/basic/transports
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, AuthorizationContext
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from discovery.tracing import inside
from far_mesh.marketplace.auth.door import MayInfer
from far_mesh.marketplace.errors import RateLimited, ShuttingDown
from far_mesh.marketplace.http import request_id_of
from far_mesh.marketplace.limits.door import Service as Limits
from far_mesh.marketplace.mcp_api.tools import TOOLS, Tools, Visit
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.telemetry.edge import bound_to

MAX_SESSIONS = 10_000
MAX_SESSIONS_OF_ONE = 100
IDLE_SECONDS = 600.0
FINISH_SECONDS = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

# Below WARNING the libraries' logs quote messages, and prompts with them.
for _name in ("mcp", "sse_starlette"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# At SIGTERM its streams would be cut off before their last event. We let them finish, and then end the sessions.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]

_Context = ServerRequestContext[Any, Any]

router = APIRouter(tags=["mcp"])


@router.api_route("/mcp", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def mcp(request: Request, principal: MayInfer, limits: Limits) -> Response:
    """One exchange of MCP."""
    await limits.call(principal.wallet)
    door: McpDoor = request.app.state.rooms.mcp
    return door.exchange(Visit(principal, request_id_of(request)))


class McpDoor:
    """Owner of the sessions, and of who is being answered."""

    def __init__(self, tools: Tools, settings: Settings) -> None:
        self._tools = tools
        self._manager = _Sessions(
            Server(
                "far-mesh",
                version="0.1.0",
                instructions="Text from open models that a swarm of strangers' GPUs serves, paid per token in FAR.",
                on_list_tools=_list_tools,
                on_call_tool=self._call_tool,
            ),
            security_settings=security(settings),
            session_idle_timeout=IDLE_SECONDS,
            max_request_body_size=settings.max_body_bytes,
            max_sessions=MAX_SESSIONS,
        )
        self._answering: set[_Exchange] = set()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[McpDoor]:
        """Answer until the end of the block."""
        is_open = asyncio.Event()
        # A task of its own: the library's scopes have to be left by the task that entered them.
        self._task = asyncio.create_task(self._run(is_open), name="mcp")
        await is_open.wait()
        try:
            yield self
        finally:
            await self.close()

    async def close(self) -> None:
        """Let what is being answered finish for some seconds, then end the sessions."""
        answering = [exchange.done.wait() for exchange in self._answering]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*answering), FINISH_SECONDS)
        self._closing.set()
        if self._task is not None:
            await self._task

    async def _run(self, is_open: asyncio.Event) -> None:
        async with self._manager.run():
            is_open.set()
            await self._closing.wait()

    def exchange(self, visit: Visit) -> Response:
        """The answer to a request over HTTP.

        Raises:
            ShuttingDown: no more.
        """
        if self._closing.is_set():
            raise ShuttingDown("this gateway is about to stop; ask again, or ask another", retry_after=5.0)
        return _Exchange(self._manager, self._answering, visit)

    async def _call_tool(
        self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        assert context.request is not None
        visit: Visit = context.request.state.mcp_visit
        wants_progress = context.meta is not None and "progress_token" in context.meta
        limit = (params.arguments or {}).get("max_tokens")
        total = float(limit) if isinstance(limit, int) else None

        async def progress(tokens: int, text: str) -> None:
            await context.session.report_progress(tokens, total, text)

        named = structlog.contextvars.bound_contextvars(request_id=visit.request_id)
        with named, inside(visit.span), bound_to(visit.span):
            try:
                return await self._tools.call(
                    params.name, params.arguments or {}, visit, progress if wants_progress else None
                )
            except KeyError:
                raise MCPError(INVALID_PARAMS, "there is no such tool") from None


class _Sessions(StreamableHTTPSessionManager):
    """The library's, in which no wallet takes the room of all others. It asks under its lock, one after the other."""

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        if sum(owner == requestor for owner in self._session_owners.values()) >= MAX_SESSIONS_OF_ONE:
            raise RateLimited(
                f"you have {MAX_SESSIONS_OF_ONE} sessions open: end one with DELETE, or wait until one has been idle "
                f"for {round(IDLE_SECONDS / 60)} minutes"
            )
        return super()._admit_session(requestor)


async def _list_tools(_: _Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=TOOLS)


class _Exchange(Response):
    """A request that the library answers. Whoever goes away before the end has left."""

    def __init__(self, manager: StreamableHTTPSessionManager, answering: set[_Exchange], visit: Visit) -> None:
        super().__init__()
        self._manager, self._answering, self._visit = manager, answering, visit
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wallet = self._visit.principal.wallet
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=wallet, scopes=[]))  # owns the session
        scope["state"]["mcp_visit"] = self._visit
        if scope["method"] == "POST":
            self._answering.add(self)
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            self._visit.leave()
            self._answering.discard(self)
            self.done.set()


def security(settings: Settings) -> TransportSecuritySettings:
    """Which names the gateway has: a page that made a browser believe in another one (DNS rebinding) is refused, and so
    is a page of somebody else's."""
    public = urlsplit(settings.uri)
    here = f"{public.scheme}://{public.netloc}"
    return TransportSecuritySettings(
        allowed_hosts=[settings.domain, public.netloc, *LOOPBACK, *(f"{host}:*" for host in LOOPBACK)],
        allowed_origins=[here, *(f"http://{host}" for host in LOOPBACK), *(f"http://{host}:*" for host in LOOPBACK)],
    )
