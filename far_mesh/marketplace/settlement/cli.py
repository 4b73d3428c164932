"""``far-mesh settle``: what would be settled now, and settling it now."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_FAILED, Console, quiet_libraries, run

if TYPE_CHECKING:
    from rich.table import Table

    from far_mesh.marketplace.chain.client import Chain
    from far_mesh.marketplace.database import Database
    from far_mesh.marketplace.sessions.schemas import Gateway
    from far_mesh.marketplace.settings import Settings
    from far_mesh.marketplace.settlement.batch_repository import Progress
    from far_mesh.marketplace.settlement.batches import Composition
    from far_mesh.marketplace.settlement.payer import Payer
    from far_mesh.marketplace.settlement.preview import Planned, Preview
    from far_mesh.marketplace.settlement.service import Settler

POLL_SECONDS = 0.25


def settle(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be settled.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Settle it, without waiting for its time.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="With --now: seconds to wait for the chain.")] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Settle all requests that wait for their batch: --dry-run shows them, --now does it. Without an escrow: pay all
    providers by transfer.

    The gateway that settles does it, if one is running; otherwise this command does, with the settler's key. Exit code
    1 when it was not done in time.
    """
    import logging

    if dry_run == now:
        raise typer.BadParameter("say either --dry-run or --now")
    console = Console(json)
    quiet_libraries(logging.CRITICAL if dry_run else logging.ERROR)
    done: list[bool] = []

    async def main() -> None:
        from far_mesh.marketplace.settings import Settings
        from far_mesh.marketplace.settlement import transfer_cli

        settings = Settings.read()
        if transfer_cli.pays_by_transfer(settings):
            async with transfer_cli.opened(settings) as place:
                if dry_run:
                    await transfer_cli.show(console, place)
                done.append(dry_run or await _settle(console, place.database, place.payer, patience=timeout))
            return
        async with _opened(settings) as (database, chain):
            if dry_run:
                await _show(console, settings, database, chain)
            make = partial(_settler, settings, database, chain)
            done.append(dry_run or await _settle(console, database, make, patience=timeout))

    run(console, main)
    if not done[0]:
        raise typer.Exit(EXIT_FAILED)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Database, Chain]]:
    from far_mesh.marketplace.chain.client import Chain
    from far_mesh.marketplace.ledger.cli import opened_database

    settings.require("chain_rpc_url", "token_address", "escrow_address")
    settings.settler_key()
    chain = Chain(settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address)
    try:
        await chain.check()
        async with opened_database(settings) as database:
            yield database, chain
    finally:
        await chain.close()


# ---- only showing


async def _show(console: Console, settings: Settings, database: Database, chain: Chain) -> None:
    from far_mesh.marketplace.settlement.preview import preview

    found = await preview(settings, database, chain)
    if console.as_json:
        _tell(console, found)
    else:
        _print(found)


def _tell(console: Console, found: Preview) -> None:
    if found.redemptions:
        channels = {one.claim.channel_id: one.units for one in found.redemptions}
        console.event("redemption", channels=channels, units=sum(channels.values()), gas=found.redemption_gas)
    for planned in found.planned:
        console.event("batch", **planned.facts())
    for one in found.composition.left_out:
        request = one.request
        names = {"request_id": request.request_id, "user": request.user}
        console.event("left_out", **names, units=request.cost_units, why=one.why.value)
    console.event("summary", **found.facts())


def _print(found: Preview) -> None:
    from rich.console import Console as RichConsole

    screen = RichConsole()
    if found.redemptions:
        units = sum(one.units for one in found.redemptions)
        gas = _gas(found.redemption_gas)
        screen.print(
            f"First the vouchers of {len(found.redemptions)} channels bring {_far(units)} FAR into the pool{gas}."
        )
    for planned in found.planned:
        screen.print(_table_of(planned))
    if found.composition.left_out:
        screen.print(_table_of_left_out(found.composition))
    facts = found.facts()
    sentence = f"{facts['requests']} requests, {_far(facts['total_units'])} FAR to providers"
    verdict = "it is time" if found.due else "it is not time yet"
    screen.print(f"{sentence}, {_far(facts['fee_units'])} FAR of fees; {verdict}. Nothing was changed.")


def _table_of(planned: Planned) -> Table:
    from rich.table import Table

    batch = planned.batch
    kind = "Payout root" if batch.is_root else "Batch"
    pool = sum(batch.netted.values())
    caption = f"{_far(pool)} FAR of it out of the pool{_gas(planned.gas, planned.refused)}"
    shown = Table(title=f"{kind} of {len(batch.requests)} requests", caption=caption, show_footer=True)
    shown.title_justify = shown.caption_justify = "left"
    shown.add_column("", "together")
    shown.add_column("wallet")
    shown.add_column("charged, FAR", _far(sum(batch.charges.values())), justify="right")
    shown.add_column("paid, FAR", _far(batch.total_units + batch.fee_units), justify="right")
    for wallet, units in batch.charges.items():
        shown.add_row("user", wallet, _far(units), "")
    for wallet, units in batch.payouts.items():
        shown.add_row("provider", wallet, "", _far(units))
    shown.add_row("platform", "", "", _far(batch.fee_units))
    return shown


