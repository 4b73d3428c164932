"""What the tables say of the whole."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.cluster.schemas import GatewayLife, Lease
from far_mesh.marketplace.sessions.schemas import OPEN, Status
from far_mesh.marketplace.tables import gateways, inference_sessions, leases


async def open_sessions(connection: AsyncConnection) -> dict[str, dict[Status, int]]:
    """How many requests of each status every gateway has in its hands."""
    found = inference_sessions.c
    query = select(found.gateway, found.status, func.count()).where(found.status.in_([one.value for one in OPEN]))
    counts: dict[str, dict[Status, int]] = {}
    for gateway, status, count in await connection.execute(query.group_by(found.gateway, found.status)):
        counts.setdefault(gateway, {})[Status(status)] = count
    return counts


async def all_leases(connection: AsyncConnection) -> list[Lease]:
    """Every lease that was ever taken, by its name."""
    query = select(leases.c.name, leases.c.gateway, leases.c.expires_at).order_by(leases.c.name)
    return [Lease(*row) for row in await connection.execute(query)]


async def all_gateways(connection: AsyncConnection) -> list[GatewayLife]:
    """Every gateway that was ever here, by its name."""
    query = select(gateways.c.name, gateways.c.alive_until).order_by(gateways.c.name)
    return [GatewayLife(*row) for row in await connection.execute(query)]
