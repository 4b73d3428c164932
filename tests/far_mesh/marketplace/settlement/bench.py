"""A settler whose rounds are made by hand, on a real chain and a real database."""

from __future__ import annotations

from typing import Any

from far_mesh.marketplace.chain.client import Chain, EscrowStatus, address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.ledger.verify import Finding, verify
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Session, Share, Work
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.acts import escrow_acts
from far_mesh.marketplace.settlement.requests import (
    Measured,
    activate_request,
    close_request,
    open_request,
    refund_request,
)
from far_mesh.marketplace.settlement.schemas import Attempt, Kind, Row
from far_mesh.marketplace.settlement.service import Rules, Settlement, Settler
from tests.far_mesh.marketplace.house import SETTLER, ledger_of, rpc
from tests.support.documents import wallet_of

GATEWAY = Gateway("here", "first life")
HELD = 1_000
PAID = 400
"""What the provider of a request gets that :meth:`Bench.close` closes; the fee is 100 more."""


class Bench:
    """One user with a deposit of ten requests, and whatever settlers a test wants."""

    def __init__(self, database: Database, chain: Chain, key: str) -> None:
        self.database, self.chain, self.key, self.user = database, chain, key, address_of(key)
        self.room = Settlement(database, chain, 30.0)
        self.settler = self.settler_of(GATEWAY)

    def settler_of(self, gateway: Gateway, rules: Rules | None = None, chain: Chain | None = None) -> Settler:
        """A settler in a gateway of its own."""
        chain = chain or self.chain
        acts = escrow_acts(self.database, chain, address_of(SETTLER))
        return Settler(self.database, chain, SETTLER, gateway, self.room, acts, rules or Rules())

    # ---- requests

    async def open(self, request_id: str, held: int = HELD) -> None:
        """A request begins, with an escrow of its own."""
        session = NewSession(request_id, request_id, self.user, "tiny", "standard", 10, 0, 10, 0, 2_000, held)
        async with self.database.writing() as connection:
            await open_request(connection, session, GATEWAY, 1800)

    async def activate(self, request_id: str) -> None:
        """Its money is locked."""
        async with self.database.writing() as connection:
            await activate_request(connection, request_id, 2_000)

    async def close(self, request_id: str, wallet: str | None = None) -> None:
        """It ends with 400 units for a provider and 100 for the platform."""
        await self.activate(request_id)
        await self.capture(request_id, wallet)

    async def capture(self, request_id: str, wallet: str | None = None) -> None:
        """The same of a request that is active."""
        share = Share(wallet or self.provider_of(request_id), "node", 0, 8, "none", 10, 80, "{}")
        async with self.database.writing() as connection:
            await close_request(connection, request_id, Work(10, 50, (share,), 80), Measured("stop"))

    async def refund(self, request_id: str) -> None:
        """It comes to nothing."""
        async with self.database.writing() as connection:
            await refund_request(connection, request_id, "test")

    # ---- what there is

    def provider_of(self, request_id: str) -> str:
        """Who works on a request, and on no other."""
        return wallet_of(f"{request_id} of {self.user}")

    async def row(self, kind: Kind, request_id: str) -> Row:
        """A row of the outbox."""
        async with self.database.reading() as connection:
            row = await repository.find(connection, kind, request_id)
        assert row is not None
        return row

    async def attempts(self, kind: Kind, request_id: str) -> list[Attempt]:
        """All that was signed for it, the newest first."""
        row = await self.row(kind, request_id)
        async with self.database.reading() as connection:
            return await repository.attempts(connection, row)

    async def session(self, request_id: str) -> Session:
        """A request."""
        async with self.database.reading() as connection:
            session = await sessions.find(connection, request_id)
        assert session is not None
        return session

    async def is_paid(self, request_id: str) -> bool:
        """Whether its contributions are marked as paid."""
        session = await self.session(request_id)
        async with self.database.reading() as connection:
            found = await sessions.contributions(connection, session.id)
        return all(one.paid_at is not None for one in found)

    async def escrow(self, request_id: str) -> EscrowStatus:
        """Its escrow on chain."""
        return (await self.chain.escrow_of(self.user, request_id)).status

    async def credit(self, request_id: str) -> int:
        """What the chain has credited to the provider of a request, in units."""
        return await self.chain.credit_of_wei(self.provider_of(request_id)) // 10**9

    async def earned(self, request_id: str) -> dict[Book, int]:
        """The accounts of its provider that are not empty."""
        books = await ledger_of(self.database)
        kinds = (Book.PROVIDER_EARNED, Book.IN_FLIGHT, Book.PROVIDER_PAID)
        return {kind: units for kind in kinds if (units := books.get(Account(kind, self.provider_of(request_id)), 0))}

    async def available(self) -> int:
        """What the books have for the user."""
        return (await ledger_of(self.database))[Account(Book.USER_DEPOSIT, self.user)]

    async def findings(self) -> tuple[Finding, ...]:
        """What ``far-mesh ledger verify`` says."""
        async with self.database.snapshot() as connection:
            return (await verify(connection)).findings

    # ---- anvil

    async def anvil(self, method: str, *parameters: Any) -> Any:
        """Ask anvil itself."""
        return await rpc(self.chain.rpc_url, method, *parameters)

    async def mine(self, blocks: int = 1) -> None:
        """Make blocks, with what waits in the first."""
        await self.anvil("anvil_mine", hex(blocks))

    async def automine(self, on: bool) -> None:
        """Whether each transaction gets a block at once."""
        await self.anvil("evm_setAutomine", on)

    async def give_up(self, blocks: int = 3) -> None:
        """The chain gives up its newest blocks, for as many empty ones."""
        await self.anvil("anvil_reorg", blocks, [])
