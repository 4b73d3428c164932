"""A user with a wallet on a chain that can change its mind, and the books that follow it."""

from __future__ import annotations

import asyncio
from typing import Any

from far_mesh.marketplace.account import repository
from far_mesh.marketplace.account.deposits import EscrowDeposits
from far_mesh.marketplace.account.repository import BookedEvent
from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.node import call_data
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Balance
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.payments.vouchers import Domain
from tests.far_mesh.marketplace.house import rpc
from tests.far_mesh.marketplace.payments.street import DEPLOYER, SETTLER, Street

USER = address_of(DEPLOYER)


class Bench:
    """The user is the deployer, who has all FAR of the street."""

    def __init__(self, database: Database, street: Street, confirmations: int = 0) -> None:
        self.database, self.street = database, street
        self.confirmations = confirmations
        self.domain = Domain(CHAIN_ID, street.deployment.escrow)
        self.wallet = ChainWallet(street.chain, DEPLOYER)
        self.watcher = self.another_watcher()

    def another_watcher(self, **changes: Any) -> DepositWatcher:
        """One of another gateway."""
        rules = {"confirmations": self.confirmations, "first_block": 0, "poll_seconds": 0.01}
        return DepositWatcher(self.database, self.street.chain, **(rules | changes))

    def desk(self, first_block: int = 0) -> EscrowDeposits:
        """Where deposits are named."""
        provider = self.street.provider(
            escrow_address=self.street.deployment.escrow, confirmations=self.confirmations, settler_private_key=SETTLER
        )
        return EscrowDeposits(self.database, provider, first_block, self.street.chain)

    async def look(self, watcher: DepositWatcher | None = None) -> None:
        """Until everything is booked."""
        async with asyncio.timeout(20):
            while await (watcher or self.watcher).look():
                pass

    async def call(self, key: str, signature: str, *arguments: Any) -> str:
        """Somebody calls the escrow."""
        return await self.street.send(key, self.street.deployment.escrow, call_data(signature, *arguments))

    async def raw(self, tx_hash: str) -> str:
        """The bytes of a transaction, to be sent again."""
        return str(await rpc(self.street.url, "eth_getRawTransactionByHash", tx_hash))

    async def reorganise(self, blocks: int) -> None:
        """So many of the newest blocks are given up for as many empty ones."""
        await rpc(self.street.url, "anvil_reorg", blocks, [])

    async def later(self, seconds: int) -> None:
        """Time goes by."""
        await rpc(self.street.url, "evm_increaseTime", seconds)
        await self.street.mine()

    async def balance(self) -> Balance:
        """What the user has."""
        async with self.database.reading() as connection:
            return await ledger.balance_of(connection, USER)

    async def available(self) -> int:
        """What the user can spend."""
        return (await self.balance()).available

    async def history(self) -> list[BookedEvent]:
        """What was booked, oldest first."""
        async with self.database.reading() as connection:
            return list(reversed(await repository.page(connection, USER, None, 1_000)))

    async def is_sound(self) -> bool:
        """Whether the books agree with themselves, and with the user's deposit on chain."""
        async with self.database.snapshot() as connection:
            assert (await verify(connection)).findings == ()
        assert await self.available() == await self.street.chain.deposit_of(USER)
        return True
