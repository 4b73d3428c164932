"""What the inference room asks of the tables of sessions."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.sessions.schemas import Status
from far_mesh.marketplace.tables import inference_sessions

RECENT = 100


async def average_latency_ms(connection: AsyncConnection, model_id: str) -> int | None:
    """Mean time from request to last token over the last hundred answers; None when there is none."""
    completed = inference_sessions.c.status == Status.COMPLETED.value
    recent = (
        select(inference_sessions.c.latency_ms)
        .where(completed, inference_sessions.c.model_id == model_id, inference_sessions.c.latency_ms.is_not(None))
        .order_by(inference_sessions.c.completed_at.desc())
        .limit(RECENT)
        .subquery()
    )
    mean = (await connection.execute(select(func.avg(recent.c.latency_ms)))).scalar_one()
    return None if mean is None else round(mean)
