"""What the chain can be asked for: one act for each kind of row, and what the books make of its end.

The settler (:mod:`.service`) signs, sends and follows rows without knowing what they mean; an act knows what a row
means and signs nothing. Every act is harmless when it is done twice, because the contract does it once: so what the
chain says has happened (:meth:`Act.has_happened`) always decides, whoever did it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.chain.client import Call, Chain, EscrowStatus
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.payments.intents import parse
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.schemas import Fence, Kind, Row, RowStatus


class Ready(Enum):
    """Whether a row can be sent: at once, or only after something else has ended."""

    YES = "yes"
    WAIT = "wait"


@dataclass(frozen=True)
class Needless:
    """There is nothing left to ask the chain for. ``code`` is None when that is as good as done, and else says why it
    failed for good; ``note`` is for people."""

    note: str
    code: str | None = None


class Act(Protocol):
    """One kind of row. The last three are called in the transaction that changes the row, once for each change, with
    the row as it is afterwards; what they raise undoes both."""

    async def is_ready(self, row: Row) -> Ready | Needless:
        """Whether a row that was never signed, or has to be signed anew, can be sent now. Also asked before a row fails
        for good: what turns out to be needless ends as that, and what came too early is signed anew when it can be."""

    async def prepare(self, row: Row) -> Call:
        """The call that does it.

        Raises:
            TransactionReverted: the contract would refuse it now.
        """

    async def has_happened(self, row: Row) -> bool:
        """Whether the chain has done it, by whatever transaction."""

    async def confirmed(self, connection: AsyncConnection, row: Row) -> None:
        """The chain has done it, in ``row.block_number``. It comes again after it vanished."""

    async def returned(self, connection: AsyncConnection, row: Row, reason: str) -> None:
        """The chain will not do it: the row has failed for good."""

    async def vanished(self, connection: AsyncConnection, row: Row) -> None:
        """It was confirmed, and the chain has given up the block it was in: the row is on its way again.
        ``row.vanished`` counts this time too."""


class Composer(Protocol):
    """Makes new rows out of what has gathered, while the settler leads."""

    async def compose(self, fence: Fence) -> bool:
        """Write what is due. Every transaction begins with ``repository.hold_fence(connection, fence)``. Whether
        anything was written."""


EFFECT = {
    Kind.LOCK: EscrowStatus.OPEN,
    Kind.RELEASE: EscrowStatus.RELEASED,
    Kind.CANCEL: EscrowStatus.CANCELLED,
}
"""In which state a request's escrow is once a row has done its work."""


class LockAct:
    """Lock the most that a request can cost, in an escrow of its own."""

    def __init__(self, database: Database, chain: Chain, settler: str) -> None:
        self._database = database
        self._chain = chain
        self._settler = settler

    async def is_ready(self, row: Row) -> Ready | Needless:
        """Always."""
        return Ready.YES

    async def prepare(self, row: Row) -> Call:
        """``createEscrowWithAllowance``, or ``createEscrowFor`` where the user has signed for this one."""
        if "intent" in row.payload:
            intent = parse(row.payload["intent"])
            return await self._chain.lock_by_intent(self._settler, intent.values(), bytes.fromhex(intent.signature[2:]))
        units, seconds = row.payload["units"], row.payload["lock_seconds"]
        return await self._chain.lock(self._settler, row.wallet_address, row.request_id, units, seconds)

    async def has_happened(self, row: Row) -> bool:
        """There is an escrow of this amount or more, and if it has ended, we have ended it."""
        escrow = await self._chain.escrow_of(row.wallet_address, row.request_id)
        if escrow.amount_units < row.payload["units"]:
            return False
        async with self._database.reading() as connection:
            asked_for = await outbox.of_request(connection, row.request_id)
        return escrow.status in {EFFECT[kind] for kind in asked_for if kind in EFFECT}

    async def confirmed(self, connection: AsyncConnection, row: Row) -> None:
        """The books held the money before the chain did."""

    async def returned(self, connection: AsyncConnection, row: Row, reason: str) -> None:
        """A request whose lock is gone is paid like one that never had any. One that never got it was not begun."""
        asked_for = await outbox.of_request(connection, row.request_id)
        if row.vanished and not asked_for.keys() & {Kind.RELEASE, Kind.CANCEL}:
            await _pay_netted(connection, row.request_id)

    async def vanished(self, connection: AsyncConnection, row: Row) -> None:
        """The books hold the money all the time."""


