"""A serverless node: it says in the swarm where it is woken, and goes when nobody has needed it for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.dht.board import Board
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from discovery.protocol.oncall import REGISTERED_SECONDS, register

log = structlog.get_logger(__name__)

RENEW_SECONDS = 3600.0
LOOK_SECONDS = 0.5


class OnCall:
    """The registration of one model of this node: kept at :meth:`start`, and settled at :meth:`stop`."""

    def __init__(self, board: Board, about: Announcement, key: Ed25519PrivateKey, wake_url: str) -> None:
        self._board, self._about, self._key, self._wake_url = board, about, key, wake_url
        self._renewing: asyncio.Task[None] | None = None
        self._last_expiry = 0

    async def start(self) -> None:
        """Register, and again every hour.

        Raises:
            AnnouncementInvalid: the address at which the node is woken is none.
        """
        await self._publish(self._wake_url)
        self._renewing = asyncio.create_task(self._renew())

    async def stop(self, *, is_asleep: bool) -> None:
        """The node goes. It is on call from now on for a day if it falls asleep, and otherwise no longer."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        self._renewing = None
        await self._publish(self._wake_url if is_asleep else None)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self._publish(self._wake_url)

    async def _publish(self, wake_url: str | None) -> None:
        # the DHT keeps the record that expires last, so each of ours outlives the one before, within a day from now
        expires = max(int(time.time()) + REGISTERED_SECONDS - 60, self._last_expiry + 1)
        signed = register(self._about, self._key, wake_url, expires)
        self._last_expiry = expires
        try:
            stored = await self._board.register(signed)
        except FarError as error:
            log.warning("registration_failed", reason=error.message)
        else:
            if not stored:
                log.warning("registration_not_stored")


async def when_idle(open_sessions: Callable[[], int], seconds: float) -> None:
    """Returns when no session has been open for so long."""
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < seconds:
        await asyncio.sleep(min(LOOK_SECONDS, seconds))
        if open_sessions():
            idle_since = time.monotonic()
