"""What our DHT peers store for others: signed announcements under their own keys, and nothing else.

hivemind asks this of every record it is told to store and of every record it is given. A forged, moved, stretched or
foreign record is refused at each honest peer.
"""

from __future__ import annotations

from functools import lru_cache

import msgpack
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord, RecordValidatorBase

from discovery.dht.board import NOT_BELIEVED, Believe, all_are_believed
from discovery.dht.documents import MOST_READ, MOST_READ_BYTES, announcement_in
from discovery.dht.keys import ON_CALL, on_call_key, on_call_name, places_of
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.protocol.oncall import read_registration
from discovery.protocol.signed import MAX_DOCUMENT_BYTES

MOST_KNOWN = 2 * MOST_READ
"""Records of announcements that were read before: a reader meets each in one place or two."""


class AnnouncementValidator(RecordValidatorBase):
    """Accepts a record when its announcement is signed by the peer it is about, and stands in a place of its own."""

    def __init__(self, prefix: str, believe: Believe = all_are_believed) -> None:
        self._prefix, self._believe = prefix, believe

    def validate(self, record: DHTRecord) -> bool:
        """hivemind's question; never raises."""
        try:
            self.check(record)
        except (AnnouncementInvalid, *NOT_BELIEVED):
            return False
        return True

    def check(self, record: DHTRecord) -> None:
        """Say what is wrong with a record.

        Raises:
            AnnouncementInvalid: shape, signature, owner, key or expiry is wrong.
            NotInvited, MembershipInvalid: in a private swarm, its peer is no member who may serve.
        """
        known = _known if len(record.value) <= MOST_READ_BYTES else _announced
        announcement = known(self._prefix, record.key, record.subkey, record.value)
        if not record.expiration_time <= announcement.expires_at:  # nor is it no number
            raise AnnouncementInvalid(f"the record of {announcement.peer_id} would outlive its announcement")
        self._believe(announcement)


def _announced(prefix: str, key: bytes, packed_subkey: bytes, packed_value: bytes) -> Announcement:
    """What a record announces, whenever that is."""
    subkey, value = _unpack(packed_subkey), _unpack(packed_value)
    if not isinstance(subkey, str) or not isinstance(value, bytes):
        raise AnnouncementInvalid("a record of this DHT maps a name to a signed announcement")
    announcement, named = _read(value, subkey, prefix)
    places = {DHTID.generate(place).to_bytes(): name for place, name in named.items()}
    if key not in places:
        raise AnnouncementInvalid(f"the announcement of {announcement.peer_id} stands under a key not its own")
    if subkey != places[key]:
        raise AnnouncementInvalid(f"{announcement.peer_id} announced itself under the name of {subkey[:160]}")
    return announcement


_known = lru_cache(MOST_KNOWN)(_announced)
"""Each of those who hold a record tells it, at each reading."""


def _read(value: bytes, subkey: str, prefix: str) -> tuple[Announcement, dict[str, str]]:
    """What is announced, and the places that it may stand in."""
    if not subkey.startswith(ON_CALL):
        announcement = announcement_in(value).announcement
        return announcement, places_of(prefix, announcement)
    about = read_registration(value).registration
    key = on_call_key(prefix, about.model_digest)
    return about, {key: on_call_name(about.peer_id)} if about.swarm == prefix else {}


def _unpack(data: bytes) -> object:
    if len(data) > 2 * MAX_DOCUMENT_BYTES:
        raise AnnouncementInvalid("the record is too long")
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException):
        raise AnnouncementInvalid("the record is not msgpack") from None
