"""Announcements that were read before. A node is asked about the same document again and again: by each peer that holds
it, and at each reading until it is renewed; and a signature takes a tenth of a millisecond."""

from __future__ import annotations

from functools import lru_cache

from discovery.protocol.announcement import SignedAnnouncement, read_announcement

MOST_READ = 4096


@lru_cache(MOST_READ)
def announcement_in(data: bytes) -> SignedAnnouncement:
    """:func:`read_announcement`; what it makes of bytes never changes.

    Raises:
        AnnouncementInvalid: as that does.
    """
    return read_announcement(data)
