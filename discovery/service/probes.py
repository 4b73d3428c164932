"""Reports of probers: which are taken, and what they have said of a node."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection

from discovery.probe.history import HOUR, Hour, hours_of
from discovery.probe.observation import Observation, ReportInvalid, SignedReport, read_report
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId, check_peer_id
from discovery.service.errors import ProberUnknown
from discovery.service.mirror import Mirror
from discovery.service.store import Store
from discovery.web.errors import DatabaseUnavailable, ProofStale


class Probes:
    """Takes reports of the probers that the operator has named.

    Attributes:
        outcomes: how many reports were taken, and how many refused, by the reason.
        seen: observations, by how the node was reached, what became of the probe, and whether the answer was right.
    """

    def __init__(self, prefix: str, probers: Collection[PeerId], mirror: Mirror, store: Store) -> None:
        self._prefix, self._probers, self._mirror, self._store = prefix, frozenset(probers), mirror, store
        self.outcomes: Counter[str] = Counter()
        self.seen: Counter[tuple[str, str, str]] = Counter()

    async def take(self, document: bytes) -> tuple[SignedReport, int]:
        """A report as it was sent. How many of its observations count: those of nodes that are announced.

        Raises:
            ReportInvalid: malformed, not signed by its prober, or for another swarm.
            ProberUnknown: nobody has named this prober.
            ProofStale: it is not of now, or no newer than the prober's last one.
            DatabaseUnavailable: not now; the report may be sent again.
        """
        try:
            signed = read_report(document)
            counted = await self._take(signed)
        except FarError as error:
            self.outcomes[error.code] += 1
            raise
        self.outcomes["taken"] += 1
        for one in counted:
            self.seen[one.reach.value, one.fate.value, "" if one.verdict is None else one.verdict.value] += 1
        return signed, len(counted)

    async def _take(self, signed: SignedReport) -> list[Observation]:
        report, prober, now = signed.report, signed.document.signer, time.time()
        self._check_is_named(prober)
        if report.swarm != self._prefix:
            raise ReportInvalid("the report is of another swarm")
        if not report.is_fresh(now):
            raise ProofStale("the report is not of now: is the prober's clock right?")
        counted = [one for one in report.observations if self._is_announced(one, now)]
        if not await self._store.add_probes(signed, hours_of(prober, counted)):
            raise ProofStale(f"a report of {prober} with the number {report.sequence} or a later one was here already")
        return counted

    async def reports(self, prober: str, after: int, limit: int) -> list[bytes]:
        """The reports of a prober of the last day, as it has signed them, with numbers above ``after``, in their order.

        Raises:
            InvalidIdentity: this cannot be the id of a prober.
            ProberUnknown: nobody has named this prober.
            DatabaseUnavailable: not now.
        """
        named = check_peer_id(prober)
        self._check_is_named(named)
        return await self._store.reports_of(named, after, limit)

    def _check_is_named(self, prober: PeerId) -> None:
        if prober not in self._probers:
            raise ProberUnknown(f"{prober} is not one of the probers here (FAR_DISCOVERY_PROBERS)")

    def _is_announced(self, seen: Observation, now: float) -> bool:
        """Whether it is about somebody who is there: else the database would grow by whoever can be made up."""
        entries = self._mirror.node(seen.peer_id, now)
        return any(one.announcement.model_digest == seen.model_digest for one in entries)

    async def lately(self, peer_id: str, hours: int) -> list[Hour]:
        """What was seen of a node in so many hours, the newest first.

        Raises:
            DatabaseUnavailable: not now.
        """
        return await self._store.probes_of(peer_id, time.time() - hours * HOUR)

    async def known(self, peer_id: str, hours: int) -> list[Hour]:
        """As :meth:`lately`, and nothing while the database does not answer."""
        try:
            return await self.lately(peer_id, hours)
        except DatabaseUnavailable:
            return []
