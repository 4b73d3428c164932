"""One connection over HTTP, and how long it may take its time. The server knows no limits of these kinds by itself.

A connection that says nothing, or half of a request, is closed; so is one whose answer nobody takes, and then its
buffer does not outlive it. There are so many connections at most, which bounds what strangers can have us remember.
"""

from __future__ import annotations

import asyncio
import json
import resource
from dataclasses import dataclass
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from far_mesh.marketplace.errors import TooManyConnections
from far_mesh.marketplace.http import error_body

RETRY_SECONDS = 5
OTHER_FILES = 1024
"""Beside those of connections: the database, the swarm, gRPC, logs."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Patience:
    """How many connections there may be, and seconds: for the head of a request, between two requests, and for a reader
    who takes nothing."""

    max_connections: int
    header_seconds: float
    keep_alive_seconds: int
    reader_seconds: float


class Connection(H11Protocol):
    """A connection with limits. What is answered on it is the server's business."""

    def __init__(self, *arguments: Any, patience: Patience, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._patience = patience
        self.timeout_keep_alive = patience.keep_alive_seconds
        self._is_refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there."""
        if len(self.connections) >= self._patience.max_connections:
            self.transport, self._is_refused = transport, True
            transport.write(_refusal())
            transport.close()
            return
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Something came: the time for a head runs from its first byte, however many come after that."""
        if self._is_refused:
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting_for_head()
        elif self._head_timer is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._stop_waiting_for_head()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader is behind."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    # ---- heads

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self._patience.header_seconds, self._close)

    def _stop_waiting_for_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        self._head_timer = None
        self.transport.close()

    # ---- readers

    def _wait_for_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._patience.reader_seconds, self._look_at_reader, left)

    def _stop_waiting_for_reader(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _look_at_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:  # slowly, but they do read
            self._wait_for_reader()
            return
        log.info("reader_cut_off", unread_bytes=before)
        self.transport.abort()  # to close it would be to wait for the reader


def allow_files(connections: int) -> None:
    """Let this process have files enough for so many connections, as far as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("few_files", wanted=wanted, has=most)


def _refusal() -> bytes:
    error = TooManyConnections("this gateway has as many connections as it may have; ask again in a while")
    body = json.dumps(error_body(error).model_dump()).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
        f"retry-after: {RETRY_SECONDS}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
