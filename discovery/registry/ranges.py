"""Answers with the bytes of a shard: whole, in part (RFC 9110, section 14), or not at all if they are known."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from discovery.registry.library import Served

STALL_SECONDS: Final = 60.0
"""Whoever takes no chunk for so long is let go."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """Bytes ``[start, end)`` that a ``Range`` header asks for; None where it is to be ignored, as several ranges are.

    Raises:
        ValueError: the range begins beyond the end.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last n bytes
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < int(match[1]):
            return None
    if start >= size or start >= end:
        raise ValueError("the range begins beyond the end")
    return start, end


class ShardResponse(Response):
    """Reads and sends piece by piece, so that memory stays flat whatever the size."""

    media_type = "application/octet-stream"

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a GET or HEAD request."""
        asked, size, tag = Headers(scope=scope), self._served.shard.size, f'"{self._served.sha256}"'
        headers = {"etag": tag, "accept-ranges": "bytes", "content-type": self.media_type}
        start, end, status = 0, size, 200
        if tag in (asked.get("if-none-match") or "").replace("W/", ""):
            start, end, status = 0, 0, 304
        elif asked.get("if-range") in (None, tag):
            try:
                wanted = range_of(asked.get("range"), size)
            except ValueError:
                start, end, status = 0, 0, 416
                headers["content-range"] = f"bytes */{size}"
            else:
                if wanted is not None:
                    (start, end), status = wanted, 206
                    headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        if status != 304:
            headers["content-length"] = str(end - start)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        if scope["method"] == "HEAD" or await self._sent(start, end, receive, send):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _sent(self, start: int, end: int, receive: Receive, send: Send) -> bool:
        """Whether all was taken. If not, the answer stays unfinished, and the server closes the connection."""
        chunks = self._served.shard.read(start, end)
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                if leaving.done():
                    return False
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            return False
        finally:
            leaving.cancel()
            chunks.close()
        return True


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
