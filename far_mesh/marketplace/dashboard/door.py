"""Where a browser is given the dashboard: before the routes of the interface, none of which has the path of a page."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from far_mesh.marketplace.dashboard.site import File, Site


class Dashboard:
    """Serves ``site``; what is not in it goes on to ``app``."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._files = site.files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path: str = scope["path"]
            file = self._files.get(path) or self._files.get(path.rstrip("/"))
            if file is not None:
                await _answer(file, Headers(scope=scope))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _answer(file: File, asked: Headers) -> Response:
    headers = dict(file.headers)
    if file.headers["etag"] in (tag.strip().removeprefix("W/") for tag in asked.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    content = file.content
    if file.packed is not None:
        headers["vary"] = "accept-encoding"
        if "gzip" in asked.get("accept-encoding", ""):
            content, headers["content-encoding"] = file.packed, "gzip"
    return Response(content, headers=headers)
