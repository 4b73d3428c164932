"""How settling goes, for operators: what waits, what was settled, and whether the books agree with the chain."""

from __future__ import annotations

from dataclasses import dataclass

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import batch_repository, reconcile_books
from far_mesh.marketplace.settlement.batch_repository import Entry, Unpaid
from far_mesh.marketplace.settlement.reconcile_books import Result


@dataclass(frozen=True)
class Seen:
    """One look. ``is_ordered``: somebody asked for everything to be settled, and it is not done."""

    unpaid: Unpaid
    is_ordered: bool
    batches: list[Entry]
    compared: Result | None


class Overview:
    """Reads what all gateways of a database have settled. ``seconds`` and ``threshold_units`` are when they do."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self.seconds = settings.settle_seconds
        self.threshold_units = settings.settle_threshold_units

    async def look(self, before: int | None, limit: int) -> Seen:
        """Everything at this moment, with the newest batches ``before`` a number."""
        async with self._database.snapshot() as connection:
            return Seen(
                await batch_repository.unpaid(connection),
                await batch_repository.is_ordered(connection),
                await batch_repository.newest(connection, before, limit),
                await reconcile_books.result(connection),
            )
