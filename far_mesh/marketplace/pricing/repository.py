"""Prices in SQL, and how many requests are open."""

from __future__ import annotations

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.pricing.schemas import ListPrice
from far_mesh.marketplace.sessions.schemas import OPEN
from far_mesh.marketplace.tables import inference_sessions, model_prices


async def of_model(connection: AsyncConnection, model_id: str) -> dict[str, ListPrice]:
    """The prices that the database has for a model, by tier."""
    columns = (model_prices.c.tier, model_prices.c.prompt_price_units, model_prices.c.completion_price_units)
    rows = await connection.execute(select(*columns).where(model_prices.c.model_id == model_id))
    return {tier: ListPrice(prompt, completion) for tier, prompt, completion in rows}


async def all_prices(connection: AsyncConnection) -> dict[tuple[str, str], ListPrice]:
    """All of them, by model and tier."""
    rows = await connection.execute(select(model_prices).order_by(model_prices.c.model_id, model_prices.c.tier))
    return {(row.model_id, row.tier): ListPrice(row.prompt_price_units, row.completion_price_units) for row in rows}


async def put(connection: AsyncConnection, model_id: str, tier: str, price: ListPrice) -> None:
    """From now on this is the price of a model and tier."""
    values = {
        "prompt_price_units": price.prompt,
        "completion_price_units": price.completion,
        "changed_at": now(),
    }
    this = (model_prices.c.model_id == model_id) & (model_prices.c.tier == tier)
    await connection.execute(insert_if_absent(connection, model_prices).values(model_id=model_id, tier=tier, **values))
    await connection.execute(update(model_prices).where(this).values(**values))


async def drop(connection: AsyncConnection, model_id: str, tier: str) -> bool:
    """The settings decide again. False: they did already."""
    this = (model_prices.c.model_id == model_id) & (model_prices.c.tier == tier)
    return (await connection.execute(delete(model_prices).where(this))).rowcount == 1


async def open_requests(connection: AsyncConnection, model_id: str) -> int:
    """Requests for a model that are under way, at all gateways."""
    is_open = inference_sessions.c.status.in_([status.value for status in OPEN])
    query = select(func.count()).where(is_open, inference_sessions.c.model_id == model_id)
    return int((await connection.execute(query)).scalar_one())