def _table_of_left_out(composition: Composition) -> Table:
    from rich.table import Table

    shown = Table(title="Cannot be settled now", title_justify="left")
    for name in ("request", "user", "why"):
        shown.add_column(name)
    shown.add_column("FAR", justify="right")
    for one in composition.left_out:
        request = one.request
        shown.add_row(request.request_id, request.user, one.why.value, _far(request.cost_units))
    return shown


def _far(units: int) -> str:
    return f"{units // 10**9:,}.{units % 10**9:09d}"


def _gas(gas: int | None, refused: str | None = None) -> str:
    if gas is None:
        return f"; the escrow refuses it now: {refused}" if refused else ""
    return f", for {gas:,} gas"


# ---- doing it


Make = Callable[["Gateway"], "Settler | Payer"]


async def _settle(console: Console, database: Database, make: Make, *, patience: float) -> bool:
    from far_mesh.marketplace.settlement import batch_repository as batches
    from far_mesh.marketplace.settlement import repository as outbox
    from far_mesh.marketplace.settlement.lead import LEASE

    async with database.writing() as connection:
        first = await batches.first_open(connection)
        order = await batches.order(connection)
        holder = await outbox.holder(connection, LEASE)
    who = f"the gateway {holder} settles" if holder else "no gateway settles, so this command does"
    console.event("ordered", who, settler=holder)
    watch = _Watch(console, database, first, order)
    try:
        async with asyncio.timeout(patience):
            if holder is None:
                await _settle_here(database, make, watch)
            await watch.until_done()
    except TimeoutError:
        await watch.look()
        console.event("unfinished", f"not done after {patience:.0f} s; it goes on when it can", seconds=patience)
        return False
    await watch.conclude()
    return True


async def _settle_here(database: Database, make: Make, watch: _Watch) -> None:
    """Until the order is done, or a gateway has come that leads."""
    from far_mesh.marketplace.sessions.schemas import Gateway
    from far_mesh.marketplace.settlement import repository as outbox

    gateway = Gateway(f"far-mesh settle:{socket.gethostname()}:{os.getpid()}", str(uuid.uuid4()))
    settler = make(gateway)
    try:
        while not await watch.look() and await settler.settle():  # noqa: ASYNC110 - it is the chain that we wait for
            await asyncio.sleep(POLL_SECONDS / 2)
    finally:
        async with database.writing() as connection:
            await outbox.drop_leases(connection, gateway)


def _settler(settings: Settings, database: Database, chain: Chain, gateway: Gateway) -> Settler:
    from far_mesh.marketplace.settlement.opening import settler_of
    from far_mesh.marketplace.settlement.service import Settlement

    room = Settlement(database, chain, settings.lock_timeout_seconds)
    return settler_of(settings, database, chain, gateway, room)


class _Watch:
    """Tells of every step of every transaction, once."""

    def __init__(self, console: Console, database: Database, first: int, order: int) -> None:
        self._console, self._database, self._first, self._order = console, database, first, order
        self._told: dict[int, Progress] = {}

    async def look(self) -> bool:
        """Tell what is new. Whether everything is done."""
        from far_mesh.marketplace.settlement import batch_repository as batches

        async with self._database.snapshot() as connection:
            rows = await batches.progress(connection, self._first)
            done = await batches.is_done(connection, self._order)
        for row in rows:
            if self._told.get(row.id) != row:
                self._tell(row)
        self._told = {row.id: row for row in rows}
        return done

    def _tell(self, row: Progress) -> None:
        where = f" in block {row.block_number}" if row.block_number else f" as {row.tx_hash}" if row.tx_hash else ""
        why = f": {row.error}" if row.error else ""
        facts: dict[str, Any] = {"kind": row.kind.value, "name": row.name, "status": row.status.value}
        facts |= {"tx_hash": row.tx_hash, "block": row.block_number, "attempts": row.attempts, "reason": row.error}
        self._console.event("transaction", f"{row.name} ({row.kind}): {row.status}{where}{why}", **facts)

    async def until_done(self) -> None:
        """Until the order is done."""
        while not await self.look():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(POLL_SECONDS)

    async def conclude(self) -> None:
        """Tell what came of it."""
        from far_mesh.marketplace.settlement import batch_repository as batches
        from far_mesh.marketplace.settlement.schemas import RowStatus

        async with self._database.reading() as connection:
            left = await batches.count_left(connection)
        ended: Sequence[Progress] = [row for row in self._told.values() if row.status is RowStatus.CONFIRMED]
        rest = f"; {left} requests cannot be settled now: far-mesh settle --dry-run says why" if left else ""
        self._console.event("settled", f"{len(ended)} transactions{rest}", transactions=len(ended), left=left)
