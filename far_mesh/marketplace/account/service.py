"""A user's prepaid balance, and what it came from."""

from __future__ import annotations

from collections.abc import Sequence

from far_mesh.marketplace.account import repository
from far_mesh.marketplace.account.repository import BookedEvent
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Balance


class AccountService:
    """What a user has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balance(self, wallet: str) -> Balance:
        """The user's money, in units."""
        async with self._database.reading() as connection:
            return await ledger.balance_of(connection, wallet)

    async def history(self, wallet: str, before: int | None, limit: int) -> Sequence[BookedEvent]:
        """What the chain has told of the user's deposit, newest first; ``before``: what is older than that row."""
        async with self._database.reading() as connection:
            return await repository.page(connection, wallet, before, limit)
