"""What a user's deposit on chain will yet have to pay, as far as the chain does not know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.schemas import Kind, Row, RowStatus
from far_mesh.marketplace.tables import chain_outbox, settlement_batches

_ON_ITS_WAY = (RowStatus.PENDING.value, RowStatus.SENT.value)
BATCH = "batch-"
"""What comes before the number of a batch in the name under which the outbox and the books know it."""


@dataclass(frozen=True)
class Owed:
    """``netted_units`` are of requests that are charged afterwards: under way, waiting for a batch, or in one that the
    chain has not done. ``locking_units`` are about to be locked for single requests."""

    netted_units: int = 0
    locking_units: int = 0


async def owed(connection: AsyncConnection, wallet: str) -> Owed:
    """What ``wallet`` owes now. In the transaction of a hold it is exact: the account that is held from is locked, so
    no other request of this user can begin meanwhile."""
    netted, rows = await _seen_at_once(connection, wallet)
    numbers = [int(row.request_id.removeprefix(BATCH)) for row in rows if row.kind != Kind.LOCK.value]
    if numbers:
        of_batches = select(settlement_batches.c.charges).where(settlement_batches.c.number.in_(numbers))
        netted += sum(charges.get(wallet, 0) for charges in (await connection.execute(of_batches)).scalars())
    return Owed(netted, sum(row.payload["units"] for row in rows if row.kind == Kind.LOCK.value))


async def batch_row(connection: AsyncConnection, number: int | None) -> Row | None:
    """What the chain was asked for in the batch of this number."""
    if number is None:
        return None
    rows = await repository.of_request(connection, f"{BATCH}{number}")
    return rows.get(Kind.SETTLE) or rows.get(Kind.COMMIT)


async def _seen_at_once(connection: AsyncConnection, wallet: str) -> tuple[int, list[Any]]:
    """What no batch has, and what is on its way: in one statement, so that a request which goes into a batch, or comes
    back from one, in this very moment is not missed by both."""
    outbox = chain_outbox.c
    batched = outbox.kind.in_([Kind.SETTLE.value, Kind.COMMIT.value]) & outbox.request_id.startswith(BATCH)
    locking = (outbox.kind == Kind.LOCK.value) & (outbox.wallet_address == wallet)
    unsettled = sessions.unsettled(wallet).subquery()
    on_its_way = outbox.status.in_(_ON_ITS_WAY) & (batched | locking)
    query = select(unsettled.c.units, outbox.kind, outbox.request_id, outbox.payload)
    rows = (await connection.execute(query.select_from(unsettled.outerjoin(chain_outbox, on_its_way)))).all()
    return int(rows[0].units), [row for row in rows if row.kind is not None]
