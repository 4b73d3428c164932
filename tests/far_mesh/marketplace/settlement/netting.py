"""A settler that composes batches, users who pay, requests that have ended, and what chain and books say of it all."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from eth_account import Account as KeyMaker

from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.chain.node import call_data
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.ledger.split import Settlement as Division
from far_mesh.marketplace.ledger.split import fee_on
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.vouchers import Channel, Domain, channel_id_of, sign
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, PaidShare, Payment, Share, Status
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.acts import escrow_acts
from far_mesh.marketplace.settlement.batch_acts import batch_acts
from far_mesh.marketplace.settlement.batches import Rule
from far_mesh.marketplace.settlement.composer import BatchComposer
from far_mesh.marketplace.settlement.lead import LEASE, LEASE_LIFETIME
from far_mesh.marketplace.settlement.schemas import Fence, Kind, Row
from far_mesh.marketplace.settlement.service import Rules, Settlement, Settler
from tests.far_mesh.marketplace.house import DEPLOYER, SETTLER, ledger_of, new_user

FEE_BPS = 2_000
ALWAYS, NEVER = Rule(0, 10**15, 10**15), Rule(10**6, 10**15, 10**15)
OPEN_CHANNEL = "openChannel(bytes32,address,uint256,uint32)"
ESCROW_OWNER = DEPLOYER


class Payer(ChainWallet):
    """A user's wallet, and its key."""

    def __init__(self, chain: Chain, key: str) -> None:
        super().__init__(chain, key)
        self.key = key


