"""Everybody on one chain of its own: users, a watcher, a settler that composes batches, and a reconciler."""

from __future__ import annotations

from itertools import count
from typing import Any

from sqlalchemy import text

from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.chain.audit import AuditedChain
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.deploy import Deployment
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.vouchers import Domain, channel_id_of, sign
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Outcome, Payment, Share, Work
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import batch_repository
from far_mesh.marketplace.settlement.opening import settler_of
from far_mesh.marketplace.settlement.reconcile_books import Result
from far_mesh.marketplace.settlement.reconciler import Reconciler
from far_mesh.marketplace.settlement.requests import (
    Measured,
    activate_request,
    close_request,
    open_request,
    refund_request,
)
from far_mesh.marketplace.settlement.service import Settlement
from tests.far_mesh.marketplace.house import LiveChain, new_user, rpc
from tests.support.documents import wallet_of

GATEWAY = Gateway("here", "first life")
DEPOSIT, HELD = 100_000, 1_000
DAY = 86_400


class Town:
    """Everything is real; rounds are made by hand."""

    def __init__(self, database: Database, url: str, deployment: Deployment) -> None:
        self.database, self.url = database, url
        self.settings: Settings = LiveChain(url, deployment).settings(settle_threshold_units=1)
        self.chain = AuditedChain(url, self.settings.chain_id, deployment.token, deployment.escrow)
        self.domain = Domain(self.chain.chain_id, self.chain.escrow_address)
        self.room = Settlement(database, self.chain, 30.0)
        self.settler = settler_of(self.settings, database, self.chain, GATEWAY, self.room)
        self.watcher = DepositWatcher(database, self.chain, confirmations=0, first_block=0, poll_seconds=0.01)
        self.reconciler = Reconciler(database, self.chain, first_block=0, confirmations=0, reorg_blocks=8)
        self._names = count()

    # ---- users

    async def user(self, deposit: int = DEPOSIT) -> str:
        """The key of somebody who has paid in and consented, and whose deposit is booked."""
        key = await new_user(self.chain, deposit)
        await self.watch()
        return key

    async def send(self, key: str, name: str, *arguments: Any) -> str:
        """Somebody calls the escrow. The transaction's hash."""
        return await self.chain.send(await self.chain.prepare(self.chain.escrow, name, arguments, address_of(key)), key)

    async def open_channel(self, key: str, units: int) -> str:
        """A channel, which is booked. Its id."""
        salt = next(self._names).to_bytes(32)
        await self.send(key, "openChannel", salt, address_of(key), units * 10**9, 900)
        await self.watch()
        return channel_id_of(address_of(key), salt)

    async def promise(self, key: str, channel_id: str, units: int) -> None:
        """A voucher comes."""
        async with self.database.writing() as connection:
            await channels.accept(connection, self.domain, sign(self.domain, channel_id, units, key))

    # ---- requests

    async def begin(
        self, key: str, payment: Payment, channel_id: str | None = None, promised_p95_ms: int | None = None
    ) -> str:
        """A request that holds 1,000 units. Its name. What it is promised is worth a tenth of its cost."""
        name = f"request {next(self._names)}"
        session = NewSession(
            *(name, name, address_of(key), "tiny", "standard", 10, 0, 10, 0, 2_000, HELD),
            payment=payment,
            channel_id=channel_id,
            promised_p95_ms=promised_p95_ms,
            credit_bps=0 if promised_p95_ms is None else 1_000,
        )
        async with self.database.writing() as connection:
            await open_request(connection, session, GATEWAY, 1800)
        return name

    async def end(
        self,
        name: str,
        wallet: str | None = None,
        payment: Payment = Payment.NETTED,
        p95_token_ms: int | None = None,
    ) -> Outcome:
        """It ends with 400 units for a provider and 100 for the platform."""
        share = Share(wallet or wallet_of("ann"), "node", 0, 8, "none", 10, 80, "{}")
        async with self.database.writing() as connection:
            if payment is Payment.ESCROW:
                await activate_request(connection, name, 2_000)
            measured = Measured("stop", p95_token_ms=p95_token_ms)
            return await close_request(connection, name, Work(10, 50, (share,), 80), measured)

    async def serve(self, key: str, payment: Payment, wallet: str | None = None) -> str:
        """A request that is locked if need be, and ends."""
        name = await self.begin(key, payment)
        if payment is Payment.ESCROW:
            await self.settler.settle()
        await self.end(name, wallet, payment)
        return name

    async def serve_by_channel(self, key: str, channel_id: str, wallet: str | None = None) -> str:
        """A request that vouchers have paid already."""
        name = await self.begin(key, Payment.CHANNEL, channel_id)
        await self.earn(name, channel_id)
        await self.end(name, wallet)
        return name

    async def earn(self, name: str, channel_id: str) -> None:
        """All that it will cost is counted on its channel."""
        async with self.database.writing() as connection:
            await channels.earn(connection, self.domain, channel_id, 500, step_units=0)
            await connection.execute(
                text("UPDATE inference_sessions SET counted_units = 500 WHERE request_id = :name"), {"name": name}
            )

    async def refund(self, name: str) -> None:
        """It comes to nothing."""
        async with self.database.writing() as connection:
            await refund_request(connection, name, "test")

    # ---- rounds

    async def watch(self) -> None:
        """The books learn what users did."""
        await self.watcher.open()
        while await self.watcher.look():
            pass

    async def settle(self) -> None:
        """All that can be settled is."""
        async with self.database.writing() as connection:
            await batch_repository.order(connection)
        for _ in range(4):  # vouchers are redeemed, and then netted
            await self.settler.settle()
            await self.settler.drain()
        await self.watch()

    async def compare(self, *, full: bool = False) -> Result:
        """What disagrees."""
        return await self.reconciler.compare(full=full)

    async def found(self, *, full: bool = False) -> dict[str, list[str]]:
        """What disagrees: by kind, what it is about."""
        result = await self.compare(full=full)
        kinds: dict[str, list[str]] = {}
        for one in result.findings:
            kinds.setdefault(one["kind"], []).append(one["about"])
        return kinds

    async def assert_agreed(self) -> None:
        """The books agree with the chain, as far as they were compared and altogether, and with themselves."""
        assert (await self.compare()).findings == []
        assert (await self.compare(full=True)).findings == []
        async with self.database.snapshot() as connection:
            assert (await verify(connection)).findings == ()

    async def write(self, sql: str, **values: Any) -> None:
        """Somebody writes into the database by hand."""
        async with self.database.writing() as connection:
            await connection.execute(text(sql), values)

    async def anvil(self, method: str, *parameters: Any) -> Any:
        """Ask anvil itself."""
        return await rpc(self.url, method, *parameters)
