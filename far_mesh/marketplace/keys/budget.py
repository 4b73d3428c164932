"""What may be spent with an API key in a day (UTC): reserved when a request is held, given back when it ends.

Both happen in the transaction that moves the money, so the count is exact whatever runs at once and whatever crashes.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from sqlalchemy import ColumnElement, case, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.errors import KeyLimitReached
from far_mesh.marketplace.tables import api_key_days, api_keys


async def reserve(connection: AsyncConnection, key_id: str, units: int, at: datetime) -> None:
    """Count ``units`` of a request that begins, if the key has a limit.

    Raises:
        KeyLimitReached: it would be more than may be spent today.
    """
    limited = select(api_keys.c.units_per_day).where(api_keys.c.id == key_id)
    limit = (await connection.execute(limited)).scalar_one_or_none()
    if limit is None:
        return
    today = at.astimezone(UTC).date()
    row = {"key_id": key_id, "day": today, "units": 0}
    await connection.execute(insert_if_absent(connection, api_key_days).values(**row))
    fits = _of(key_id, at) & (api_key_days.c.units + units <= limit)
    more = update(api_key_days).where(fits).values(units=api_key_days.c.units + units)
    if (await connection.execute(more)).rowcount == 0:
        tomorrow = datetime.combine(today + timedelta(days=1), time(), UTC)
        raise KeyLimitReached(
            f"the request would hold {units} units, which is more than may still be spent with this API key until "
            "midnight UTC",
            retry_after=(tomorrow - at).total_seconds(),
        )


async def give_back(connection: AsyncConnection, key_id: str, units: int, at: datetime) -> None:
    """``units`` of a request that began ``at`` were not needed."""
    left = api_key_days.c.units - units
    await connection.execute(update(api_key_days).where(_of(key_id, at)).values(units=case((left < 0, 0), else_=left)))


def _of(key_id: str, at: datetime) -> ColumnElement[bool]:
    return (api_key_days.c.key_id == key_id) & (api_key_days.c.day == at.astimezone(UTC).date())
