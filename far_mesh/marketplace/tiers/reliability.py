"""How reliable nodes are, by what gateways have seen of them: never by what they say of themselves.

Whenever a request is captured, each hop whose work was proven counts as completed. Whenever a node cannot be reached,
refuses for another reason than being full or on its way out, or breaks a session off, that counts as failed. Both are
columns of ``node_registry``, so all gateways count together, and a restart forgets nothing but the failures of the last
seconds. The score is the mean of a Beta(1 + completed, 1 + failed) distribution, what is left of having known nothing
(Laplace's rule of succession): 18 hops without a failure give 0.95. A node of which nothing was seen has no score; no
minimum lets it in, until the work of other tiers has made it known.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

import structlog
from sqlalchemy import select, update

from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.tables import node_registry

FLUSH_SECONDS = 5.0

log = structlog.get_logger(__name__)


def score_of(completed: int, failed: int) -> float | None:
    """From 0 to 1; None: nothing was seen."""
    return (completed + 1) / (completed + failed + 2) if completed + failed else None


class Reliability:
    """Counts failures, and knows the scores of a moment ago."""

    def __init__(self, database: Database, recall_seconds: float = FLUSH_SECONDS) -> None:
        self._database = database
        self._recall: Recall[None, dict[str, float]] = Recall(recall_seconds)
        self._failed: Counter[str] = Counter()

    def failed(self, peer_ids: Iterable[str]) -> None:
        """They failed once each."""
        self._failed.update(set(peer_ids))

    async def scores(self) -> dict[str, float]:
        """Of every node of which anything was seen, by peer id."""
        return await self._recall.get(None, self._read)

    async def at_least(self, minimum: float) -> frozenset[str]:
        """The peer ids of those whose score is ``minimum`` or more."""
        return frozenset(peer_id for peer_id, score in (await self.scores()).items() if score >= minimum)

    async def flush(self) -> None:
        """Write down which nodes have failed. Of one that has never completed anything nothing is kept: it is unknown
        as it is.

        Raises:
            DatabaseUnavailable: it is kept for the next time.
        """
        if not self._failed:
            return
        failed, self._failed = self._failed, Counter()
        try:
            async with self._database.writing() as connection:
                for peer_id, times in sorted(failed.items()):
                    more = node_registry.c.hops_failed + times
                    this = node_registry.c.node_id == peer_id
                    await connection.execute(update(node_registry).where(this).values(hops_failed=more))
        except BaseException:
            self._failed += failed
            raise
        self._recall.forget()

    async def run(self) -> None:
        """Write them down every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except DatabaseUnavailable as error:
                log.warning("failures_not_kept", code=error.code)

    async def _read(self) -> dict[str, float]:
        node = node_registry.c
        seen = (node.hops_completed > 0) | (node.hops_failed > 0)
        async with self._database.reading() as connection:
            rows = (
                await connection.execute(select(node.node_id, node.hops_completed, node.hops_failed).where(seen))
            ).all()
        scores = {node_id: score_of(completed, failed) for node_id, completed, failed in rows}
        return {node_id: score for node_id, score in scores.items() if score is not None}
