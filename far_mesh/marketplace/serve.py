"""Run the marketplace in this process until it is told to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from types import FrameType

import uvicorn
import uvloop
from fastapi import FastAPI

from far_mesh.marketplace import logs
from far_mesh.marketplace.app import OpenMeshes, create_app
from far_mesh.marketplace.connections import Connection, allow_files
from far_mesh.marketplace.errors import AddressInUse
from far_mesh.marketplace.grpc_api.server import credentials, open_door
from far_mesh.marketplace.inference.meshes import swarm_meshes
from far_mesh.marketplace.settings import Settings

BACKLOG = 2048
GRACE_SECONDS = 10


OnReady = Callable[[], None]


def run(settings: Settings, open_meshes: OpenMeshes = swarm_meshes, *, on_ready: OnReady = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM; ``on_ready`` is called once requests are answered.

    Raises:
        AddressInUse: another process has the port.
        FarError: whatever else stands in the way, in words; nothing is left open.
    """
    uvloop.run(serve(settings, open_meshes, on_ready=on_ready))


async def serve(
    settings: Settings, open_meshes: OpenMeshes = swarm_meshes, *, on_ready: OnReady = lambda: None
) -> None:
    """:func:`run` inside an event loop."""
    logs.configure(level=logs.LEVELS[settings.log_level])
    allow_files(settings.max_connections)
    app = create_app(settings, open_meshes)
    if settings.grpc_port:
        credentials(settings)  # what is missing is said before anything is opened
    with listening(settings.host, settings.port) as door:
        # The rooms are opened here rather than by uvicorn, which would turn what is missing into a stack trace.
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(app.router.lifespan_context(app))
            if settings.grpc_port:
                await stack.enter_async_context(open_door(settings, app.state.rooms, settings.grpc_port))
            await Server(app, on_ready, settings.shutdown_seconds).serve(sockets=[door])


class Server(uvicorn.Server):
    """Uvicorn, which says when it is up, and lets running answers finish while its doors still tell newcomers that it
    is about to stop. A second signal makes them end after their present token."""

    def __init__(
        self,
        app: FastAPI,
        on_ready: OnReady = lambda: None,
        finish_seconds: float = 0.0,
        grace_seconds: int = GRACE_SECONDS,
    ) -> None:
        self._app = app
        self._on_ready = on_ready
        self._finish_seconds = finish_seconds
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(Connection, patience=app.state.patience),  # type: ignore[arg-type]  # as good as a class
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=grace_seconds,
                server_header=False,
                proxy_headers=False,  # discovery.web.address reads them
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the doors."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for an end, the next for a quick one. Uvicorn would send it to this process again when
        it is through, and so kill it before the rooms are closed."""
        if self.should_exit:
            self._loop.call_soon_threadsafe(self._app.state.rooms.inference.hurry)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish and settle what is under way, then close the doors."""
        await self._app.state.rooms.inference.close(self._finish_seconds)
        await self._app.state.rooms.mcp.close()
        await super().shutdown(sockets)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        AddressInUse: another process does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
        door.listen(BACKLOG)
    except OSError as error:
        door.close()
        raise AddressInUse(
            f"cannot listen on {host}:{port}: {error.strerror}. Is something running there? Choose another --port",
            port=port,
        ) from None
    return door
