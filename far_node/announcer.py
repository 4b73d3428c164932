"""Keeps this node's announcement on the DHT, and takes leave when it stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.dht.board import Board
from discovery.protocol.announcement import (
    LIFETIME_SECONDS,
    RENEW_SECONDS,
    Announcement,
    State,
    sign_announcement,
)
from discovery.protocol.errors import PeerUnavailable

log = structlog.get_logger(__name__)

_LEAVING_LIFETIME_SECONDS = LIFETIME_SECONDS  # must outlive the "ready" record it replaces
_FIRST_TRIES = 5
_RETRY_SECONDS = 1.0


def _nothing() -> Mapping[str, Any]:
    return {}


class Announcer:
    """Publishes at :meth:`start`, renews every :data:`RENEW_SECONDS`, publishes ``leaving`` at :meth:`stop`.

    Args:
        current: what changes while a node runs, as fields of the announcement; asked each time it is published.
    """

    def __init__(
        self,
        board: Board,
        announcement: Announcement,
        key: Ed25519PrivateKey,
        current: Callable[[], Mapping[str, Any]] = _nothing,
    ) -> None:
        self._board, self._announcement, self._key, self._current = board, announcement, key, current
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_expiry = 0

    async def start(self) -> None:
        """Publish and keep renewing.

        Raises:
            PeerUnavailable: no DHT peer took the announcement.
        """
        for _ in range(_FIRST_TRIES):
            if await self._publish("ready", LIFETIME_SECONDS):
                self._task = asyncio.create_task(self._renew())
                return
            await asyncio.sleep(_RETRY_SECONDS)
        raise PeerUnavailable(
            "no DHT peer took the announcement: is the clock of this machine right, and --prefix that of the swarm?"
        )

    def renew_soon(self) -> None:
        """There is news that should not wait for the next renewal."""
        self._news.set()

    async def stop(self) -> None:
        """Say, once, that we are leaving."""
        renewing, self._task = self._task, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._publish("leaving", _LEAVING_LIFETIME_SECONDS)

    async def _renew(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._news.wait()
            self._news.clear()
            if not await self._publish("ready", LIFETIME_SECONDS):
                log.warning("announcement_not_stored")

    async def _publish(self, state: State, lifetime: int) -> bool:
        now = int(time.time())
        # the DHT keeps the record that expires last, so each of ours must outlive the one before
        expires = self._last_expiry = max(now + lifetime, self._last_expiry + 1)
        standing = {"state": state, "issued_at": now, "expires_at": expires}
        fresh = self._announcement.model_copy(update={**self._current(), **standing})
        signed = sign_announcement(fresh, self._key)
        try:
            return await self._board.publish(signed)
        except Exception as error:  # whatever the DHT has met: a node that serves must go on saying so
            log.warning("announcement_failed", reason=f"{type(error).__name__}: {error}")
            return False
