"""A marketplace without an escrow: providers who have earned something, a payer whose rounds are made by hand, and what
books and tables say of it all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

from sqlalchemy import select

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.ledger.split import Settlement as Division
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.payments.provider import PaymentProvider
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, PaidShare, Payment, Share, Status
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.bell import Bell
from far_mesh.marketplace.settlement.payer import Patience, Payer
from far_mesh.marketplace.settlement.schemas import Attempt, Kind, Row
from far_mesh.marketplace.settlement.transfer_repository import Held
from far_mesh.marketplace.settlement.transfers import TRANSFER, Rule
from far_mesh.marketplace.tables import node_contributions
from tests.far_mesh.marketplace.house import ledger_of
from tests.support.documents import wallet_of

USER = wallet_of("who pays for everything")
AT_ONCE, NEVER = Rule(0, 10**15), Rule(10**6, 10**15)


class Paying:
    """One database, and what was earned in it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def payer(self, provider: PaymentProvider, rule: Rule = AT_ONCE, bump_seconds: float = 1000.0) -> Payer:
        """A gateway that starts anew; it takes the lease over from the one before."""
        gateway, coin = Gateway("here", str(uuid.uuid4())), await provider.check()
        return Payer(self.database, provider, coin, gateway, rule, Patience(bump_seconds), Bell())

    async def served(self, payouts: Mapping[str, int], fee: int = 7) -> str:
        """A request that has ended and was captured. Its name."""
        name, cost = f"req_{uuid.uuid4()}", sum(payouts.values()) + fee
        session = NewSession(
            name[4:], name, USER, "tiny", "standard", 1, 0, 1, 0, 2_000, cost, payment=Payment.NETTED, channel_id=None
        )
        shares = [
            PaidShare(Share(wallet, f"node of {wallet}", 0, 8, "none", 1, 8, "{}"), units)
            for wallet, units in payouts.items()
        ]
        async with self.database.writing() as connection:
            await ledger.deposit_seen(connection, USER, cost, name)
            await ledger.hold(connection, USER, name, cost)
            await sessions.add(connection, session, Gateway("here", "some life"))
            await ledger.capture(connection, USER, name, Division(cost, tuple(sorted(payouts.items())), fee, 0))
            await sessions.add_contributions(connection, session, shares)
            ended = {"status": Status.COMPLETED.value, "completed_at": now(), "refund_units": 0}
            await sessions.change(connection, name, **ended, total_cost_units=cost, fee_units=fee)
        return name

    async def until_paid(self, payer: Payer, number: int = 1) -> Row:
        """Rounds until a transfer has ended. The row."""
        for _ in range(200):
            assert await payer.settle()
            if await self.transfers() >= number and (row := await self.row(number)).is_final:
                return row
            await asyncio.sleep(0.01)
        raise AssertionError(f"transfer {number} has not ended")

    # ---- what is so

    async def row(self, number: int = 1) -> Row:
        """A transfer."""
        async with self.database.reading() as connection:
            row = await outbox.find(connection, Kind.TRANSFER, f"{TRANSFER}{number}")
        assert row is not None
        return row

    async def transfers(self) -> int:
        """How many there ever were."""
        number = 0
        async with self.database.reading() as connection:
            while await outbox.find(connection, Kind.TRANSFER, f"{TRANSFER}{number + 1}"):
                number += 1
        return number

    async def attempts(self, number: int = 1) -> list[Attempt]:
        """All that was signed for it, the newest first."""
        row = await self.row(number)
        async with self.database.reading() as connection:
            return await outbox.attempts(connection, row)

    async def held(self) -> dict[str, Held]:
        """Who cannot be paid."""
        async with self.database.reading() as connection:
            return await transfers.held(connection)

    async def money_of(self, wallet: str) -> dict[Book, int]:
        """What the books say of a provider, where it is not nothing."""
        books = await ledger_of(self.database)
        return {account.kind: units for account, units in books.items() if account.owner == wallet and units}

    async def paid_lines(self, wallet: str) -> list[bool]:
        """Of each contribution, the oldest first: is it said to be paid?"""
        done = node_contributions.c
        query = select(done.paid_at).where(done.wallet_address == wallet).order_by(done.id)
        async with self.database.reading() as connection:
            return [at is not None for at in (await connection.execute(query)).scalars()]

    async def is_sound(self) -> bool:
        """The books agree with themselves, and the platform's part stays where it is."""
        async with self.database.snapshot() as connection:
            report = await verify(connection)
        books = await ledger_of(self.database)
        assert not books.get(Account(Book.PLATFORM_PAID, "platform"), 0)
        return report.findings == ()
