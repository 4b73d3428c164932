"""The notice board: nodes pin their announcements here, clients read them.

A pair that belongs together: what :meth:`Board.publish` writes is what :meth:`Board.nodes_of` reads. Bad entries are
skipped and logged; good ones are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from hivemind.dht.node import DHTNode
from hivemind.utils import DHTExpiration, ValueWithExpiration

from discovery.dht.keys import all_nodes_key, model_key, node_key, places_of
from discovery.protocol.announcement import SignedAnnouncement, read_announcement
from discovery.protocol.errors import AnnouncementInvalid

log = structlog.get_logger(__name__)

CHECKED_AT_ONCE = 16

Known = Callable[[bytes], bool]
"""Whether a document was read before, and need not be checked again."""


def _nothing(_document: bytes) -> bool:
    return False


class Board:
    """Announcements on the hivemind DHT, under one swarm's prefix."""

    def __init__(self, node: DHTNode, prefix: str) -> None:
        self._node, self._prefix = node, prefix

    async def publish(self, signed: SignedAnnouncement) -> bool:
        """Pin an announcement until it expires; whether any DHT peer took it under every key. One that is meant for
        another swarm has none here."""
        places = places_of(self._prefix, signed.announcement)
        if not places:
            return False
        stored = await self._node.store_many(
            keys=list(places),
            subkeys=list(places.values()),
            values=[signed.to_bytes()] * len(places),
            expiration_time=DHTExpiration(signed.announcement.expires_at),
        )
        return all(bool(ok) for ok in stored.values())

    async def nodes_of(self, model_digest: str, known: Known = _nothing) -> list[SignedAnnouncement]:
        """Live announcements of the nodes that serve a model, but for the documents that are known already."""
        return await self._read(model_key(self._prefix, model_digest), known)

    async def node(self, peer_id: str) -> list[SignedAnnouncement]:
        """Live announcements of one node, one for each model it serves."""
        return await self._read(node_key(self._prefix, peer_id))

    async def all_nodes(self, known: Known = _nothing) -> list[SignedAnnouncement]:
        """Live announcements of all nodes, one for each model that one serves, but for the documents that are known."""
        return await self._read(all_nodes_key(self._prefix), known)

    async def _read(self, key: str, known: Known = _nothing) -> list[SignedAnnouncement]:
        found = await self._node.get(key, latest=True)
        if found is None or not isinstance(found.value, dict):
            return []
        live = []
        for count, (subkey, item) in enumerate(found.value.items(), 1):
            if count % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # a signature takes a tenth of a millisecond, and there may be thousands
            signed = None if known(item.value) else _live_announcement(subkey, item)
            if signed is not None and places_of(self._prefix, signed.announcement).get(key) == subkey:
                live.append(signed)
        return live


def _live_announcement(subkey: object, item: ValueWithExpiration) -> SignedAnnouncement | None:
    try:
        if not isinstance(item.value, bytes):
            raise AnnouncementInvalid("the value is not bytes")
        signed = read_announcement(item.value)
    except AnnouncementInvalid as error:
        log.warning("announcement_skipped", subkey=str(subkey)[:64], reason=error.message)
        return None
    return signed if signed.announcement.is_live() else None
