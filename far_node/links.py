"""What a node finds out about itself for those who plan routes: round trips to its neighbours, speed, and load.

Others of its models are asked one small question now and then. The nearest in the chain come first: those whose blocks
end where ours begin or begin where ours end, then those whose blocks overlap ours, then the rest.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import structlog
import torch

from discovery.dht.ping import round_trip, smoothed
from discovery.dht.transport import Transport
from discovery.protocol.announcement import (
    MAX_BLOCK_MS,
    MAX_LINK_MS,
    MAX_LINKS,
    MAX_QUEUE_MS,
    MIN_BLOCK_MS,
    MIN_LINK_MS,
    Announcement,
    PeerLink,
)
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import PeerAddress
from far_node.blocks.run import Blocks

log = structlog.get_logger(__name__)

ROUND_SECONDS = 60.0
"""In this time every neighbour is asked once; quicker at the beginning."""
FIRST_ROUND_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_MISSES_FORGIVEN = 3
_STEPS_TIMED = 4

FindNodes = Callable[[], Awaitable[Sequence[Announcement]]]


class LinkMeter:
    """Measures round trips from one node to others that serve the same model."""

    def __init__(
        self,
        transport: Transport,
        about: Announcement,
        find_nodes: FindNodes,
        on_first_round: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport, self._about, self._find_nodes = transport, about, find_nodes
        self._on_first_round = on_first_round
        self._round_trips: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to measure, until :meth:`stop`."""
        self._task = asyncio.create_task(self._measure())

    async def stop(self) -> None:
        """Measure no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def links(self) -> tuple[PeerLink, ...]:
        """What has been measured, as it is announced."""
        bounded = {
            peer_id: round(min(max(milliseconds, MIN_LINK_MS), MAX_LINK_MS), 2)
            for peer_id, milliseconds in self._round_trips.items()
        }
        return tuple(sorted(bounded.items()))

    async def _measure(self) -> None:
        seconds, told = FIRST_ROUND_SECONDS, False
        while True:
            try:
                neighbours = nearest(self._about, await self._find_nodes(), self._round_trips)
                await self._ask_all(neighbours, seconds)
                if self._round_trips and not told:
                    told = True
                    self._on_first_round()
            except Exception as error:  # whatever the DHT has met: links are a help, not a duty
                log.warning("links_not_measured", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(seconds)
            seconds = min(2 * seconds, ROUND_SECONDS)

    async def _ask_all(self, neighbours: Sequence[Announcement], seconds: float) -> None:
        """One question to each, spread over so many seconds."""
        staying = {node.peer_id for node in neighbours}
        self._round_trips = {peer: known for peer, known in self._round_trips.items() if peer in staying}
        self._misses = {peer: misses for peer, misses in self._misses.items() if peer in staying}
        if not neighbours:
            await asyncio.sleep(seconds)
        pause = seconds / max(1, len(neighbours))
        for node in neighbours:
            started = time.monotonic()
            await self._ask(node)
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.0, pause * random.uniform(0.5, 1.5) - spent))  # noqa: S311  # no secret

    async def _ask(self, node: Announcement) -> None:
        peer_id = node.peer_id
        try:
            taken = await round_trip(
                self._transport, PeerAddress(PeerId(peer_id), node.maddrs), node.model_digest, _ANSWER_SECONDS
            )
        except FarError as error:
            log.debug("link_not_measured", peer=peer_id, code=error.code)
            self._misses[peer_id] = self._misses.get(peer_id, 0) + 1
            if self._misses[peer_id] >= _MISSES_FORGIVEN:
                self._round_trips.pop(peer_id, None)
        else:
            self._misses.pop(peer_id, None)
            self._round_trips[peer_id] = smoothed(self._round_trips.get(peer_id), taken)


def nearest(about: Announcement, nodes: Sequence[Announcement], kept: Collection[str] = ()) -> list[Announcement]:
    """Up to :data:`MAX_LINKS` others that a chain through ``about`` is most likely to go on to, or to come from.

    Among equals those in ``kept`` come first, then whoever chance chooses: each is measured by some.
    """

    def far(node: Announcement) -> tuple[int, int, bool]:
        touching = node.end_block == about.first_block or node.first_block == about.end_block
        overlapping = node.first_block < about.end_block and about.first_block < node.end_block
        inside = about.first_block <= node.first_block and node.end_block <= about.end_block
        gap = max(node.first_block - about.end_block, about.first_block - node.end_block, 0)
        distance = 0 if touching else 1 if overlapping and not inside else 2 if overlapping else 3
        return distance, gap, node.peer_id not in kept

    others = [node for node in nodes if node.peer_id != about.peer_id and node.state == "ready"]
    random.shuffle(others)
    return sorted(others, key=far)[:MAX_LINKS]


@torch.inference_mode()
def block_ms(blocks: Blocks) -> float:
    """Milliseconds that one token of one session takes in one block, at best of some steps. On the compute thread."""
    cache = blocks.new_cache()
    hidden = torch.zeros(1, 1, blocks.hidden_size, device=blocks.device, dtype=blocks.dtype)
    best = float("inf")
    for _ in range(_STEPS_TIMED):
        started = time.perf_counter()
        blocks.run(hidden, cache, blocks.first, blocks.end).cpu()  # a GPU has finished when its result is here
        best = min(best, time.perf_counter() - started)
    each = 1000.0 * best / (blocks.end - blocks.first)
    return round(min(max(each, MIN_BLOCK_MS), MAX_BLOCK_MS), 4)


def load_facts(*, queued: int, batch: int, pass_ms: float, open_sessions: int, max_sessions: int) -> dict[str, Any]:
    """How busy a node is, as it is announced.

    Args:
        queued: steps that wait; ``batch`` of them are computed in one pass, which takes ``pass_ms``.
    """
    waiting = pass_ms * queued / batch
    return {
        "queue_ms": round(min(waiting, MAX_QUEUE_MS), 2),
        "load": round(min(open_sessions / max_sessions, 1.0), 3),
    }
