"""Wakes serverless nodes that a route needs, and remembers those that did not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from discovery.protocol.oncall import Registration, call
from discovery.web.errors import OutboundFailed
from discovery.web.outbound import Outbound
from far_mesh.mending import Shunned

log = structlog.get_logger(__name__)

Look = Callable[[], Awaitable[Sequence[Announcement]]]
"""Who serves the model now, seen afresh."""
Run = Callable[[Coroutine[Any, Any, None]], None]

LOOK_SECONDS = 1.0
SHUN_SECONDS = 300.0
"""For so long a node that did not come is not called again; twice as long after each further time."""


class Rouser:
    """Calls nodes of one model, each once at a time, whoever waits for it.

    Args:
        key: that of the caller, who signs.
        patience: seconds in which a node must serve.
        run: who runs what goes on when nobody waits for it, and ends it with all else.
    """

    def __init__(self, key: Ed25519PrivateKey, outbound: Outbound, look: Look, patience: float, run: Run) -> None:
        self._key, self._outbound, self._look, self._patience, self._run = key, outbound, look, patience, run
        self._shunned = Shunned(SHUN_SECONDS)
        self._calling: dict[str, asyncio.Future[bool]] = {}

    def willing(self, registered: Sequence[Registration]) -> list[Registration]:
        """Those that are worth a call."""
        self._shunned.forget_others({about.peer_id for about in registered})
        shunned = self._shunned.at(time.monotonic())
        return [about for about in registered if about.peer_id not in shunned]

    async def wake(self, sleepers: Collection[Registration]) -> bool:
        """Whether all of them serve: known when the last of them does, or the first one failed."""
        for coming in asyncio.as_completed([self._wake(about) for about in sleepers]):
            if not await coming:
                return False
        return True

    async def _wake(self, about: Registration) -> bool:
        calling = self._calling.get(about.peer_id)
        if calling is None:
            calling = self._calling[about.peer_id] = asyncio.get_running_loop().create_future()
            self._run(self._settle(about, calling))
        return await asyncio.shield(calling)

    async def _settle(self, about: Registration, calling: asyncio.Future[bool]) -> None:
        try:
            calling.set_result(await self._call(about))
        finally:
            calling.cancel()
            del self._calling[about.peer_id]

    async def _call(self, about: Registration) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                await self._ring(about)
                await self._until_ready(about)
        except (FarError, TimeoutError) as error:
            self._shunned.add(about.peer_id, time.monotonic())
            reason = error.message if isinstance(error, FarError) else f"it does not serve after {self._patience:g} s"
            log.warning("node_not_woken", peer=about.peer_id, reason=reason)
            return False
        log.info("node_woken", peer=about.peer_id)
        return True

    async def _ring(self, about: Registration) -> None:
        assert about.wake_url is not None
        body = call(self._key, about)
        target = self._outbound.target(about.wake_url, "wake_url")
        status = await self._outbound.post(target, body, {"content-type": "application/json"})
        if not 200 <= status < 300:
            raise OutboundFailed(f"its door answers with status {status}", reason="refused")

    async def _until_ready(self, about: Registration) -> None:
        while True:
            if any(_is_it(about, node) for node in await self._look()):
                return
            await asyncio.sleep(LOOK_SECONDS)


def _is_it(about: Registration, node: Announcement) -> bool:
    """Whether a node is the one that was called, and serves what it said it would."""
    return (
        node.peer_id == about.peer_id
        and node.state == "ready"
        and node.first_block <= about.first_block
        and about.end_block <= node.end_block
    )
