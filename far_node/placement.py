"""A node that goes by itself where the swarm needs it more (``--auto-place``).

What to do is decided by :func:`discovery.placement.decide`; here it is done. Whether a model has a hole is looked at
every twenty seconds or so, everything else every so many minutes, at times that chance spreads. A node goes when it has
no sessions: it says where to, waits a moment, looks again whether it is still the one to go, and only then loads. Two
that have set out for the same place at once see each other in that moment, and both stay for this time. Who says that
it goes somewhere and does not come is believed for some minutes only (:class:`discovery.placement.Promises`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from discovery.placement import Decision, Patience, Promises, coverage, decide
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from far_node.capacity import Range

log = structlog.get_logger(__name__)

HOLE_SECONDS = 20.0
"""Between two looks at whether the model has a hole: it is closed before two announcements are due."""
TELL_SECONDS = 3.0
"""From saying where it goes to looking whether others do: the swarm has heard of it by then."""

Tell = Callable[..., None]


class Movable(Protocol):
    """What a mover needs of a node: models by their digest."""

    @property
    def peer_id(self) -> PeerId: ...
    @property
    def roaming(self) -> tuple[str, ...]: ...
    def sessions_of(self, model_digest: str) -> int: ...
    async def nodes_of(self, model_digest: str) -> list[Announcement]: ...
    async def set_out(self, model_digest: str, to: Range | None) -> None: ...
    async def go(self, model_digest: str, to: Range, watch: Tell) -> None: ...


class Mover:
    """Looks from time to time whether a node should move, and moves it.

    Args:
        seconds: between two looks at everything; a hole is looked for every :data:`HOLE_SECONDS`.
    """

    def __init__(self, node: Movable, seconds: float, watch: Tell) -> None:
        self._node, self._seconds, self._watch = node, seconds, watch
        self._patience: dict[str, Patience] = {}
        self._promises: dict[str, Promises] = {}

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        next_look = clock() + self._seconds * _some()
        while True:
            await asyncio.sleep(min(HOLE_SECONDS, self._seconds) * _some())
            everything = clock() >= next_look
            if everything:
                next_look = clock() + self._seconds * _some()
            try:
                await self.look(only_holes=not everything)
            except FarError as error:
                log.warning("place_not_changed", code=error.code, reason=error.message)
            except Exception as error:  # whatever the DHT has met: a node that serves must go on
                log.warning("place_not_looked_at", reason=f"{type(error).__name__}: {error}")

    async def look(self, *, only_holes: bool = False) -> None:
        """Decide for every model whose place is ours to choose, and go where that is decided.

        Raises:
            FarError: the other blocks could not be loaded; the former ones are served again.
        """
        for digest in self._node.roaming:
            decision = await self._decide(digest, only_holes)
            if decision is None or decision.move is None or self._node.sessions_of(digest):
                continue
            to = decision.move.to
            await self._node.set_out(digest, to)
            try:
                await asyncio.sleep(TELL_SECONDS * _some())
                again = await self._decide(digest, only_holes)
                if again is None or again.move is None or again.move.to != to or self._node.sessions_of(digest):
                    continue
                self._watch("moving", blocks=decision.move.blocks, to=to, why=decision.why)
                await self._node.go(digest, to, self._watch)
                self._watch("moved", blocks=to)
            finally:
                await self._node.set_out(digest, None)

    async def _decide(self, digest: str, only_holes: bool) -> Decision | None:
        promises, now = self._promises.setdefault(digest, Promises()), asyncio.get_running_loop().time()
        said = [_staying(about, self._node.peer_id) for about in await self._node.nodes_of(digest)]
        nodes = promises.believed(said, now)
        me = next((about for about in nodes if about.peer_id == self._node.peer_id), None)
        if me is None or (only_holes and min(coverage(nodes, me.block_count)) > 0):
            return None
        patience = self._patience.setdefault(digest, Patience())
        decision = decide(self._node.peer_id, nodes, me.block_count, patience.in_vain)
        patience.note(decision)
        log.debug("place", model=digest, moves=decision.move is not None, why=decision.why)
        return decision


@contextlib.asynccontextmanager
async def moving(node: Movable, minutes: float | None, watch: Tell) -> AsyncIterator[None]:
    """For as long as this lasts the node looks every so many minutes whether it should move; None: it stays."""
    task = None if minutes is None else asyncio.create_task(Mover(node, 60.0 * minutes, watch).run())
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _staying(about: Announcement, peer_id: PeerId) -> Announcement:
    """Where we go is what is to be decided."""
    return about.model_copy(update={"moving_to": None}) if about.peer_id == peer_id else about


def _some() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311  # no secret
