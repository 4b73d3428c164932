"""A layer registry in a thread, as its command runs it, with a record of the bytes it sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.registry.app import MAX_CONNECTIONS, create_app
from discovery.web.server import Server, listening

READY_SECONDS = 30.0


@dataclass
class Registry:
    """A running registry. ``sent``: bytes of bodies by the last part of the path. ``cut_after``: the next answers with
    a file break off after so many bytes, one for each number."""

    url: str
    app: ASGIApp
    sent: dict[str, int] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count what comes back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = scope["path"].rpartition("/")[2]
        left = self.cut_after.pop(0) if self.cut_after and "/files/" in scope["path"] else None

        async def counted(message: Message) -> None:
            nonlocal left
            body: bytes = message.get("body", b"")
            if left is not None and body:
                body, left = body[:left], left - len(body)
                message = {**message, "body": body}
            self.sent[name] = self.sent.get(name, 0) + len(body)
            await send(message)
            if left is not None and left <= 0:
                raise ConnectionAbortedError("the test cuts here")

        await self.app(scope, receive, counted)


@contextmanager
def a_registry(models: Mapping[str, Path], token: str | None = None) -> Iterator[Registry]:
    """A registry that has prepared its models."""
    door = listening("127.0.0.1", 0)
    prepared, ready = threading.Semaphore(0), threading.Event()
    app = create_app(models, token, lambda _id, _status: prepared.release())
    registry = Registry(f"http://127.0.0.1:{door.getsockname()[1]}", app)
    server = Server(registry, ready.set, MAX_CONNECTIONS)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])), daemon=True)
    thread.start()
    try:
        assert ready.wait(READY_SECONDS)
        for _ in models:
            assert prepared.acquire(timeout=READY_SECONDS)
        yield registry
    finally:
        server.should_exit = True
        thread.join()
        door.close()
