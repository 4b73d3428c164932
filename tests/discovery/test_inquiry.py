"""A discovery service is asked, and waits and memory have an end whatever it does."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from discovery.inquiry import Inquiry, check_address
from discovery.protocol.errors import InvalidArgument, PeerUnavailable

MOST = 1000
Say = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def a_server(say: Say) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Says whatever it likes once somebody has asked: where it is, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            await say(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def saying(*pieces: bytes, pause: float = 0.0) -> Say:
    async def say(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return say


def an_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_status_and_body_are_handed_on_and_nothing_is_followed() -> None:
    async with a_server(saying(an_answer(b"x" * MOST))) as (url, asked), Inquiry(url + "/") as service:
        assert await service.get("/probes", {"after": 3, "of": "a&b"}, most_bytes=MOST) == (200, b"x" * MOST)
        assert asked[0].startswith(b"GET /probes?after=3&of=a%26b HTTP/1.1\r\n")
        assert b"accept-encoding: identity" in asked[0].lower()
    moved = an_answer(b"", "302 Found", "location: /elsewhere")
    async with a_server(saying(moved)) as (url, asked), Inquiry(url) as service:
        assert await service.get("/probes", most_bytes=MOST) == (302, b"")
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (saying(an_answer(b"x" * (MOST + 1))), "more than was asked for"),
        (saying(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 600] * 1000), "more than was asked for"),
        (saying(b"HTTP/1.1 200 OK\r\n", *[b"a: b\r\n"] * 100, pause=0.05), "does not answer: TimeoutError"),
        (saying(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 100, pause=0.05), "does not answer: TimeoutError"),
        (saying(b"SSH-2.0-far\r\n\r\n"), "does not answer"),
        (saying(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"), "does not answer"),
        (saying(), "does not answer"),
    ],
    ids=["long", "endless", "slow headers", "slow body", "no http", "short", "silent"],
)
async def test_what_is_no_answer_costs_no_more_than_was_agreed_on(say: Say, words: str) -> None:
    async with a_server(say) as (url, _), Inquiry(url, 0.5) as service:
        with pytest.raises(PeerUnavailable, match=words):
            await service.get("/probes", most_bytes=MOST)


async def test_what_is_packed_is_not_unpacked() -> None:
    packed = gzip.compress(bytes(10**6))
    say = saying(an_answer(packed, "200 OK", "content-encoding: gzip"))
    async with a_server(say) as (url, _), Inquiry(url) as service:
        assert await service.get("/probes", most_bytes=10_000) == (200, packed)


async def test_nobody_at_the_address_is_said() -> None:
    async with Inquiry("http://127.0.0.1:9") as service:
        with pytest.raises(PeerUnavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
            await service.get("/probes", most_bytes=MOST)


@pytest.mark.parametrize(
    "url",
    ["", "far.example", "ftp://far.example", "http://", "https://x:port", "https://[", "https://x/?a=1", "file:///etc"],
)
def test_what_is_no_address_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="--discovery"):
        check_address(url)
