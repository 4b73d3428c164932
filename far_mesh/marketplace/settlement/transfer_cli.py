"""What ``far-mesh settle`` and ``far-mesh reconcile`` do where there is no escrow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from discovery.console import Console
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.cli import opened_database
from far_mesh.marketplace.payments.provider import Coin, PaymentProvider
from far_mesh.marketplace.payments.registry import open_provider
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import EVM, Settings
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.opening import payer_of
from far_mesh.marketplace.settlement.payer import Payer
from far_mesh.marketplace.settlement.reconcile_transfers import compare
from far_mesh.marketplace.settlement.service import Settlement
from far_mesh.marketplace.settlement.transfers import Rule, is_due


def pays_by_transfer(settings: Settings) -> bool:
    """Whether these settings are of a marketplace that pays by transfer."""
    return settings.payment_provider != EVM or bool(settings.deposit_address and not settings.escrow_address)


@dataclass(frozen=True)
class Place:
    """What the commands work with."""

    settings: Settings
    database: Database
    provider: PaymentProvider
    coin: Coin

    def payer(self, gateway: Gateway) -> Payer:
        """One that pays here, where no gateway does."""
        room = Settlement(self.database, None, self.settings.lock_timeout_seconds)
        return payer_of(self.settings, self.database, self.provider, self.coin, gateway, room)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Place]:
    """The database and the chain that the settings name.

    Raises:
        FarError: one of them is not there, or there are no payments.
    """
    provider = open_provider(settings)
    try:
        coin = await provider.check()
        async with opened_database(settings) as database:
            yield Place(settings, database, provider, coin)
    finally:
        await provider.close()


async def show(console: Console, place: Place) -> None:
    """Who waits to be paid, and what stands in the way. Nothing is changed."""
    async with place.database.snapshot() as connection:
        waiting = await transfers.waiting(connection)
        held = await transfers.held(connection)
    rule = Rule(place.settings.settle_seconds, place.settings.settle_threshold_units)
    at = now()
    for one in waiting:
        due, why = is_due(one, rule, at), held.get(one.wallet)
        state = why.reason if why else "due" if due else "not due yet"
        facts = {"units": one.owed_units, "due": due, "code": why.code if why else None}
        console.event("payout", f"{one.wallet}  {far(one.owed_units)}  {state}", wallet=one.wallet, **facts)
    total = sum(one.owed_units for one in waiting)
    sentence = f"{len(waiting)} providers are owed {far(total)} FAR; nothing was changed"
    console.event("summary", sentence, providers=len(waiting), units=total, held=len(held))


async def reconcile(console: Console, place: Place) -> int:
    """Compare what is said to be paid in and out with the chain. How many things disagree."""
    found = await compare(place.database, place.provider)
    for one in found.findings:
        sentence = f"{one.kind}: {one.about}: {one.message}\n    {one.advice}"
        console.event("finding", sentence, **one.facts())
    count = len(found.findings)
    verdict = f"{count} things disagree" if count else "the books and the chain agree"
    rest = f"; of {found.unknown} transactions the chain could not tell" if found.unknown else ""
    facts = {"transactions": found.asked, "unknown": found.unknown, "findings": count}
    console.event("reconciled", f"{found.asked} transactions: {verdict}{rest}", **facts)
    return count


def far(units: int) -> str:
    """For people."""
    return f"{units // 10**9:,}.{units % 10**9:09d}"
