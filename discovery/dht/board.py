"""The notice board: nodes pin their announcements here, clients read them.

A pair that belongs together: what :meth:`Board.publish` writes is what :meth:`Board.nodes_of` reads. Bad entries are
skipped and logged; good ones are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from hivemind.dht.node import DHTNode
from hivemind.utils import DHTExpiration, ValueWithExpiration

from discovery.dht.documents import announcement_in
from discovery.dht.keys import all_nodes_keys, model_keys, node_key, on_call_key, on_call_name, places_of
from discovery.protocol.announcement import Announcement, SignedAnnouncement
from discovery.protocol.errors import AnnouncementInvalid, MembershipInvalid, NotInvited
from discovery.protocol.oncall import Registration, SignedRegistration, read_registration

log = structlog.get_logger(__name__)

CHECKED_AT_ONCE = 16

Known = Callable[[bytes], bool]
"""Whether a document was read before, and need not be checked again."""


def _nothing(_document: bytes) -> bool:
    return False


Believe = Callable[[Announcement], None]
"""Raises one of :data:`NOT_BELIEVED` at an announcement of somebody who may not announce himself here."""
NOT_BELIEVED = (NotInvited, MembershipInvalid)


def all_are_believed(announcement: Announcement) -> None:
    """In a swarm that is open to all."""


class Board:
    """Announcements on the hivemind DHT, under one swarm's prefix."""

    def __init__(self, node: DHTNode, prefix: str, believe: Believe = all_are_believed) -> None:
        self._node, self._prefix, self._believe = node, prefix, believe

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

    async def register(self, signed: SignedRegistration) -> bool:
        """Pin a registration until it expires; whether any DHT peer took it."""
        about = signed.registration
        if about.swarm != self._prefix:
            return False
        return bool(
            await self._node.store(
                key=on_call_key(self._prefix, about.model_digest),
                subkey=on_call_name(about.peer_id),
                value=signed.to_bytes(),
                expiration_time=DHTExpiration(about.expires_at),
            )
        )

    async def on_call(self, model_digest: str) -> list[Registration]:
        """Live registrations of nodes that serve a model once they are woken."""
        found = await self._node.get(on_call_key(self._prefix, model_digest), latest=True)
        if found is None or not isinstance(found.value, dict):
            return []
        registrations = []
        for subkey, item in found.value.items():
            try:
                about = read_registration(item.value if isinstance(item.value, bytes) else b"").registration
                self._believe(about)
            except (AnnouncementInvalid, *NOT_BELIEVED) as error:
                log.warning("registration_skipped", subkey=str(subkey)[:64], reason=error.message)
                continue
            at_home = subkey == on_call_name(about.peer_id) and about.swarm == self._prefix
            if at_home and about.model_digest == model_digest and about.is_live() and about.wake_url is not None:
                registrations.append(about)
        return registrations

    async def nodes_of(self, model_digest: str, known: Known = _nothing) -> list[SignedAnnouncement]:
        """Live announcements of the nodes that serve a model, but for the documents that are known already."""
        return await self._read(model_keys(self._prefix, model_digest), known)

    async def node(self, peer_id: str) -> list[SignedAnnouncement]:
        """Live announcements of one node, one for each model it serves."""
        return await self._read([node_key(self._prefix, peer_id)])

    async def all_nodes(self, known: Known = _nothing) -> list[SignedAnnouncement]:
        """Live announcements of all nodes, one for each model that one serves, but for the documents that are known."""
        return await self._read(all_nodes_keys(self._prefix), known)

    async def _read(self, keys: Sequence[str], known: Known = _nothing) -> list[SignedAnnouncement]:
        found = await self._node.get_many(keys, sufficient_expiration_time=float("inf"))
        items = [
            (key, subkey, item)
            for key in keys
            if found[key] is not None and isinstance(found[key].value, dict)
            for subkey, item in found[key].value.items()
        ]
        live = []
        for count, (key, subkey, item) in enumerate(items, 1):
            if count % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # a signature takes a tenth of a millisecond, and there may be thousands
            if isinstance(item.value, bytes) and known(item.value):
                continue
            signed = self._live_announcement(subkey, item)
            if signed is not None and places_of(self._prefix, signed.announcement).get(key) == subkey:
                live.append(signed)
        return live

    def _live_announcement(self, subkey: object, item: ValueWithExpiration) -> SignedAnnouncement | None:
        try:
            if not isinstance(item.value, bytes):
                raise AnnouncementInvalid("the value is not bytes")
            signed = announcement_in(item.value)
            self._believe(signed.announcement)
        except (AnnouncementInvalid, *NOT_BELIEVED) as error:
            log.warning("announcement_skipped", subkey=str(subkey)[:64], reason=error.message)
            return None
        return signed if signed.announcement.is_live() else None
