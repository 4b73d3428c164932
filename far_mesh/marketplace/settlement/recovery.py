"""What a crash left open is settled by what was last proven, or refunded in full.

Reading and deciding again changes nothing: a request that has ended is left alone, and the books allow one end only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

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
    return await _end_all(database, orphans)


async def recover_own(database: Database, gateway: Gateway, under_way: Callable[[], Set[str]]) -> int:
    """End what this gateway has open in the books and nobody here cares for any more: requests whose beginning the
    database wrote down when it could not say so any more, and those that were cancelled. How many there were."""
    async with database.reading() as connection:
        mine = await sessions.open_in_hands_of(connection, gateway)
    left = set(mine) - under_way()  # asked for last: who cares for a request does so before it is in the books
    return await _end_all(database, sorted(left))


async def _end_all(database: Database, request_ids: Sequence[str]) -> int:
    for request_id in request_ids:
        await _end(database, request_id)
    return len(request_ids)


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
