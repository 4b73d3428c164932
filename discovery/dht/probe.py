"""A look at a swarm from the outside, before anybody joins it: do its initial peers answer, and how do they see us?

Nothing here joins the DHT or announces anything, so a machine whose clock is wrong, or whose port is closed, finds out
which of the two it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.control import P2PDaemonError

from discovery.dht import dialback
from discovery.dht.p2p import CANNOT_OPEN, to_multiaddr
from discovery.dht.peer import bare_maddr, check_peer_maddr, daemon_of_our_own
from discovery.dht.relay import reserve
from discovery.protocol.errors import FarError, PeerUnavailable

CONNECT_SECONDS = 5.0
START_SECONDS = 10.0


@dataclass(frozen=True)
class Meeting:
    """What came of turning to an initial peer.

    Attributes:
        reason: why it could not be connected to; None: it was.
        round_trip_ms: of the question for the time.
        answer: how it sees us; None: it cannot tell, as peers of older versions.
        clock_ahead_seconds: by how much our clock is ahead of its own, give or take half a round trip.
        no_slot: why it would not relay for us; None: it would, or was not asked.
    """

    maddr: str
    reason: str | None = None
    round_trip_ms: float | None = None
    answer: dialback.Answer | None = None
    clock_ahead_seconds: float | None = None
    no_slot: str | None = None


async def meet(
    initial_peers: Sequence[str],
    host_maddrs: Sequence[str] = (),
    port: int | None = None,
    now: Callable[[], float] = time.time,
    wants_slots: bool = False,
) -> list[Meeting]:
    """Turn to each initial peer, in the order given.

    Args:
        host_maddrs: where to listen meanwhile, so that there is somebody to dial; none: somebody does already.
        port: the TCP port to be dialed; None for the first that we listen at, and for none if we do not.
        now: our clock, in Unix seconds.
        wants_slots: whether each is asked to relay for us, as long as we look.

    Raises:
        PeerUnavailable: our own daemon does not start.
    """
    maddrs = list(host_maddrs)
    try:
        with daemon_of_our_own():
            p2p = await P2P.create(
                host_maddrs=maddrs or None,
                no_listen=not maddrs,
                dht_mode="client",
                auto_nat=False,
                nat_port_map=False,
                startup_timeout=START_SECONDS,
            )
    except P2PDaemonError as error:
        raise PeerUnavailable(f"the p2p daemon did not start: {error}") from None
    try:
        wanted = port if port is not None else await _listening_port(p2p) if maddrs else 0
        return list(await asyncio.gather(*(_meet(p2p, maddr, wanted, now, wants_slots) for maddr in initial_peers)))
    finally:
        await p2p.shutdown()


async def _listening_port(p2p: P2P) -> int:
    places = (dialback.place_of(bare_maddr(str(maddr))) for maddr in await p2p.get_visible_maddrs(latest=True))
    return next((place[1] for place in places if place is not None), 0)


async def _meet(p2p: P2P, maddr: str, port: int, now: Callable[[], float], wants_slot: bool) -> Meeting:
    try:
        check_peer_maddr(maddr)
        peer = PeerID.from_base58(maddr.rpartition("/p2p/")[2])
        async with asyncio.timeout(CONNECT_SECONDS):
            await p2p._client.connect(peer, [to_multiaddr(bare_maddr(maddr))])
    except FarError as error:
        return Meeting(maddr, error.message)
    except (*CANNOT_OPEN, ValueError, LookupError) as error:
        return Meeting(maddr, _in_short(error))
    no_slot = await _why_no_slot(p2p, peer) if wants_slot else None
    try:
        asked_at, started = now(), time.perf_counter()
        answer = await dialback.ask(p2p, peer, 0)  # dialing takes its time, and would tell nothing of clocks
        seconds = time.perf_counter() - started
        ahead = asked_at + seconds / 2 - answer.time
        if port:
            with contextlib.suppress(FarError):
                answer = await dialback.ask(p2p, peer, port)
        return Meeting(maddr, None, 1000.0 * seconds, answer, ahead, no_slot)
    except FarError:
        return Meeting(maddr, no_slot=no_slot)


async def _why_no_slot(p2p: P2P, peer: PeerID) -> str | None:
    try:
        slot = await reserve(p2p, peer)
    except FarError as error:
        return error.message
    return None if slot.suffices else slot.too_weak


def _in_short(error: Exception) -> str:
    """What the daemon says has a line for each address that was tried."""
    text = " ".join(str(error).split())
    for sign, words in (
        ("connection refused", "nobody listens there: the connection is refused"),
        ("no route to host", "there is no route to it"),
        ("network is unreachable", "there is no route to it"),
        ("peer id mismatch", "another peer listens there than its address names"),
        ("i/o timeout", "it does not answer"),
        ("deadline exceeded", "it does not answer"),
    ):
        if sign in text.lower():
            return words
    return text[:200] if text else "it does not answer"
