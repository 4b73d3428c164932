"""What our DHT peers store for others: signed announcements under their own keys, and nothing else.

hivemind asks this of every record it is told to store and of every record it is given. A forged, moved, stretched or
foreign record is refused at each honest peer.
"""

from __future__ import annotations

import msgpack
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord, RecordValidatorBase

from discovery.dht.keys import places_of
from discovery.protocol.announcement import read_announcement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.protocol.signed import MAX_DOCUMENT_BYTES

_EXPIRY_SLACK_SECONDS = 1.0


class AnnouncementValidator(RecordValidatorBase):
    """Accepts a record when its announcement is signed by the peer it is about, and stands in a place of its own."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def validate(self, record: DHTRecord) -> bool:
        """hivemind's question; never raises."""
        try:
            self.check(record)
        except AnnouncementInvalid:
            return False
        return True

    def check(self, record: DHTRecord) -> None:
        """Say what is wrong with a record.

        Raises:
            AnnouncementInvalid: shape, signature, owner, key or expiry is wrong.
        """
        subkey, value = _unpack(record.subkey), _unpack(record.value)
        if not isinstance(subkey, str) or not isinstance(value, bytes):
            raise AnnouncementInvalid("a record of this DHT maps a name to a signed announcement")
        announcement = read_announcement(value).announcement
        places = {DHTID.generate(key).to_bytes(): name for key, name in places_of(self._prefix, announcement).items()}
        if record.key not in places:
            raise AnnouncementInvalid(f"the announcement of {announcement.peer_id} stands under a key not its own")
        if subkey != places[record.key]:
            raise AnnouncementInvalid(f"{announcement.peer_id} announced itself under the name of {subkey[:160]}")
        if record.expiration_time > announcement.expires_at + _EXPIRY_SLACK_SECONDS:
            raise AnnouncementInvalid(f"the record of {announcement.peer_id} would outlive its announcement")


def _unpack(data: bytes) -> object:
    if len(data) > 2 * MAX_DOCUMENT_BYTES:
        raise AnnouncementInvalid("the record is too long")
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException):
        raise AnnouncementInvalid("the record is not msgpack") from None
