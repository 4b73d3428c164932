"""Usage in SQL: sums of a user's requests along one index."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.sessions.schemas import Status
from far_mesh.marketplace.tables import inference_sessions
from far_mesh.marketplace.usage.schemas import Filter, Line, Sums

_asked = inference_sessions.c
_KEY = func.coalesce(_asked.api_key_id, "")


def lines_query(dialect: str, wanted: Filter, after: tuple[str, str, str] | None, limit: int) -> Select[Any]:
    """A page of lines: the newest day first, then by model and key; from after a place in this order."""
    day = _day(dialect)
    query = select(day, _asked.model_id, _KEY, *_SUMS).where(_is(wanted)).group_by(day, _asked.model_id, _KEY)
    if after is not None:
        last_day, model_id, key_id = after
        same_day = or_(_asked.model_id > model_id, and_(_asked.model_id == model_id, key_id < _KEY))
        query = query.where(or_(day < last_day, and_(day == last_day, same_day)))
    return query.order_by(day.desc(), _asked.model_id, _KEY).limit(limit)


async def lines(
    connection: AsyncConnection, wanted: Filter, after: tuple[str, str, str] | None, limit: int
) -> list[Line]:
    """:func:`lines_query`, asked."""
    rows = await connection.execute(lines_query(connection.dialect.name, wanted, after, limit))
    return [Line(row[0], row[1], row[2], Sums(*row[3:])) for row in rows]


async def total(connection: AsyncConnection, wanted: Filter) -> Sums:
    """All of it together."""
    return Sums(*(await connection.execute(select(*_SUMS).where(_is(wanted)))).one())


def _is(wanted: Filter) -> ColumnElement[bool]:
    of_time = and_(_asked.started_at >= wanted.period.begins, _asked.started_at < wanted.period.ends)
    conditions = [_asked.user_wallet == wanted.wallet, of_time]
    if wanted.model_id is not None:
        conditions.append(_asked.model_id == wanted.model_id)
    if wanted.key_id is not None:
        conditions.append(_asked.api_key_id == wanted.key_id if wanted.key_id else _asked.api_key_id.is_(None))
    return and_(*conditions)


def _day(dialect: str) -> ColumnElement[str]:
    if dialect == "sqlite":  # it keeps times as text, in UTC
        return func.substr(_asked.started_at, 1, 10)
    return func.to_char(func.timezone("UTC", _asked.started_at), "YYYY-MM-DD")


def _sum(column: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


_SUMS = (
    func.count(),
    _sum(case((_asked.status == Status.FAILED.value, 1), else_=0)),
    _sum(_asked.prompt_tokens),
    _sum(_asked.cached_tokens),
    _sum(_asked.token_count),
    _sum(_asked.total_cost_units),
)
