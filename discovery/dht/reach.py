"""Whether others get through to us, and why not: what the initial peers find when they dial back, in words.

Peers that are reached through relays know it from their slots (:mod:`discovery.dht.relay`); all others ask those
through whom they joined (:mod:`discovery.dht.dialback`), when they start and again now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from hivemind.p2p import P2P, PeerID

from discovery.dht import dialback
from discovery.dht.dialback import Answer
from discovery.protocol.announcement import Reached
from discovery.protocol.errors import FarError

log = structlog.get_logger(__name__)

ASK_SECONDS, ASK_AGAIN_SECONDS = 600.0, 60.0
"""How often is asked, and how soon again when nobody could tell."""


@dataclass(frozen=True)
class Reach:
    """How others get to us, and why it is so; ``way`` None: nobody could tell so far."""

    way: Reached | None
    why: str


NOT_ASKED = Reach(None, "nobody was asked yet")


def of_relays(relays: Sequence[str]) -> Reach:
    """Of a peer that is reached through these relays, by their ids, and through nothing else."""
    if not relays:
        return Reach("none", "no relay lets others through to us now; each is asked again")
    return Reach("relay", "through " + " and ".join(f"the relay {relay}" for relay in relays))


def of_answers(port: int, answers: Mapping[str, Answer | None]) -> Reach:
    """What follows from the answers of peers that were asked to dial a port; None of one that did not answer.

    One that gets through is enough: others may have been asked too often, or be on the wrong side of a firewall.
    """
    told = {peer: answer for peer, answer in answers.items() if answer is not None}
    if not told:
        return Reach(None, "none of the initial peers dials back; those of older versions cannot")
    for peer, answer in told.items():
        if answer.outcome == "reached":
            return Reach("direct", f"{peer} got through to {_place(answer, port)}")
    for outcome, words in _CLOSED.items():
        for peer, answer in told.items():
            if answer.outcome == outcome:
                return Reach("none", f"{peer} dialed {_place(answer, port)}, and {words}")
    if any(answer.outcome == "too_often" for answer in told.values()):
        return Reach(None, "asked too often from this address; asking again in a while")
    return Reach(None, "the initial peers are connected to us in a way that tells no address to dial")


_CLOSED = {
    "stranger": "another program answered",
    "refused": "the connection was refused",
    "silent": "nothing answered, as with a router or firewall that lets nobody in",
}


def _place(answer: Answer, port: int) -> str:
    ip = answer.ip or "us"
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class ReachMeter:
    """Asks peers to dial a TCP port of ours, from :meth:`start` to :meth:`stop`."""

    def __init__(self, p2p: P2P, peers: Sequence[str], port: Callable[[], Awaitable[int | None]]) -> None:
        self._p2p, self._peers, self._port = p2p, tuple(peers), port
        self._asking: asyncio.Task[None] | None = None
        self.now = NOT_ASKED

    def start(self) -> None:
        """Begin to ask."""
        self._asking = asyncio.create_task(self._ask_ever())

    async def stop(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_ever(self) -> None:
        while True:
            try:
                self._learn(await self._ask_all())
            except Exception as error:  # it is news for the owner, and no reason to stop serving
                log.warning("reach_not_measured", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(ASK_AGAIN_SECONDS if self.now.way is None else ASK_SECONDS)

    def _learn(self, found: Reach) -> None:
        if found.way is None and self.now.way is not None:  # not being told is no news
            return
        if found.way != self.now.way:
            tell = log.warning if found.way == "none" else log.info
            tell("reached", way=found.way, why=found.why)
        self.now = found

    async def _ask_all(self) -> Reach:
        port = await self._port()
        if port is None:
            return Reach(None, "there is no TCP port that could be dialed")
        answers = await asyncio.gather(*(self._ask(peer, port) for peer in self._peers))
        return of_answers(port, dict(zip(self._peers, answers, strict=True)))

    async def _ask(self, peer: str, port: int) -> Answer | None:
        try:
            return await dialback.ask(self._p2p, PeerID.from_base58(peer), port)
        except FarError:
            return None
