"""A server that plays scripts: what a gateway, or whatever stands in its way, could answer, byte by byte."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request as it came. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str | None:
        """What proves who asks."""
        said = self.headers.get("authorization")
        return None if said is None else said.removeprefix("Bearer ")

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return self.headers.get("idempotency-key")

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Scene:
    """One answer. A stream is its pieces, each sent by itself; ``pause`` seconds lie between them.

    ``ends``: whether the answer is ended as HTTP wants it; else the connection is cut. ``status`` 0: it is cut before
    anything is said. ``gate``: what has to be set before the last piece goes out.
    """

    status: int = 200
    pieces: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    ends: bool = True
    gate: threading.Event | None = None


def says(body: object, status: int = 200, **headers: str) -> Scene:
    """JSON. ``retry_after`` becomes ``retry-after``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scene(status, (json.dumps(body).encode(),), {"content-type": "application/json", **named})


def refuses(status: int, code: str, message: str = "no", *, accepts: object = None, **headers: str) -> Scene:
    """An error in the shape of the gateway's."""
    body: dict[str, Any] = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
    return says(body if accepts is None else body | {"accepts": accepts}, status, **headers)


def streams(*pieces: bytes, **more: Any) -> Scene:
    """Server-sent events, cut into these pieces."""
    return Scene(200, pieces, {"content-type": "text/event-stream", "x-far-request-id": "req_1"}, **more)


def hangs_up() -> Scene:
    """The connection is cut before anything is said."""
    return Scene(0)


Script = Callable[[Asked], Scene]


class ScriptedServer:
    """Answers each request with the next scene of its path, the last one again and again; keeps what was asked.

    A scene may be a function of the request. Paths without a script are 404.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.hung_up = threading.Event()
        self._scripts: dict[str, deque[Scene | Script]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def plays(self, path: str, *scenes: Scene | Script) -> None:
        """From now on."""
        self._scripts[path] = deque(scenes)

    def at(self, path: str) -> list[Asked]:
        """What was asked there."""
        return [asked for asked in self.asked if asked.path.partition("?")[0] == path]

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await self._read(reader)) is not None:
                if not await self._play(self._scene(asked), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        except asyncio.CancelledError:
            pass  # the server closes
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.split(": ", 1) for line in lines if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(method, path, headers, body)
        self.asked.append(asked)
        return asked

    def _scene(self, asked: Asked) -> Scene:
        script = self._scripts.get(asked.path.partition("?")[0])
        if script is None:
            return refuses(404, "not_found")
        scene = script.popleft() if len(script) > 1 else script[0]
        return scene if isinstance(scene, Scene) else scene(asked)

    async def _play(self, scene: Scene, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if scene.status == 0:
            return False
        is_stream = scene.headers.get("content-type") == "text/event-stream"
        headers = dict(scene.headers)
        if is_stream:
            headers["transfer-encoding"] = "chunked"
        elif scene.ends:
            headers["content-length"] = str(sum(map(len, scene.pieces)))
        else:
            headers["content-length"] = str(sum(map(len, scene.pieces)) + 1)
        lines = [f"HTTP/1.1 {scene.status} Any", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        for number, piece in enumerate(scene.pieces):
            if number and scene.pause:
                await asyncio.sleep(scene.pause)
            if scene.gate is not None and number == len(scene.pieces) - 1:
                await self._until(scene.gate, reader)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_stream else piece)
            await writer.drain()
        if not scene.ends:
            return False
        if is_stream:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _until(self, gate: threading.Event, reader: asyncio.StreamReader) -> None:
        """Until it is set, or the other side hangs up."""
        while not gate.is_set():
            if reader.at_eof() or reader.exception() is not None:  # it ended, or was reset with something unread
                raise ConnectionError("the other side hung up")
            await asyncio.sleep(0.005)
