"""A settler in a process of its own that composes and settles batches, and kills itself after a named step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement.composer import BatchComposer
from far_mesh.marketplace.settlement.schemas import Kind
from far_mesh.marketplace.settlement.service import Settler
from tests.far_mesh.marketplace.house import LiveChain
from tests.far_mesh.marketplace.settlement.kill import after, before, of
from tests.far_mesh.marketplace.settlement.netting import Netting

REDEEM, SETTLE = of(Kind.REDEEM), of(Kind.SETTLE)

STEPS: dict[str, Callable[[], None]] = {
    "redemption composed": lambda: after(BatchComposer, "_write_redemption"),
    "redemption signed and not sent": lambda: before(Settler, "_offer", REDEEM),
    "redemption mined and not confirmed": lambda: before(Settler, "_confirm", REDEEM),
    "inside the transaction that confirms the redemption": lambda: after(channels, "redeemed"),
    "redemption confirmed": lambda: after(Settler, "_confirm", REDEEM),
    "inside the transaction that composes": lambda: after(ledger, "payout_sent"),
    "composed": lambda: after(BatchComposer, "_write_batches"),
    "signed and not sent": lambda: before(Settler, "_offer", SETTLE),
    "sent and not followed up": lambda: after(Settler, "_offer", SETTLE),
    "mined and not confirmed": lambda: before(Settler, "_confirm", SETTLE),
    "inside the transaction that confirms": lambda: after(batches, "mark_paid"),
    "confirmed": lambda: after(Settler, "_confirm", SETTLE),
}


@dataclass(frozen=True)
class Job:
    """What a child process is to do."""

    database_url: str
    live: LiveChain
    die: str


def settle_and_die(job: Job) -> None:
    """Settle what waits, and die on the way."""
    STEPS[job.die]()
    asyncio.run(_settle(job))


async def _settle(job: Job) -> None:
    database, chain = Database(job.database_url), job.live.connect()
    await settle(database, chain)


async def settle(database: Database, chain: Chain) -> None:
    """Settle what waits."""
    netting = Netting(database, chain)
    await netting.settles(netting.settler())
