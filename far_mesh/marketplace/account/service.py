"""A user's prepaid balance, and the watcher that keeps it true to the chain."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.account import repository
from far_mesh.marketplace.account.repository import ChainIdentity
from far_mesh.marketplace.chain.amounts import wei_to_units, wei_to_units_up
from far_mesh.marketplace.chain.client import Chain, DepositEvent
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, DatabaseUnavailable
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Balance

MAX_BLOCKS_AT_ONCE = 1_000

log = structlog.get_logger(__name__)


class AccountService:
    """What a user has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balance(self, wallet: str) -> Balance:
        """The user's money, in units."""
        async with self._database.reading() as connection:
            return await ledger.balance_of(connection, wallet)


class DepositWatcher:
    """Reads deposits and withdrawals from the escrow and books each once.

    Several gateways may watch at once: the cursor moves by compare-and-set in the transaction that books, and each
    booking is named by its transaction and log index.
    """

    def __init__(
        self, database: Database, chain: Chain, *, confirmations: int, first_block: int, poll_seconds: float
    ) -> None:
        self._database = database
        self._chain = chain
        self._confirmations = confirmations
        self._first_block = first_block
        self._poll_seconds = poll_seconds

    async def open(self) -> None:
        """Check that database and chain belong together, and find where we left off.

        Raises:
            ChainMismatch: the database was written beside another chain or another escrow.
        """
        chain = self._chain
        identity = ChainIdentity(chain.chain_id, await chain.genesis_hash(), chain.escrow_address)
        async with self._database.writing() as connection:
            known = await repository.open_cursor(connection, identity, self._first_block)
        if known != identity:
            raise ChainMismatch(
                "the database belongs to another chain or another escrow: its balances mean nothing here. Use the "
                "chain it was made with, or a fresh FAR_DATABASE_URL"
            )

    async def run(self) -> None:
        """Watch until cancelled. A chain or a database that does not answer is asked again."""
        while True:
            try:
                while await self.look():
                    pass
            except (ChainUnavailable, DatabaseUnavailable) as error:
                log.warning("deposits_not_read", code=error.code)
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> bool:
        """Book what the next blocks tell. Whether there may be more."""
        newest = await self._chain.block_number() - self._confirmations
        async with self._database.reading() as connection:
            first = await repository.next_block(connection)
        if first > newest:
            return False
        last = min(newest, first + MAX_BLOCKS_AT_ONCE - 1)
        events = await self._chain.deposit_events(first, last)
        async with self._database.writing() as connection:
            if await repository.advance(connection, first, last + 1):
                for event in events:
                    await book(connection, event)
        return last < newest


async def book(connection: AsyncConnection, event: DepositEvent) -> None:
    """One event of the chain, in the books. Dust below one unit is never made into money."""
    await repository.add_event(connection, event)
    name = f"{event.tx_hash}:{event.log_index}"
    if event.wei > 0:
        booked = await ledger.deposit_seen(connection, event.wallet, wei_to_units(event.wei), name)
    else:
        booked = await ledger.withdrawal_seen(connection, event.wallet, wei_to_units_up(-event.wei), name)
    if booked:
        log.info("deposit_booked", kind=event.kind, wallet=event.wallet, tx_hash=event.tx_hash)
