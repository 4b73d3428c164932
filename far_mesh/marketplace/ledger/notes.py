"""Notes balances from time to time, so that sums stay short."""

from __future__ import annotations

import asyncio

import structlog

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.ledger.repository import keep_checkpoints

LOOK_SECONDS = 30.0
EVERY_LINES = 10_000

log = structlog.get_logger(__name__)


class Notes:
    """Keeps checkpoints. Several gateways may do so at once."""

    def __init__(self, database: Database, every_lines: int = EVERY_LINES) -> None:
        self._database = database
        self._every_lines = every_lines

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except DatabaseUnavailable as error:
                log.warning("balances_not_noted", code=error.code)

    async def look(self) -> int:
        """Note them if there are enough new lines. How many balances were noted."""
        async with self._database.writing() as connection:
            return await keep_checkpoints(connection, self._every_lines)
