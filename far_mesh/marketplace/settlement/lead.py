"""Who may send transactions: of all gateways that share a database the one that holds the lease, and it proves that in
each transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import LeaseLost
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.schemas import Fence

LEASE = "settler"
LEASE_LIFETIME = timedelta(seconds=15)

log = structlog.get_logger(__name__)


class Lead:
    """The lease of one gateway. ``fence`` is what proves it, while this gateway holds it."""

    def __init__(self, database: Database, gateway: Gateway) -> None:
        self._database = database
        self._gateway = gateway
        self._fence: Fence | None = None
        self._one_at_a_time = asyncio.Lock()  # two rounds at once would give one nonce to two transactions

    @property
    def fence(self) -> Fence:
        """Only of one who leads."""
        assert self._fence is not None
        return self._fence

    async def take(self) -> tuple[bool, bool]:
        """Whether this gateway holds the lease, and whether it does so anew. The lease is renewed when half of it is
        over: most rounds write nothing."""
        before = self._fence
        if before is not None and await self._is_young(before):
            return True, False
        async with self._database.writing() as connection:
            self._fence = await repository.take_lease(connection, LEASE, self._gateway, LEASE_LIFETIME)
        return self._fence is not None, self._fence != before

    async def keep(self) -> None:
        """The same in the middle of a round, which may take longer than a lease where the chain answers slowly.

        Raises:
            LeaseLost: somebody else leads.
        """
        if not await self._is_young(self.fence):
            async with self.writing() as connection:
                await repository.take_lease(connection, LEASE, self._gateway, LEASE_LIFETIME)

    async def round(self, work: Callable[[bool], Awaitable[None]]) -> bool:
        """Do ``work`` as the one who leads; it is told whether this gateway leads anew. Whether it was done: not where
        somebody else leads, or began to in the middle because this process slept for too long."""
        async with self._one_at_a_time:
            leads, is_new = await self.take()
            if not leads:
                return False
            try:
                await work(is_new)
            except LeaseLost:
                log.warning("lease_lost", lease=LEASE)
                self._fence = None  # begin again as a newcomer
                return False
            return True

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction of the one who leads.

        Raises:
            LeaseLost: that is somebody else by now.
        """
        async with self._database.writing() as connection:
            await repository.hold_fence(connection, self.fence)
            yield connection

    async def _is_young(self, fence: Fence) -> bool:
        async with self._database.reading() as connection:
            return await repository.lease_left(connection, fence) > LEASE_LIFETIME / 2
