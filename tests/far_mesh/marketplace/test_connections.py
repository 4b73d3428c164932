"""Connections that say nothing, take nothing or send nothing are closed, and there are only so many.

``benchmarks/idle_connections.py`` does the first with ten thousand.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from far_mesh.marketplace import connections, http
from far_mesh.marketplace.connections import Patience, allow_files
from far_mesh.marketplace.serve import Server, listening

CALM = Patience(max_connections=1000, header_seconds=30.0, keep_alive_seconds=30, reader_seconds=30.0)
HURRIED = Patience(max_connections=1000, header_seconds=0.2, keep_alive_seconds=1, reader_seconds=0.2)
GET = b"GET /hello HTTP/1.1\r\nhost: far.test\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nhost: far.test\r\ncontent-type: application/json\r\n"
SOON = 60.0
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Room:
    """An application behind our edge, on a port."""

    def __init__(self, patience: Patience, body_seconds: float = 30.0) -> None:
        self.app = FastAPI()
        self.app.state.patience = patience
        http.install(self.app, 1024, body_seconds)
        self.app.get("/hello")(self.hello)
        self.app.post("/echo")(self.echo)
        self.app.get("/flood")(self.flood)
        self.flooded = 0
        self.reader_left = asyncio.Event()

    async def hello(self) -> str:
        return "hello"

    async def echo(self, request: Request) -> int:
        return len(await request.body())

    async def flood(self) -> StreamingResponse:
        return StreamingResponse(self._water())

    async def _water(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.flooded += 1
                yield b"x" * 65_536
                await asyncio.sleep(0)  # as any stream waits for something
        finally:
            self.reader_left.set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Room]:
        with listening("127.0.0.1", 0) as door:
            self.port = door.getsockname()[1]
            door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # so that who is slow is soon seen to be
            self.server = _Quiet(self.app, grace_seconds=1)
            serving = asyncio.create_task(self.server.serve(sockets=[door]))
            try:
                yield self
            finally:
                self.server.should_exit = True
                await serving

    async def connect(self) -> Pair:
        """A connection that has said nothing yet."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def count(self) -> int:
        """Connections that the server knows."""
        return len(self.server.server_state.connections)


