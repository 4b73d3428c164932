"""What probers have seen of nodes: their signed reports, as a discovery service hands them on.

The service is believed in nothing. A report counts that one of the operator's own choice has signed (``FAR_PROBERS``),
for this swarm, within a day, and of its observations those of nodes that the registry knows. Each has a number that is
greater than the one before; the number of the last one that was counted is written down together with what it said, so
that no report counts twice, whichever of several gateways hears it, and however often. What a service can do is to keep
a report to itself. That a prober could not reach a node, or was refused, is not counted: whether a node can be reached
from here is for the gateways to see.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError
from sqlalchemy import select, update

from discovery.inquiry import Inquiry
from discovery.probe.observation import Fate, Observation, Report, ReportInvalid, Verdict, read_report
from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.ids import PeerId
from discovery.service.schemas import MAX_REPORTS, Document, ProbeReports
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database, insert_if_absent
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.nodes.service import CENSUS_SECONDS
from far_mesh.marketplace.tables import node_registry, probers
from far_mesh.marketplace.tiers.reliability import PROBED, weight

PATH = "/probes/reports"
FIRST_SECONDS, ASK_SECONDS = 2 * CENSUS_SECONDS, 60.0
"""The first time is after the first census: what is said of nodes that the registry does not know yet is lost."""
MOST_PAGES = 8
"""Of one prober, in one round."""
MOST_BYTES = 2 * 1024 * 1024

log = structlog.get_logger(__name__)


class ProberNews:
    """Asks the service at ``url`` for the reports of some probers on the swarm ``swarm``."""

    def __init__(self, database: Database, url: str, swarm: str, named: Sequence[PeerId]) -> None:
        self._database, self._url, self._swarm, self._named = database, url, swarm, named

    async def run(self) -> None:
        """Ask from time to time, until cancelled. Several gateways do not ask at once."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.hear()
            except (PeerUnavailable, DatabaseUnavailable) as error:
                log.warning("probers_not_heard", code=error.code, reason=error.message)
            await asyncio.sleep(random.uniform(0.5, 1.5) * ASK_SECONDS)  # noqa: S311

    async def hear(self) -> int:
        """Take what is new. How many reports were counted.

        Raises:
            PeerUnavailable: the service does not answer; what was taken before counts.
            DatabaseUnavailable: not now.
        """
        async with Inquiry(self._url) as service:
            return sum([await self._hear(service, prober) for prober in self._named])

    async def _hear(self, service: Inquiry, prober: PeerId) -> int:
        after, taken = await self._last(prober), 0
        for _ in range(MOST_PAGES):
            status, body = await service.get(PATH, {"prober": prober, "after": after}, most_bytes=MOST_BYTES)
            page = _page(body) if status == 200 else None
            if page is None:
                log.warning("no_reports", prober=prober, status=status)
                break
            reports = await asyncio.to_thread(
                lambda page, after: list(self._believed(page, prober, after)), page, after
            )
            for report in reports:
                taken += await self._take(report)
                after = report.sequence
            if not reports or len(page) < MAX_REPORTS:
                break
        return taken

    def _believed(self, page: Iterable[Document], prober: PeerId, after: int) -> Iterator[Report]:
        """Those that count, in the order of their numbers."""
        for document in page:
            try:
                report = read_report(document.model_dump_json().encode()).report
            except ReportInvalid as error:
                log.warning("report_not_believed", prober=prober, reason=error.message)
                continue
            is_meant = report.peer_id == prober and report.swarm == self._swarm and report.is_of_today(time.time())
            if is_meant and report.sequence > after:
                yield report
                after = report.sequence

    async def _last(self, prober: PeerId) -> int:
        async with self._database.reading() as connection:
            last = select(probers.c.sequence).where(probers.c.prober == prober)
            return (await connection.execute(last)).scalar_one_or_none() or 0

    async def _take(self, report: Report) -> bool:
        """Count a report. False: this one or a later one of its prober was counted already."""
        counts = _counts(report.observations)
        async with self._database.writing() as connection:
            await connection.execute(insert_if_absent(connection, probers), [{"prober": report.peer_id, "sequence": 0}])
            earlier = update(probers).where(probers.c.prober == report.peer_id, probers.c.sequence < report.sequence)
            if (await connection.execute(earlier.values(sequence=report.sequence))).rowcount != 1:
                return False
            # In the order of ids, as all do who write several rows: nobody waits for somebody who waits for him.
            for peer_id, seen in sorted(counts.items()):
                values = {PROBED[name]: PROBED[name] + times for name, times in seen.items()}
                one = update(node_registry).where(node_registry.c.node_id == peer_id)
                await connection.execute(one.values(values))
        return True


def _page(body: bytes) -> list[Document] | None:
    """The reports of an answer; None: it is none."""
    try:
        return ProbeReports.model_validate_json(body).reports
    except ValidationError:
        return None


def _counts(observations: Iterable[Observation]) -> dict[str, dict[str, float]]:
    """What is to be added for each node, by the names in :data:`PROBED`."""
    found: dict[str, dict[str, float]] = {}
    for one in observations:
        for name in _names(one):
            at = min(now(), datetime.fromtimestamp(one.at, UTC))
            of_node = found.setdefault(one.peer_id, {})
            of_node[name] = of_node.get(name, 0.0) + weight(at)
    return found


def _names(seen: Observation) -> Iterator[str]:
    if seen.fate in (Fate.COMPLETED, Fate.FAILED, Fate.TIMED_OUT):
        yield seen.fate.value
    if seen.receipt is False:
        yield "receipts_rejected"
    if seen.verdict is Verdict.RIGHT:
        yield "probes_right"
    if seen.verdict is Verdict.WRONG:
        yield "probes_wrong"
