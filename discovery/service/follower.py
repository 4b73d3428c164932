"""Follows the DHT: reads on a clock what nodes have announced there, and gives it to the mirror."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from discovery.protocol.announcement import SignedAnnouncement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.protocol.oncall import SignedRegistration
from discovery.service.errors import MirrorFull
from discovery.service.mirror import Mirror, Source
from discovery.web.errors import ProofStale

log = structlog.get_logger(__name__)

READ_SECONDS = 60.0
"""A reading that takes longer is given up."""
REGISTER_SECONDS = 20.0
"""So long a node that sleeps waits to hear whether it can be woken."""
TAKEN_AT_ONCE = 64
MODELS_AT_ONCE = 32
"""Models whose keys are read at one reading."""


class BoardLike(Protocol):
    """What is needed of :class:`discovery.dht.board.Board`."""

    async def all_nodes(self, known: Callable[[bytes], bool]) -> list[SignedAnnouncement]:
        """Live announcements of all nodes, but for the documents that are known."""

    async def nodes_of(self, model_digest: str, known: Callable[[bytes], bool]) -> list[SignedAnnouncement]:
        """The same of a model's nodes."""

    async def publish(self, signed: SignedAnnouncement) -> bool:
        """Pin an announcement; whether it was taken."""

    async def register(self, signed: SignedRegistration) -> bool:
        """Pin the registration of a node that sleeps; whether it was taken."""


class Follower:
    """Reads the key of all nodes, and then those of some models: it may have been read from a peer that lacks some.

    Attributes:
        followed_at: when the key of all nodes was last read; None: not yet.
    """

    def __init__(self, board: BoardLike, mirror: Mirror, seconds: float) -> None:
        self._board, self._mirror, self._seconds = board, mirror, seconds
        self.followed_at: float | None = None
        self._last_model = ""
        self.taken = 0
        self.refused: Counter[str] = Counter()

    async def run(self) -> None:
        """Read, wait, and read again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await self.follow()
            except Exception as error:  # whatever the DHT has met: what is known stays as true as it was
                log.warning("dht_not_read", reason=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(self._seconds)

    async def follow(self) -> None:
        """Read once."""
        await self._take(await self._board.all_nodes(self._mirror.knows))
        self.followed_at = time.time()
        for model_digest in self._next_models():
            await self._take(await self._board.nodes_of(model_digest, self._mirror.knows))
        self._mirror.sweep(time.time())

    async def publish(self, signed: SignedAnnouncement) -> bool:
        """Carry to the DHT what a node has sent us that cannot do so itself. It is the node's own word, signed."""
        return await _carried(self._board.publish(signed), READ_SECONDS, "announcement_not_published")

    async def register(self, signed: SignedRegistration) -> bool:
        """The same for where a node is woken that sleeps."""
        return await _carried(self._board.register(signed), REGISTER_SECONDS, "registration_not_published")

    def _next_models(self) -> list[str]:
        """Some models, others each time: anybody can announce as many as he likes."""
        digests = self._mirror.digests(time.time())
        rest = [one for one in digests if one > self._last_model] + [one for one in digests if one <= self._last_model]
        some = rest[:MODELS_AT_ONCE]
        self._last_model = some[-1] if some else ""
        return some

    async def _take(self, found: list[SignedAnnouncement]) -> None:
        for count, signed in enumerate(found, 1):
            if count % TAKEN_AT_ONCE == 0:
                await asyncio.sleep(0)  # there may be thousands, and others ask meanwhile
            try:
                self.taken += self._mirror.take(signed, time.time(), Source.DHT)
            except (AnnouncementInvalid, ProofStale, MirrorFull) as error:
                self.refused[error.code] += 1


async def _carried(carrying: Awaitable[bool], seconds: float, otherwise: str) -> bool:
    """Whether the DHT has taken it in time. Whatever it has met is in the log, as the event ``otherwise``."""
    try:
        async with asyncio.timeout(seconds):
            return await carrying
    except Exception as error:
        log.warning(otherwise, reason=f"{type(error).__name__}: {error}"[:200])
        return False
