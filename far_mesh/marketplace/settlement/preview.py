"""What would be settled now, with what it would cost. Nothing is written, and nothing is signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from far_mesh.marketplace.chain.client import Call, Chain, address_of
from far_mesh.marketplace.chain.node import GAS_MARGIN_PERCENT
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import TransactionReverted
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement.batches import Batch, Composition, gathered, is_due
from far_mesh.marketplace.settlement.composer import BatchComposer, Redemption
from far_mesh.marketplace.settlement.merkle import payout_tree
from far_mesh.marketplace.settlement.opening import rule_of


@dataclass(frozen=True)
class Planned:
    """A batch, and the gas that it would take: None when it has to wait for vouchers to be redeemed, or when the escrow
    would not do it at this moment (``refused``)."""

    batch: Batch
    gas: int | None
    refused: str | None = None

    def facts(self) -> dict[str, Any]:
        """For JSON. Amounts are units."""
        batch = self.batch
        return {
            "kind": "root" if batch.is_root else "batch",
            "requests": [request.request_id for request in batch.requests],
            "users": batch.charges,
            "providers": batch.payouts,
            "channels": batch.netted,
            "total_units": batch.total_units,
            "fee_units": batch.fee_units,
            "detail_root": "0x" + batch.detail_root().hex(),
            "gas": self.gas,
            "refused": self.refused,
        }


@dataclass(frozen=True)
class Preview:
    """All of it. ``due``: whether it would be settled without being asked for."""

    redemptions: tuple[Redemption, ...]
    redemption_gas: int | None
    composition: Composition
    planned: tuple[Planned, ...]
    due: bool

    def facts(self) -> dict[str, Any]:
        """The sums, in units."""
        return {
            "requests": len(self.composition.requests),
            "left_out": len(self.composition.left_out),
            "total_units": sum(batch.total_units for batch in self.composition.batches),
            "fee_units": sum(batch.fee_units for batch in self.composition.batches),
            "due": self.due,
        }


async def preview(settings: Settings, database: Database, chain: Chain) -> Preview:
    """What would be settled now.

    Raises:
        ChainUnavailable: nobody can say what can be charged.
    """
    settler, rule = address_of(settings.settler_key()), rule_of(settings)
    composer = BatchComposer(database, chain, settler, rule, settings.chain_start_block)
    redemptions = tuple(await composer.redemptions())
    composition = await composer.composition(redemptions)
    redemption_gas = None
    if redemptions:
        redemption_gas = _gas(await chain.redeem_vouchers(settler, [one.claim for one in redemptions]))
    async with database.reading() as connection:
        number = await batches.next_number(connection)
    planned = [
        Planned(batch, None)
        if redemptions and batch.netted
        else await _planned(database, chain, settler, number + place, batch)
        for place, batch in enumerate(composition.batches)
    ]
    due = is_due(gathered(composition.requests), rule, now())
    return Preview(redemptions, redemption_gas, composition, tuple(planned), due)


async def _planned(database: Database, chain: Chain, settler: str, number: int, batch: Batch) -> Planned:
    try:
        if batch.is_root:
            async with database.reading() as connection:
                root = payout_tree(await batches.leaves(connection, batch.payouts)).root
            sums = (batch.total_units, batch.fee_units)
            call = await chain.commit_payout_root(settler, number, root, *sums, batch.charges)
        else:
            lines = (batch.charges, batch.payouts, batch.fee_units)
            call = await chain.settle_batch(settler, number, batch.detail_root(), *lines)
    except TransactionReverted as error:
        return Planned(batch, None, str(error.facts["reason"]))
    return Planned(batch, _gas(call))


def _gas(call: Call) -> int:
    return call.gas * 100 // GAS_MARGIN_PERCENT
