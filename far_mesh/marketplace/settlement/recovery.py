"""What a crash left open is settled by what was last proven, or refunded in full.

Reading and deciding again changes nothing: a request that has ended is left alone, and the books allow one end only.
"""

from __future__ import annotations

import structlog

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import OPEN, Gateway, Work
from far_mesh.marketplace.settlement.requests import Measured, close_request, refund_request

log = structlog.get_logger(__name__)


async def recover(database: Database, asking: Gateway | None = None) -> int:
    """End every open request whose gateway is no more, but never one of the gateway that is ``asking``. How many there
    were."""
    async with database.reading() as connection:
        orphans = await sessions.orphans(connection, asking)
    for request_id in orphans:
        await _end(database, request_id)
    return len(orphans)


async def _end(database: Database, request_id: str) -> None:
    async with database.writing() as connection:
        session = await sessions.find(connection, request_id, lock=True)
        if session is None or session.status not in OPEN:
            return
        if session.checkpoint is not None:
            work = Work.from_json(session.checkpoint)
            await close_request(connection, request_id, work, Measured("interrupted"))
        else:
            await refund_request(connection, request_id, "interrupted")
    log.info("request_recovered", request_id=request_id, by="refund" if session.checkpoint is None else "checkpoint")