class _Quiet(Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super(Server, self).shutdown(sockets)


async def answer(pair: Pair, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Ask, and read the whole answer."""
    reader, writer = pair
    writer.write(request)
    return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(SOON):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
    return int(status.split()[1]), headers, body


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other end hangs up."""
    async with asyncio.timeout(SOON):
        return await reader.read(1) == b""


@pytest.mark.parametrize("said", [b"", b"GET /hello HTTP/1.1\r\nhost: ", b"GET"])
async def test_who_does_not_say_what_they_want_is_hung_up_on(said: bytes) -> None:
    async with Room(HURRIED).opened() as room:
        reader, writer = await room.connect()
        writer.write(said)
        assert await closed(reader)
        writer.close()


async def test_bytes_that_trickle_do_not_buy_time() -> None:
    async with Room(HURRIED).opened() as room:
        reader, writer = await room.connect()
        writer.write(b"GET /hello HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                writer.write(b"x: y\r\n")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert await closed(reader)
        trickling.cancel()
        writer.close()


async def test_the_next_request_has_its_own_time_and_silence_ends_a_connection() -> None:
    async with Room(HURRIED).opened() as room:
        pair = await room.connect()
        for _ in range(3):
            assert (await answer(pair, GET))[0] == 200
            await asyncio.sleep(0.3)  # longer than a head may take, shorter than a connection may be silent
        assert await closed(pair[0])
        pair[1].close()


async def test_more_connections_than_there_may_be_are_told_so() -> None:
    patience = Patience(2, 30.0, 30, 30.0)
    async with Room(patience).opened() as room:
        first, second = await room.connect(), await room.connect()
        assert (await answer(first, GET))[0] == (await answer(second, GET))[0] == 200
        third = await room.connect()
        status, headers, body = await read_answer(third[0])
        assert (status, headers["retry-after"]) == (503, "5")
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        assert await closed(third[0])
        assert (await answer(first, GET))[0] == 200
        second[1].close()
        async with asyncio.timeout(SOON):
            while room.count() > 1:
                await asyncio.sleep(0.01)
        fourth = await room.connect()
        assert (await answer(fourth, GET))[0] == 200
        for _, writer in (first, third, fourth):
            writer.close()


async def test_two_hundred_connections_that_say_nothing_are_gone_in_the_end() -> None:
    async with Room(HURRIED).opened() as room:
        idle = [await room.connect() for _ in range(200)]
        other = await room.connect()
        assert (await answer(other, GET))[0] == 200
        assert all([await closed(reader) for reader, _ in idle])
        async with asyncio.timeout(SOON):
            while room.count():
                await asyncio.sleep(0.01)
        for _, writer in [*idle, other]:
            writer.close()


async def test_a_reader_who_takes_nothing_is_cut_off_and_what_was_written_is_forgotten() -> None:
    async with Room(HURRIED).opened() as room:
        reader, writer = await room.connect()
        writer.write(b"GET /flood HTTP/1.1\r\nhost: far.test\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(SOON):
            await room.reader_left.wait()
        assert room.flooded < 200  # of 64 KiB: what the two kernels keep, and one buffer of ours
        assert room.count() == 0
        writer.close()


async def test_a_reader_who_is_slow_is_not_cut_off() -> None:
    async with Room(replace(HURRIED, reader_seconds=1.5)).opened() as room:
        loop = asyncio.get_running_loop()
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", room.port))
            await loop.sock_sendall(slow, b"GET /flood HTTP/1.1\r\nhost: far.test\r\n\r\n")
            until = loop.time() + 2.0
            while loop.time() < until:
                assert await loop.sock_recv(slow, 4096)
                await asyncio.sleep(0.05)
            assert not room.reader_left.is_set()


# ---- bodies


@pytest.mark.parametrize(
    "announced", [b"content-length: 500\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
async def test_a_body_that_does_not_come_is_refused_and_the_connection_closed(announced: bytes) -> None:
    async with Room(CALM, body_seconds=0.2).opened() as room:
        pair = await room.connect()
        status, headers, body = await answer(pair, POST + announced)
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["error"]["code"] == "request_timeout"
        assert await closed(pair[0])
        pair[1].close()


async def test_a_body_that_trickles_does_not_buy_time() -> None:
    async with Room(CALM, body_seconds=0.3).opened() as room:
        reader, writer = await room.connect()
        writer.write(POST + b"transfer-encoding: chunked\r\n\r\n")

        async def trickle() -> None:
            while True:
                writer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert (await read_answer(reader))[0] == 408
        trickling.cancel()
        writer.close()


async def test_a_chunked_body_is_limited_by_its_bytes() -> None:
    async with Room(CALM).opened() as room:
        pair = await room.connect()
        chunk = b"200\r\n" + b"x" * 0x200 + b"\r\n"
        status, headers, _ = await answer(pair, POST + b"transfer-encoding: chunked\r\n\r\n" + 3 * chunk)
        assert (status, headers["connection"]) == (413, "close")
        assert await closed(pair[0])
        pair[1].close()


async def test_a_body_in_time_is_read_and_the_connection_kept() -> None:
    async with Room(CALM).opened() as room:
        pair = await room.connect()
        for _ in range(2):
            status, headers, body = await answer(pair, POST + b"content-length: 4\r\n\r\n1234")
            assert (status, body) == (200, b"4")
            assert "connection" not in headers
        pair[1].close()


# ---- files


@pytest.fixture
def files() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_process_may_open_as_many_files_as_it_takes_connections(files: tuple[int, int]) -> None:
    _, hard = files
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    allow_files(700)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 700 + connections.OTHER_FILES
    allow_files(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 700 + connections.OTHER_FILES