class ReleaseAct:
    """Pay those who worked on a request out of its escrow, and give the rest back to its user."""

    def __init__(self, database: Database, chain: Chain, settler: str) -> None:
        self._database = database
        self._chain = chain
        self._settler = settler

    async def is_ready(self, row: Row) -> Ready | Needless:
        """After the lock."""
        lock = await _lock_of(self._database, row)
        if lock is None or lock.status is RowStatus.FAILED:
            return Needless("there is no lock to release", code="not_locked")
        return Ready.YES if lock.status is RowStatus.CONFIRMED else Ready.WAIT

    async def prepare(self, row: Row) -> Call:
        """``releaseMultiple``."""
        amounts = [(wallet, units) for wallet, units in row.payload["amounts"]]
        return await self._chain.release(self._settler, row.wallet_address, row.request_id, amounts)

    async def has_happened(self, row: Row) -> bool:
        """The escrow is released."""
        escrow = await self._chain.escrow_of(row.wallet_address, row.request_id)
        return escrow.status is EFFECT[Kind.RELEASE]

    async def confirmed(self, connection: AsyncConnection, row: Row) -> None:
        """The nodes are paid."""
        await ledger.payout_confirmed(connection, row.request_id, vanished=row.vanished)
        await sessions.mark_paid(connection, row.request_id)

    async def returned(self, connection: AsyncConnection, row: Row, reason: str) -> None:
        """What was earned is owed again. When it is only for a block that was given up that the escrow cannot pay it,
        the next batch does, and what is still locked for it goes back to the user, whom the batch charges."""
        await ledger.payout_returned(connection, row.request_id, reason, vanished=row.vanished)
        lock = await outbox.find(connection, Kind.LOCK, row.request_id)
        if row.vanished or (lock is not None and lock.vanished):
            await _pay_netted(connection, row.request_id)
            await outbox.add(connection, Kind.CANCEL, row.request_id, row.wallet_address, {})

    async def vanished(self, connection: AsyncConnection, row: Row) -> None:
        """The nodes are not paid any more."""
        await ledger.payout_vanished(connection, row.request_id, row.vanished)
        await sessions.mark_unpaid(connection, row.request_id)


class CancelAct:
    """Give all that is locked for a request back to its user."""

    def __init__(self, database: Database, chain: Chain, settler: str) -> None:
        self._database = database
        self._chain = chain
        self._settler = settler

    async def is_ready(self, row: Row) -> Ready | Needless:
        """After the lock."""
        lock = await _lock_of(self._database, row)
        if lock is None or lock.status is RowStatus.FAILED:
            return Needless("nothing was locked")
        return Ready.YES if lock.status is RowStatus.CONFIRMED else Ready.WAIT

    async def prepare(self, row: Row) -> Call:
        """``cancel``."""
        return await self._chain.cancel(self._settler, row.wallet_address, row.request_id)

    async def has_happened(self, row: Row) -> bool:
        """The escrow is cancelled."""
        escrow = await self._chain.escrow_of(row.wallet_address, row.request_id)
        return escrow.status is EFFECT[Kind.CANCEL]

    async def confirmed(self, connection: AsyncConnection, row: Row) -> None:
        """The books gave the money back before the chain did."""

    async def returned(self, connection: AsyncConnection, row: Row, reason: str) -> None:
        """The user can cancel it too, after its deadline."""

    async def vanished(self, connection: AsyncConnection, row: Row) -> None:
        """The books have given the money back all the time."""


def escrow_acts(database: Database, chain: Chain, settler: str) -> Mapping[Kind, Act]:
    """The acts on a request's own escrow. ``settler`` is the wallet that signs."""
    return {
        Kind.LOCK: LockAct(database, chain, settler),
        Kind.RELEASE: ReleaseAct(database, chain, settler),
        Kind.CANCEL: CancelAct(database, chain, settler),
    }


async def _lock_of(database: Database, row: Row) -> Row | None:
    async with database.reading() as connection:
        return await outbox.find(connection, Kind.LOCK, row.request_id)


async def _pay_netted(connection: AsyncConnection, request_id: str) -> None:
    await sessions.change(connection, request_id, payment=Payment.NETTED.value, batch_number=None)
