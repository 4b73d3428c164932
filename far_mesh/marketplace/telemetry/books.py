"""What the books and the outbox tell of the whole marketplace: every gateway says the same. It is read and not counted,
so a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import BigInteger, Column, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.account.events import DEPOSITED, TRANSFERRED
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.jobs.schemas import JobStatus
from far_mesh.marketplace.ledger import repository as ledger
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.lead import LEASE as SETTLER
from far_mesh.marketplace.settlement.reconcile_books import result
from far_mesh.marketplace.settlement.reconciler import LEASE as RECONCILER
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import (
    TO_SETTLE,
    UtcDateTime,
    chain_events,
    chain_outbox,
    inference_sessions,
    jobs,
    settlement_batches,
    webhook_deliveries,
)

CURRENCY = "FAR"
UNITS = 10**9
"""Of one FAR."""
LEASES = (SETTLER, RECONCILER)
_PAYS_PROVIDERS = (Kind.RELEASE, Kind.SETTLE, Kind.COMMIT, Kind.TRANSFER)


@dataclass(frozen=True)
class BookFacts:
    """One look. Amounts are in units of 1e-9 FAR, ages in seconds, None where there is nothing that could have one.

    Attributes:
        rows: of the outbox by kind and status, without locks that were never sent.
        oldest_seconds: how long what was asked of the chain longest ago has been waiting.
        at_fee_cap: rows that wait because ``FAR_MAX_FEE_GWEI`` allows no more.
        refused: rows that the chain refuses for good, and a person has to look at.
        owed: requests that ended and wait for their batch: how many, what they cost, and the age of the oldest.
        batches: by kind.
        holders: which gateway holds a lease now.
        findings: how many the last reconciliation had; None: there was none.
        compared_seconds: since then.
        totals: the sum of every kind of account.
        held: providers who cannot be paid by transfer now.
        jobs: by status; ``deliveries``: of their webhooks, by status.
    """

    rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest_seconds: float | None = None
    at_fee_cap: int = 0
    refused: int = 0
    owed: tuple[int, int, float | None] = (0, 0, None)
    batches: Mapping[str, int] = field(default_factory=dict)
    holders: Mapping[str, str] = field(default_factory=dict)
    findings: int | None = None
    compared_seconds: float | None = None
    deposits: int = 0
    totals: Mapping[Book, int] = field(default_factory=dict)
    held: int = 0
    jobs: Mapping[str, int] = field(default_factory=dict)
    deliveries: Mapping[str, int] = field(default_factory=dict)

    @property
    def payments(self) -> int:
        """Payments to providers that are done."""
        return sum(self.rows.get((kind, RowStatus.CONFIRMED), 0) for kind in _PAYS_PROVIDERS)


async def read(connection: AsyncConnection) -> BookFacts:
    """How it all stands."""
    oldest = await outbox.oldest_unfinished(connection)
    compared = await result(connection)
    holders = {name: await outbox.holder(connection, name) for name in LEASES}
    return BookFacts(
        rows=await _rows(connection),
        oldest_seconds=None if oldest is None else oldest.total_seconds(),
        at_fee_cap=await outbox.count_capped(connection),
        refused=len(await outbox.failures(connection)),
        owed=await _owed(connection),
        batches=await _counted(connection, settlement_batches.c.kind),
        holders={name: gateway for name, gateway in holders.items() if gateway is not None},
        findings=None if compared is None else len(compared.findings),
        compared_seconds=None if compared is None else (now() - compared.at).total_seconds(),
        deposits=await _deposits(connection),
        totals=await ledger.noted_totals(connection),
        held=len(await transfers.held(connection)),
        jobs=await _counted(connection, jobs.c.status),
        deliveries=await _counted(connection, webhook_deliveries.c.status),
    )


async def _rows(connection: AsyncConnection) -> dict[tuple[str, str], int]:
    query = (
        select(chain_outbox.c.kind, chain_outbox.c.status, func.count())
        .where(or_(chain_outbox.c.error_code.is_(None), chain_outbox.c.error_code != outbox.ABANDONED))
        .group_by(chain_outbox.c.kind, chain_outbox.c.status)
    )
    return {(str(kind), str(status)): int(count) for kind, status, count in await connection.execute(query)}


async def _owed(connection: AsyncConnection) -> tuple[int, int, float | None]:
    query = select(
        func.count(),
        func.coalesce(func.sum(inference_sessions.c.total_cost_units), 0, type_=BigInteger),
        func.min(inference_sessions.c.completed_at, type_=UtcDateTime),
    ).where(TO_SETTLE)
    count, units, since = (await connection.execute(query)).one()
    return int(count), int(units), None if since is None else (now() - since).total_seconds()


async def _counted(connection: AsyncConnection, by: Column[str]) -> dict[str, int]:
    """How many rows there are of each kind."""
    found = await connection.execute(select(by, func.count()).group_by(by))
    return {str(kind): int(count) for kind, count in found}


async def _deposits(connection: AsyncConnection) -> int:
    live = chain_events.c.kind.in_([DEPOSITED, TRANSFERRED]) & chain_events.c.vanished_at.is_(None)
    return int((await connection.execute(select(func.count()).where(live))).scalar_one())


def families(facts: BookFacts | None, gateway: str) -> list[Metric]:
    """The same as Prometheus reads it, told by ``gateway``. Without facts every family is there and has no samples."""
    told = facts or BookFacts()

    def known(samples: Samples) -> Samples:
        return {} if facts is None else samples

    def only(number: float | None) -> Samples:
        return {} if number is None else known({(): number})

    return [
        _gauge("far_mesh_database_up", "Whether the database answers.", {(): facts is not None}),
        _gauge(
            "far_mesh_settlement_rows",
            "What the chain was asked for, by what it is and how it stands.",
            told.rows,
            ["kind", "status"],
        ),
        _gauge(
            "far_mesh_settlement_oldest_seconds",
            "For how long the chain has been asked for what waits longest.",
            only(told.oldest_seconds or 0.0),
        ),
        _gauge(
            "far_mesh_settlement_at_fee_cap",
            "Rows that wait because no higher fee is allowed.",
            only(told.at_fee_cap),
        ),
        _gauge(
            "far_mesh_settlement_refused",
            "Rows that the chain refuses for good; no more than 20 are counted.",
            only(told.refused),
        ),
        _gauge(
            "far_mesh_settlement_owed_requests",
            "Requests that have ended and wait for their batch.",
            only(told.owed[0]),
        ),
        _gauge(
            "far_mesh_settlement_owed_far",
            "What they cost, in FAR.",
            only(told.owed[1] / UNITS),
        ),
        _gauge(
            "far_mesh_settlement_owed_oldest_seconds",
            "For how long the oldest of them has waited.",
            only(told.owed[2] or 0.0),
        ),
        _counter(
            "far_mesh_settlement_batches",
            "Batches that were put together.",
            {(kind,): count for kind, count in told.batches.items()},
            ["kind"],
        ),
        _gauge(
            "far_mesh_payouts_held",
            "Providers who cannot be paid by transfer now.",
            only(told.held),
        ),
        _gauge(
            "far_mesh_jobs",
            "Jobs by how they stand; those of before are gone some time after their end.",
            known({(status.value,): told.jobs.get(status, 0) for status in JobStatus}),
            ["status"],
        ),
        _gauge(
            "far_mesh_webhook_deliveries",
            "Messages to webhooks by how they stand.",
            {(status,): count for status, count in told.deliveries.items()},
            ["status"],
        ),
        _gauge(
            "far_mesh_lease_held",
            "Whether this gateway holds the lease.",
            known({(name,): told.holders.get(name) == gateway for name in LEASES}),
            ["lease"],
        ),
        _gauge(
            "far_mesh_lease_holders",
            "How many gateways hold the lease: 0 or 1.",
            known({(name,): name in told.holders for name in LEASES}),
            ["lease"],
        ),
        _gauge(
            "far_mesh_reconciliation_findings",
            "What disagreed when the books were last compared with the chain.",
            only(told.findings),
        ),
        _gauge(
            "far_mesh_reconciliation_age_seconds",
            "Since the books were last compared with the chain.",
            only(told.compared_seconds),
        ),
        _counter(
            "far_mesh_deposits",
            "Deposits of users that the chain tells of.",
            only(told.deposits),
        ),
        _counter(
            "far_mesh_payments_released",
            "Payments to providers that the chain has confirmed.",
            known({(CURRENCY,): told.payments}),
            ["currency"],
        ),
        _counter(
            "far_mesh_payments_amount_far",
            "FAR paid to providers.",
            only(told.totals.get(Book.PROVIDER_PAID, 0) / UNITS),
        ),
        _gauge(
            "far_mesh_ledger_far",
            "The sum of every kind of account, in FAR. All of them together are 0.",
            known({(book.value,): told.totals.get(book, 0) / UNITS for book in Book}),
            ["account"],
        ),
        _gauge(
            "far_mesh_ledger_imbalance_units",
            "The sum of all accounts, in units of 1e-9 FAR: 0.",
            only(sum(told.totals.values())),
        ),
    ]


Samples = Mapping[Any, float]
"""Numbers by the values of the labels."""


def _gauge(name: str, words: str, samples: Samples, labels: Sequence[str] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, words, labels=labels), samples)


def _counter(name: str, words: str, samples: Samples, labels: Sequence[str] = ()) -> Metric:
    return _filled(CounterMetricFamily(name, words, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for values, number in samples.items():
        family.add_metric(values, float(number))
    return family
