"""The acts on many requests at once: redeem vouchers, settle a batch, commit a payout root.

What the chain refuses now and will take later (a pause, the cap of the day, a pool that a redemption has yet to fill)
waits. What it refuses because a user has taken out what was to be charged is given up: the requests of the batch are
free again, and the next one is composed of what the users have then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.chain.client import Call, Chain, Claim
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import TransactionReverted
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.vouchers import Domain
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.acts import Act, Needless, Ready
from far_mesh.marketplace.settlement.schemas import Kind, Row

TEMPORARY = frozenset(
    {
        "EnforcedPause",
        "EscrowReleaseCapExceeded",
        "EscrowInsufficientPool",
        "AccessControlUnauthorizedAccount",
    }
)
"""Why the escrow refuses for a while: until it is unpaused, the day ends, the pool is filled, the role is granted."""
UNCOVERED = frozenset({"EscrowInsufficientDeposit", "EscrowInsufficientAllowance"})
"""Why it refuses what a user cannot be charged for any more."""
REST_SECONDS = 5.0

log = structlog.get_logger(__name__)


class _BatchAct:
    """What the three have in common: each waits while the escrow refuses for a while."""

    def __init__(self, database: Database, chain: Chain, settler: str) -> None:
        self._database = database
        self._chain = chain
        self._settler = settler
        self._rests_until: dict[int, float] = {}

    async def is_ready(self, row: Row) -> Ready | Needless:
        """When the escrow does not refuse for a while. It is not asked again at once."""
        if time.monotonic() < self._rests_until.get(row.id, 0.0):
            return Ready.WAIT
        try:
            await self.prepare(row)
        except TransactionReverted as error:
            reason = str(error.facts["reason"])
            if await self._waits(row, reason):
                await self._rest(row, reason)
                return Ready.WAIT
        self._rests_until.pop(row.id, None)
        return Ready.YES

    async def _waits(self, row: Row, reason: str) -> bool:
        return reason in TEMPORARY

    async def _rest(self, row: Row, reason: str) -> None:
        self._rests_until[row.id] = time.monotonic() + REST_SECONDS
        objection = f"the escrow refuses for now: {reason}"
        if row.error != objection:
            log.warning("settlement_waits", kind=row.kind, request_id=row.request_id, objection=reason)
            async with self._database.writing() as connection:
                await outbox.note_objection(connection, row, objection)

    async def prepare(self, row: Row) -> Call:
        """See :class:`~.acts.Act`."""
        raise NotImplementedError


class RedeemAct(_BatchAct):
    """Bring what was earned over payment channels into the pool."""

    async def prepare(self, row: Row) -> Call:
        """``redeemVouchers``."""
        claims = [
            Claim(one["channel_id"], one["promised_units"], one["claimed_units"], one["signature"])
            for one in row.payload["claims"]
        ]
        return await self._chain.redeem_vouchers(self._settler, claims)

    async def has_happened(self, row: Row) -> bool:
        """As much or more was taken out of every channel."""
        for one in row.payload["claims"]:
            if (await self._chain.channel_of(one["channel_id"])).redeemed_units < one["claimed_units"]:
                return False
        return True

    async def confirmed(self, connection: AsyncConnection, row: Row) -> None:
        """The requests of these channels can be settled."""
        for one in row.payload["claims"]:
            await channels.redeemed(connection, self._domain, one["channel_id"], one["claimed_units"])

    async def returned(self, connection: AsyncConnection, row: Row, reason: str) -> None:
        """What can still be redeemed is looked for anew."""

    async def vanished(self, connection: AsyncConnection, row: Row) -> None:
        """Nothing was redeemed, after all."""
        for one in row.payload["claims"]:
            units = (one["claimed_units"], one["before_units"])
            await channels.unredeemed(connection, self._domain, one["channel_id"], *units)

    @property
    def _domain(self) -> Domain:
        return Domain(self._chain.chain_id, self._chain.escrow_address)


class SettleAct(_BatchAct):
    """Pay for the requests of a batch, out of deposits and the pool."""

    def __init__(self, database: Database, chain: Chain, settler: str, first_block: int) -> None:
        super().__init__(database, chain, settler)
        self._first_block = first_block

    async def prepare(self, row: Row) -> Call:
        """``settleBatch``."""
        batch = await self._batch(row)
        details = bytes.fromhex(batch.detail_root[2:])
        return await self._chain.settle_batch(
            self._settler, batch.number, details, batch.charges, batch.payouts, batch.fee_units
        )

    async def has_happened(self, row: Row) -> bool:
        """The escrow has announced a batch of this number with our lines. One with other lines is not ours: somebody
        else has the key, or had it before the database was restored from a backup."""
        batch = await self._batch(row)
        if not await self._chain.is_batch_settled(batch.number):
            return False
        announced = await self._chain.details_of_batch(batch.number, self._first_block)
        if announced == bytes.fromhex(batch.detail_root[2:]):
            return True
        log.error("batch_number_taken", number=batch.number)
        return False

    async def confirmed(self, connection: AsyncConnection, row: Row) -> None:
        """The nodes are paid."""
        await ledger.payout_confirmed(connection, row.request_id, vanished=row.vanished)
        await self._mark_paid(connection, row, now())

    async def returned(self, connection: AsyncConnection, row: Row, reason: str) -> None:
        """What was earned is owed again, and its requests wait for another batch."""
        number = row.payload["number"]
        await ledger.payout_returned(connection, row.request_id, reason, vanished=row.vanished)
        domain = Domain(self._chain.chain_id, self._chain.escrow_address)
        for channel_id, units in (await batches.netted(connection, number)).items():
            await channels.net(connection, domain, channel_id, -units)
        await batches.dissolve(connection, number)

    async def vanished(self, connection: AsyncConnection, row: Row) -> None:
        """The nodes are not paid any more."""
        await ledger.payout_vanished(connection, row.request_id, row.vanished)
        await self._mark_paid(connection, row, None)

    async def _batch(self, row: Row) -> batches.Kept:
        async with self._database.reading() as connection:
            return await batches.find(connection, row.payload["number"])

    @staticmethod
    async def _mark_paid(connection: AsyncConnection, row: Row, at: datetime | None) -> None:
        await batches.mark_paid(connection, row.payload["number"], at)


class CommitAct(SettleAct):
    """The same for more providers than a batch takes: each claims alone, out of what a payout root sets aside."""

    async def prepare(self, row: Row) -> Call:
        """``commitPayoutRoot``."""
        batch, root = await self._batch(row), await self._root(row)
        return await self._chain.commit_payout_root(
            self._settler, batch.number, root, batch.total_units, batch.fee_units, batch.charges
        )

    async def has_happened(self, row: Row) -> bool:
        """The escrow has our root for this epoch."""
        committed = await self._chain.payout_root_of(row.payload["number"])
        return committed.root == await self._root(row)

    async def _waits(self, row: Row, reason: str) -> bool:
        """What a later root says that everybody was ever given counts on this one: then it cannot be given up."""
        if reason not in UNCOVERED:
            return await super()._waits(row, reason)
        async with self._database.reading() as connection:
            return await batches.has_later_root(connection, row.payload["number"])

    async def _root(self, row: Row) -> bytes:
        async with self._database.reading() as connection:
            return await batches.payout_root(connection, row.payload["number"])


def batch_acts(database: Database, chain: Chain, settler: str, first_block: int) -> Mapping[Kind, Act]:
    """The acts on batches. ``settler`` is the wallet that signs, ``first_block`` that of the escrow's deployment."""
    return {
        Kind.REDEEM: RedeemAct(database, chain, settler),
        Kind.SETTLE: SettleAct(database, chain, settler, first_block),
        Kind.COMMIT: CommitAct(database, chain, settler, first_block),
    }