class Netting:
    """Everything on one chain and in one database."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self.database, self.chain = database, chain
        self.domain = Domain(chain.chain_id, chain.escrow_address)
        self.room = Settlement(database, chain, 30.0)

    def settler(self, rule: Rule = ALWAYS, rules: Rules | None = None) -> Settler:
        """A gateway that starts anew; it takes the lease over from the one before."""
        wallet, gateway = address_of(SETTLER), Gateway("here", str(uuid.uuid4()))
        acts = {
            **escrow_acts(self.database, self.chain, wallet),
            **batch_acts(self.database, self.chain, wallet, 0),
        }
        rules, composer = rules or Rules(), self.composer(rule)
        return Settler(self.database, self.chain, SETTLER, gateway, self.room, acts, rules, composer)

    def composer(self, rule: Rule = ALWAYS) -> BatchComposer:
        """Of the same settler."""
        return BatchComposer(self.database, self.chain, address_of(SETTLER), rule, 0)

    async def fence(self) -> Fence:
        """That of a gateway that leads from now on."""
        async with self.database.writing() as connection:
            gateway = Gateway("here", str(uuid.uuid4()))
            fence = await outbox.take_lease(connection, LEASE, gateway, LEASE_LIFETIME)
        assert fence is not None
        return fence

    async def settles(self, settler: Settler) -> None:
        """Until nothing is on its way and nothing more is composed."""
        before, rows = -1, 0
        while rows != before:
            before = rows
            await settler.drain()
            async with self.database.reading() as connection:
                rows = sum([await batches.count_of(connection, kind) for kind in batches.BATCH_KINDS])

    # ---- users

    async def user(self, deposit: int = 10_000, allowance: int | None = None) -> Payer:
        """Somebody with a deposit that the books know."""
        wallet = Payer(self.chain, await new_user(self.chain, deposit, allowance))
        async with self.database.writing() as connection:
            await ledger.deposit_seen(connection, wallet.address, deposit, f"{wallet.address}:1")
        return wallet

    async def withdraws(self, wallet: Payer, units: int) -> None:
        """A user takes out what is owed, and the watcher sees it."""
        event = await wallet.withdraw_deposit(units)
        async with self.database.writing() as connection:
            await ledger.withdrawal_seen(connection, wallet.address, units, event)

    async def deposits(self, wallet: Payer, units: int) -> None:
        """A user pays in again, and the watcher sees it."""
        await ChainWallet(self.chain, DEPLOYER).transfer(wallet.address, units)
        event = await wallet.deposit(units)
        async with self.database.writing() as connection:
            await ledger.deposit_seen(connection, wallet.address, units, event)

    async def opens_channel(self, user: Payer, units: int) -> tuple[str, str]:
        """A channel whose vouchers a fresh key signs: its id, and that key."""
        salt, key = uuid.uuid4().bytes * 2, str(KeyMaker.create().key.to_0x_hex())
        data = call_data(OPEN_CHANNEL, salt, address_of(key), units * 10**9, 3_600)
        event = await self.sends(user.key, self.chain.escrow_address, data)
        channel_id = channel_id_of(user.address, salt)
        async with self.database.writing() as connection:
            await channels.opened(connection, self.domain, Channel(channel_id, user.address, address_of(key), units))
            await ledger.channel_funded(connection, user.address, units, event)
        return channel_id, key

    async def sends(self, key: str, to: str, data: str) -> str:
        """Somebody sends a transaction."""
        return await self.chain.send(await self.chain.call(address_of(key), to, data), key)

    async def promises(self, channel_id: str, key: str, units: int) -> None:
        """The user signs a voucher."""
        async with self.database.writing() as connection:
            await channels.accept(connection, self.domain, sign(self.domain, channel_id, units, key))

    # ---- requests

    async def served(
        self,
        user: str,
        payouts: Mapping[str, int],
        *,
        channel_id: str | None = None,
        ended_at: datetime | None = None,
    ) -> str:
        """A request that has ended and was captured, and that no chain knows of. Its name."""
        name = f"req_{uuid.uuid4()}"
        fee = fee_on(sum(payouts.values()), FEE_BPS)
        cost = sum(payouts.values()) + fee
        session = NewSession(
            name[4:],
            name,
            user,
            "tiny",
            "standard",
            1,
            0,
            1,
            0,
            FEE_BPS,
            cost,
            payment=Payment.NETTED if channel_id is None else Payment.CHANNEL,
            channel_id=channel_id,
        )
        shares = [
            PaidShare(Share(wallet, f"node of {wallet}", 0, 8, "none", 1, 8, "{}"), units)
            for wallet, units in payouts.items()
        ]
        source = Book.USER_DEPOSIT if channel_id is None else Book.USER_CHANNEL
        async with self.database.writing() as connection:
            await ledger.hold(connection, user, name, cost, source)
            await sessions.add(connection, session, Gateway("here", "some life"))
            if channel_id is not None:
                await channels.earn(connection, self.domain, channel_id, cost, step_units=10**6)
                await channels.captured(connection, channel_id, cost, cost)
            division = Division(cost, tuple(sorted(payouts.items())), fee, 0)
            await ledger.capture(connection, user, name, division)
            await sessions.add_contributions(connection, session, shares)
            await sessions.change(
                connection,
                name,
                status=Status.COMPLETED.value,
                completed_at=ended_at or now(),
                total_cost_units=cost,
                fee_units=fee,
                refund_units=0,
            )
        return name

    # ---- what is so

    async def rows(self, kind: Kind) -> list[Row]:
        """All rows of a kind, the oldest first."""
        name, number = "redeem" if kind is Kind.REDEEM else "batch", 0
        found: list[Row] = []
        async with self.database.reading() as connection:
            count = await batches.count_of(connection, kind)
            while len(found) < count:
                number += 1
                row = await outbox.find(connection, kind, f"{name}-{number}")
                found += [] if row is None else [row]
        return found

    async def batch_of(self, name: str) -> int | None:
        """In which batch a request is."""
        async with self.database.reading() as connection:
            session = await sessions.find(connection, name)
        assert session is not None
        return session.batch_number

    async def is_paid(self, name: str) -> bool:
        """Whether everybody who worked on a request is said to be paid."""
        async with self.database.reading() as connection:
            session = await sessions.find(connection, name)
            assert session is not None
            return all(one.paid_at is not None for one in await sessions.contributions(connection, session.id))

    async def check(self, *, in_credit: Mapping[str, int] | None = None) -> None:
        """Chain and books agree to the unit, and the books with themselves. ``in_credit`` is what the escrow has
        credited where that is not all that was paid."""
        books = await ledger_of(self.database)
        for account, units in books.items():
            if account.kind is Book.PROVIDER_PAID:
                credited = await self.chain.credit_of_wei(account.owner)
                assert credited == (in_credit or {}).get(account.owner, units) * 10**9, account
            if account.kind is Book.USER_DEPOSIT:
                waiting = await self._charged_later(account.owner)
                assert await self.chain.deposit_of(account.owner) == units + waiting, account
        paid = books.get(Account(Book.PLATFORM_PAID, PLATFORM), 0)
        assert await self.chain.fees_accrued_wei() == paid * 10**9
        async with self.database.snapshot() as connection:
            assert (await verify(connection)).findings == ()

    async def _charged_later(self, user: str) -> int:
        async with self.database.reading() as connection:
            waiting = await batches.to_settle(connection)
        return sum(one.cost_units for one in waiting if one.user == user and one.payment is Payment.NETTED)
