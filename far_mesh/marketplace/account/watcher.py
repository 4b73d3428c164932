"""Keeps the books true to what the escrow says of users' money, also when the chain changes its mind."""

from __future__ import annotations

import asyncio

import structlog

from far_mesh.marketplace.account import events, repository
from far_mesh.marketplace.account.repository import ChainIdentity, Cursor
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, DatabaseUnavailable
from far_mesh.marketplace.payments.vouchers import Domain

MAX_BLOCKS_AT_ONCE = 1_000
REORG_BLOCKS = 64

log = structlog.get_logger(__name__)


class DepositWatcher:
    """Reads what the escrow announces and books each event once.

    Several gateways may watch at once: the cursor moves by compare-and-set in the transaction that books. It keeps the
    hash of the last block that was looked at. When the chain has another one, some blocks were given up: the cursor
    goes ``reorg_blocks`` back, and on the way forward the books are made to say what the chain says now.
    """

    def __init__(
        self,
        database: Database,
        chain: Chain,
        *,
        confirmations: int,
        first_block: int,
        poll_seconds: float,
        reorg_blocks: int = REORG_BLOCKS,
    ) -> None:
        self._database = database
        self._chain = chain
        self._domain = Domain(chain.chain_id, chain.escrow_address)
        self._confirmations = confirmations
        self._first_block = first_block
        self._poll_seconds = poll_seconds
        self._reorg_blocks = reorg_blocks

    async def open(self) -> None:
        """Check that database and chain belong together, and find where we left off.

        Raises:
            ChainMismatch: the database was written beside another chain or another escrow.
        """
        chain = self._chain
        identity = ChainIdentity(chain.chain_id, await chain.genesis_hash(), chain.escrow_address)
        await belong_together(self._database, identity, self._first_block)

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
        """Book what the next blocks tell, or go back where blocks were given up. Whether there may be more."""
        newest = await self._chain.block_number() - self._confirmations
        async with self._database.reading() as connection:
            cursor = await repository.cursor(connection)
        if cursor.last_hash is not None:
            there_now = await self._chain.block_hash(cursor.next_block - 1)
            if there_now is None:
                return False  # the node that answers is behind the one that was asked before
            if there_now != cursor.last_hash:
                return await self._go_back(cursor)
        if cursor.next_block > newest:
            return False
        return await self._read(cursor, min(newest, cursor.next_block + MAX_BLOCKS_AT_ONCE - 1), newest)

    async def _read(self, cursor: Cursor, last: int, newest: int) -> bool:
        first, last_hash = cursor.next_block, await self._chain.block_hash(last)
        seen = await self._chain.escrow_events(events.WATCHED, first, last)
        # What was read is of one chain, and goes on where we left off, if both its ends are what they were before.
        if last_hash is None or await self._chain.block_hash(last) != last_hash:
            return True
        if cursor.last_hash is not None and await self._chain.block_hash(first - 1) != cursor.last_hash:
            return True
        async with self._database.writing() as connection:
            if await repository.move(connection, cursor, Cursor(last + 1, last_hash)):
                await events.follow(connection, self._domain, first, last, seen)
        return last < newest

    async def _go_back(self, cursor: Cursor) -> bool:
        to = max(self._first_block, cursor.next_block - self._reorg_blocks)
        async with self._database.writing() as connection:
            if await repository.move(connection, cursor, Cursor(to, None)):
                log.warning("chain_reorganised", from_block=cursor.next_block, to_block=to)
        return True


async def belong_together(database: Database, identity: ChainIdentity, first_block: int) -> None:
    """Note the chain that this database belongs to, or compare.

    Raises:
        ChainMismatch: it was written beside another one.
    """
    async with database.writing() as connection:
        known = await repository.open_cursor(connection, identity, first_block)
    if known != identity:
        raise ChainMismatch(
            "the database belongs to another chain or another escrow: its balances mean nothing here. Use the "
            "chain it was made with, or a fresh FAR_DATABASE_URL"
        )
