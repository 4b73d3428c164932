"""Peers to join a swarm through, as a discovery service names them. A hint and no more: who is found through them is
believed by signatures alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import structlog

from discovery.inquiry import Inquiry
from discovery.protocol.errors import FarError, InvalidArgument, PeerUnavailable

log = structlog.get_logger(__name__)

PATH = "/bootstrap"
MAX_ANSWER_BYTES = 64 * 1024
MAX_PEERS = 16


async def peers_to_join(known: Collection[str], url: str | None) -> tuple[str, ...]:
    """``known``, and who the discovery service at ``url`` names besides. Where somebody is known, a service that does
    not answer keeps nobody out.

    Raises:
        InvalidArgument: it is no address of a service.
        PeerUnavailable: nobody is known, and the service does not answer or names nobody.
    """
    if url is None:
        return tuple(known)
    try:
        named = await bootstrap_peers(url)
    except PeerUnavailable as error:
        if not known:
            raise
        log.warning("discovery_unavailable", reason=error.message)
        named = ()
    return tuple(dict.fromkeys((*known, *named)))


async def bootstrap_peers(url: str) -> tuple[str, ...]:
    """The peers that the service at ``url`` names, as multiaddrs; what is none is left out.

    Raises:
        InvalidArgument: it is no address of a service.
        PeerUnavailable: it does not answer, or names nobody.
    """
    async with Inquiry(url) as service:
        status, body = await service.get(PATH, most_bytes=MAX_ANSWER_BYTES)
    if status != 200:
        raise PeerUnavailable(f"the discovery service {url} answers with status {status}")
    peers = tuple(_usable(body))[:MAX_PEERS]
    if not peers:
        raise PeerUnavailable(f"the discovery service {url} names no peer to join the swarm through")
    return peers


def _usable(body: bytes) -> list[str]:
    from discovery.dht.peer import check_peer_maddr

    try:
        told: Any = json.loads(body)
        named = told["initial_peers"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return []
    found = []
    for maddr in named if isinstance(named, list) else []:
        try:
            if not isinstance(maddr, str):
                raise InvalidArgument("a multiaddr is a text")
            check_peer_maddr(maddr)
        except FarError:
            log.warning("hint_ignored", reason="not the address of a peer")
        else:
            found.append(maddr)
    return found
