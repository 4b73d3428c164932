"""A payer in a process of its own that pays what is due, and kills itself after a named step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.payments import evm
from far_mesh.marketplace.payments.evm import EvmPayments
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import payer as module
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.payer import Payer
from far_mesh.marketplace.settlement.schemas import Row
from tests.far_mesh.marketplace.settlement.kill import after, before
from tests.far_mesh.marketplace.settlement.paying import Paying


def dearer(_payer: Payer, row: Row, *_: Any) -> bool:
    """Only for what was signed before."""
    return row.attempts > 1


STEPS: dict[str, Callable[[], None]] = {
    "signed and not written down": lambda: after(EvmPayments, "prepare"),
    "inside the transaction, after the lines": lambda: after(transfers, "add"),
    "inside the transaction, after the books": lambda: after(ledger, "payout_sent"),
    "inside the transaction, after the attempt": lambda: after(outbox, "mark_sent"),
    "written down and not sent": lambda: before(Payer, "_offer"),
    "sent and not followed up": lambda: after(Payer, "_offer"),
    "mined and not confirmed": lambda: before(Payer, "_confirm"),
    "inside the transaction that confirms": lambda: after(transfers, "mark_paid"),
    "confirmed": lambda: after(Payer, "_confirm"),
}
DEARER: dict[str, Callable[[], None]] = {
    "dearer signed and not written down": lambda: after(EvmPayments, "hasten"),
    "dearer written down and not sent": lambda: before(Payer, "_offer", dearer),
    "dearer sent": lambda: after(Payer, "_offer", dearer),
}
TAKEN_BACK: dict[str, Callable[[], None]] = {
    "seen to be given up and not written down": lambda: before(Payer, "_vanish"),
    "inside the transaction that takes back": lambda: after(ledger, "payout_vanished"),
    "taken back and not offered": lambda: after(Payer, "_vanish"),
}


@dataclass(frozen=True)
class Job:
    """What a child process is to do."""

    database_url: str
    settings: dict[str, Any]
    bump_seconds: float = 1000.0
    die: str = ""


def pay(job: Job) -> None:
    """Pay what is due, until nothing is on its way and nothing is left, or until the step at which to die."""
    {**STEPS, **DEARER, **TAKEN_BACK}.get(job.die, lambda: None)()
    for name in ("LOOK_SECONDS", "OFFER_SECONDS", "WATCH_SECONDS", "PATIENCE_SECONDS"):
        setattr(module, name, 0)
    asyncio.run(_pay(job))


async def _pay(job: Job) -> None:
    database, provider = Database(job.database_url), evm.create(Settings.read(**job.settings))
    payer = await Paying(database).payer(provider, bump_seconds=job.bump_seconds)
    async with asyncio.timeout(20):
        while await payer.settle() and await _has_work(database):
            await asyncio.sleep(0.01)
    await provider.close()
    await database.close()


async def _has_work(database: Database) -> bool:
    async with database.reading() as connection:
        return await outbox.has_unfinished(connection) or bool(await transfers.waiting(connection))
