"""Where a browser is given the dashboard: before the routes of the interface, none of which has the path of a page."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from far_mesh.marketplace.dashboard.site import File, Site

_NOTHING = "/404"
"""The page for an address that is none."""


class Dashboard:
    """Serves ``site``; what is not in it goes on to ``app``. Where that has no route either, a browser gets a page that
    says so, and every other client what ``app`` says."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._files = site.files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path: str = scope["path"]
            file = self._files.get(path) or self._files.get(path.rstrip("/"))
            asked, nothing = Headers(scope=scope), self._files.get(_NOTHING)
            if file is not None:
                await _answer(file, asked)(scope, receive, send)
                return
            if nothing is not None and "text/html" in asked.get("accept", ""):
                send = _or_page(_whole(nothing, asked, status=404), scope, receive, send)
        await self._app(scope, receive, send)


def _or_page(page: Response, scope: Scope, receive: Receive, send: Send) -> Send:
    """Sends ``page`` in the place of an answer that no route has given."""
    is_replaced = False

    async def sent(message: Message) -> None:
        nonlocal is_replaced
        if message["type"] == "http.response.start" and message["status"] == 404 and "endpoint" not in scope:
            is_replaced = True
            await page(scope, receive, send)
        elif not is_replaced:
            await send(message)

    return sent


def _answer(file: File, asked: Headers) -> Response:
    known = asked.get("if-none-match", "").split(",")
    if file.headers["etag"].removeprefix("W/") in (tag.strip().removeprefix("W/") for tag in known):
        return Response(status_code=304, headers=dict(file.headers))
    return _whole(file, asked)


def _whole(file: File, asked: Headers, status: int = 200) -> Response:
    headers, content = dict(file.headers), file.content
    if file.packed is not None and "gzip" in asked.get("accept-encoding", ""):
        content, headers["content-encoding"] = file.packed, "gzip"
    return Response(content, status, headers)
