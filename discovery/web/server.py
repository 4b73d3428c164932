"""Runs an application in this process; the command that runs it owns the signals."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from discovery.protocol.errors import InvalidArgument

GRACE_SECONDS = 5


class Server(uvicorn.Server):
    """Uvicorn, which says when it is up.

    Args:
        lifespan: ``off`` where the caller opens what the application needs, and closes it.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_ready: Callable[[], None],
        max_connections: int,
        lifespan: Literal["auto", "off"] = "auto",
    ) -> None:
        self._on_ready = on_ready
        super().__init__(
            uvicorn.Config(
                app,
                lifespan=lifespan,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # discovery.web.address reads them
                limit_concurrency=max_connections,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door, and say so."""
        await super().startup(sockets=sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield

    async def stop(self) -> None:
        """End soon: running answers get :data:`GRACE_SECONDS`."""
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InvalidArgument: it cannot, with the reason.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, reuse_port=False
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidArgument(f"cannot listen on {host}:{port}: {reason}; choose another --port") from None


def url_of(host: str, port: int) -> str:
    """How a door at ``host`` and ``port`` is written."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
