"""How far nodes are trusted, by what gateways and probers have seen of them: never by what they say of themselves.

Whenever a request is captured, each hop whose work was proven counts as completed. A node that cannot be reached,
refuses for another reason than being full or on its way out, answers too late, is lost in the middle of a session or
signs what is not true counts as that (:class:`discovery.score.Outcome`). All are columns of ``node_registry``, so all
gateways count together, and a restart forgets nothing but the outcomes of the last seconds. They are kept as forward
decay, so that old ones count for less without anybody writing that down. What probers have seen stands in columns of
its own (:mod:`far_mesh.marketplace.nodes.probes`) and counts as little work. What it all means is said by
:func:`discovery.score.score_of` alone. A node of which nothing was seen has no score; no minimum lets it in, until the
work of other tiers has made it known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import or_, select, update

from discovery.score import Observations, Outcome, grown, score_of
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.tables import node_registry

FLUSH_SECONDS = 5.0
TELL_EVERY = 12
"""So many times less often the meshes are told what is remembered."""
_node = node_registry.c
COLUMNS = {
    Outcome.COMPLETED: _node.seen_completed,
    Outcome.FAILED: _node.seen_failed,
    Outcome.TIMED_OUT: _node.seen_timed_out,
    Outcome.PAUSED: _node.seen_paused,
    Outcome.REJECTED: _node.seen_rejected,
}
PROBED = {
    "completed": _node.probed_completed,
    "failed": _node.probed_failed,
    "timed_out": _node.probed_timed_out,
    "receipts_rejected": _node.probed_rejected,
    "probes_right": _node.probed_right,
    "probes_wrong": _node.probed_wrong,
}
"""What probers have seen, by the names of :class:`~discovery.score.Observations`."""
PROBES_COUNT = 10.0
"""All that probers had a node do counts as so much work at most. That makes nobody reliable: it is 11/12."""
_SEEN = (*COLUMNS.values(), *PROBED.values())

log = structlog.get_logger(__name__)


def weight(at: datetime) -> float:
    """What an outcome at that time is counted as in the registry."""
    return grown(at.timestamp())


def observations_of(row: Any, at: datetime) -> Observations | None:
    """What is remembered of a row of the registry; None: nothing was seen."""
    left = 1.0 / weight(at)
    counts = {outcome.value: left * getattr(row, column.name) for outcome, column in COLUMNS.items()}
    probed = {name: left * getattr(row, column.name) for name, column in PROBED.items()}
    work = Observations(**counts, age=max(0.0, (at - row.registered_at).total_seconds()))
    seen = work + Observations(**probed).at_most(PROBES_COUNT)
    return seen if seen.anything else None


class Reliability:
    """Counts what goes wrong, and knows the scores of a moment ago.

    Attributes:
        listeners: told from time to time what is remembered of nodes, by peer id.
    """

    def __init__(self, database: Database, recall_seconds: float = FLUSH_SECONDS) -> None:
        self._database = database
        self._recall: Recall[None, dict[str, Observations]] = Recall(recall_seconds)
        self._new: dict[tuple[str, Outcome], float] = {}
        self.listeners: set[Callable[[Mapping[str, Observations]], None]] = set()

    def seen(self, peer_ids: Iterable[str], outcome: Outcome = Outcome.FAILED, sure: float = 1.0) -> None:
        """It came of work at each of them, once; ``sure`` from 0 to 1."""
        for peer_id in set(peer_ids):
            self._new[peer_id, outcome] = self._new.get((peer_id, outcome), 0.0) + sure

    async def observations(self) -> dict[str, Observations]:
        """Of every node of which anything was seen, by peer id."""
        return await self._recall.get(None, self._read)

    async def scores(self) -> dict[str, float]:
        """Their scores."""
        return {peer_id: score_of(seen).value for peer_id, seen in (await self.observations()).items()}

    async def at_least(self, minimum: float) -> frozenset[str]:
        """The peer ids of those whose score is ``minimum`` or more."""
        return frozenset(peer_id for peer_id, score in (await self.scores()).items() if score >= minimum)

    async def flush(self) -> None:
        """Write down what was seen. Of a node that has never completed anything nothing is kept: it is unknown as it
        is.

        Raises:
            DatabaseUnavailable: it is kept for the next time.
        """
        if not self._new:
            return
        new, self._new = self._new, {}
        each = weight(now())
        try:
            async with self._database.writing() as connection:
                for (peer_id, outcome), times in sorted(new.items()):
                    column = COLUMNS[outcome]
                    changed = update(node_registry).where(_node.node_id == peer_id)
                    await connection.execute(changed.values({column: column + times * each}))
        except BaseException:
            for what, times in new.items():
                self._new[what] = self._new.get(what, 0.0) + times
            raise
        self._recall.forget()

    async def tell(self) -> None:
        """Let the listeners know what is remembered.

        Raises:
            DatabaseUnavailable: they know what they knew.
        """
        if self.listeners:
            seen = await self.observations()
            for listener in self.listeners:
                listener(seen)

    async def run(self) -> None:
        """Write down and tell from time to time, until cancelled."""
        turn = 0
        while True:
            try:
                if turn % TELL_EVERY == 0:
                    await self.tell()
                turn += 1
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
            except DatabaseUnavailable as error:
                log.warning("outcomes_not_kept", code=error.code)
                await asyncio.sleep(FLUSH_SECONDS)

    async def _read(self) -> dict[str, Observations]:
        some = or_(*(column > 0 for column in _SEEN))
        async with self._database.reading() as connection:
            rows = (await connection.execute(select(_node.node_id, _node.registered_at, *_SEEN).where(some))).all()
        at = now()
        found = {row.node_id: observations_of(row, at) for row in rows}
        return {node_id: seen for node_id, seen in found.items() if seen is not None}
