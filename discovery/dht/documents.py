"""Announcements that were read before. A node is asked about the same document again and again: by each peer that holds
it, and at each reading until it is renewed; and a signature takes a tenth of a millisecond."""

from __future__ import annotations

from functools import lru_cache

from discovery.protocol.announcement import SignedAnnouncement, read_announcement

MOST_READ = 8192
MOST_READ_BYTES = 4096
"""A longer document is not kept. One of a public swarm takes a kilobyte or two; more is a stranger's wish."""


def announcement_in(data: bytes) -> SignedAnnouncement:
    """:func:`read_announcement`, once for the same bytes.

    Raises:
        AnnouncementInvalid: as that does.
    """
    return read_before(data) if len(data) <= MOST_READ_BYTES else read_announcement(data)


read_before = lru_cache(MOST_READ)(read_announcement)
