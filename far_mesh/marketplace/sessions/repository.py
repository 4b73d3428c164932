"""Sessions, contributions and gateways in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, bindparam, case, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.score import grown
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.sessions.schemas import (
    OPEN,
    Gateway,
    NewSession,
    PaidShare,
    Payment,
    Session,
    Share,
    Status,
    Work,
)
from far_mesh.marketplace.tables import UNSETTLED, gateways, inference_sessions, node_contributions, node_registry

_COLUMNS = [inference_sessions.c[field.name] for field in fields(Session)]


async def add(
    connection: AsyncConnection, session: NewSession, gateway: Gateway, status: Status = Status.PENDING
) -> None:
    """A request begins, in the hands of ``gateway``."""
    await connection.execute(
        insert(inference_sessions).values(
            **asdict(session),
            status=status.value,
            gateway=gateway.name,
            incarnation=gateway.incarnation,
            started_at=now(),
            token_count=0,
        )
    )


async def find(connection: AsyncConnection, request_id: str, *, lock: bool = False) -> Session | None:
    """The request with this id. ``lock``: nobody else changes it until this transaction ends."""
    query = select(*_COLUMNS).where(inference_sessions.c.request_id == request_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        return None
    return Session(**{**row._asdict(), "status": Status(row.status), "payment": Payment(row.payment)})


async def change(connection: AsyncConnection, request_id: str, **values: Any) -> None:
    """Write what has become known of a request."""
    one = inference_sessions.c.request_id == request_id
    await connection.execute(update(inference_sessions).where(one).values(**values))


async def count(connection: AsyncConnection, request_id: str, units: int) -> bool:
    """Note that ``units`` more are counted for a request on its channel. False: it is not active any more."""
    active = (inference_sessions.c.request_id == request_id) & (inference_sessions.c.status == Status.ACTIVE.value)
    more = inference_sessions.c.counted_units + units
    return (await connection.execute(update(inference_sessions).where(active).values(counted_units=more))).rowcount == 1


def unsettled(wallet: str) -> Select[Any]:
    """One row with ``units``: what ``wallet`` owes for netted requests that no batch has, and what those under way may
    come to cost."""
    units = func.coalesce(inference_sessions.c.total_cost_units, inference_sessions.c.held_units)
    of_wallet = inference_sessions.c.user_wallet == wallet
    return select(func.coalesce(func.sum(units), 0).label("units")).where(of_wallet, UNSETTLED)


async def keep_checkpoint(connection: AsyncConnection, request_id: str, work: Work) -> bool:
    """What a crash would be settled by. Only while the request is active: False when it is not any more."""
    active = (inference_sessions.c.request_id == request_id) & (inference_sessions.c.status == Status.ACTIVE.value)
    values = {"checkpoint": work.to_json(), "token_count": work.completion_tokens}
    return (await connection.execute(update(inference_sessions).where(active).values(**values))).rowcount == 1


async def add_contributions(connection: AsyncConnection, session: NewSession, paid: Iterable[PaidShare]) -> None:
    """Who did the work and what it earned; the same in the registry of nodes."""
    paid, earned_at = tuple(paid), now()
    rows = [
        {
            "session_id": session.id,
            "node_id": one.share.node_id,
            "wallet_address": one.share.wallet,
            "first_block": one.share.first_block,
            "end_block": one.share.end_block,
            "quantization": one.share.quantization,
            "tokens_contributed": one.share.positions,
            "token_layers": one.share.token_layers,
            "payment_units": one.paid_units,
            "receipt": one.share.receipt,
            "earned_at": earned_at,
        }
        for one in paid
    ]
    if not rows:
        return
    await connection.execute(insert(node_contributions), rows)
    by_node = sorted(paid, key=lambda one: one.share.node_id)  # one order, so that two writers cannot block each other
    known = [
        {
            "node_id": one.share.node_id,
            "wallet_address": one.share.wallet,
            "model_id": session.model_id,
            "registered_at": now(),
            "is_active": True,
            "total_tokens_served": 0,
            "total_earned_units": 0,
        }
        for one in by_node
    ]
    await connection.execute(insert_if_absent(connection, node_registry), known)
    await connection.execute(
        _SERVED,
        [
            {
                "served_by": one.share.node_id,
                "served_for": one.share.wallet,
                "served_model": session.model_id,
                "served_at": now(),
                "served_tokens": one.share.positions,
                "served_once": grown(now().timestamp()),
                "earned": one.paid_units,
            }
            for one in by_node
        ],
    )


_SERVED = (
    update(node_registry)
    .where(node_registry.c.node_id == bindparam("served_by"))
    .values(
        # a wallet signs for its nodes; what a node says of another wallet is not proven by that
        proven_at=case((node_registry.c.wallet_address == bindparam("served_for"), node_registry.c.proven_at)),
        wallet_address=bindparam("served_for"),
        model_id=bindparam("served_model"),
        last_seen=bindparam("served_at"),
        is_active=True,
        total_tokens_served=node_registry.c.total_tokens_served + bindparam("served_tokens"),
        total_earned_units=node_registry.c.total_earned_units + bindparam("earned"),
        seen_completed=node_registry.c.seen_completed + bindparam("served_once"),
    )
)


async def contributions(connection: AsyncConnection, session_id: str) -> tuple[PaidShare, ...]:
    """Who did the work of a request and what it earned."""
    query = select(node_contributions).where(node_contributions.c.session_id == session_id)
    rows = await connection.execute(query.order_by(node_contributions.c.id))
    return tuple(PaidShare(_share(row), row.payment_units, row.paid_at) for row in rows)


def _share(row: Any) -> Share:
    return Share(
        row.wallet_address,
        row.node_id,
        row.first_block,
        row.end_block,
        row.quantization,
        row.tokens_contributed,
        row.token_layers,
        row.receipt,
    )


async def mark_paid(connection: AsyncConnection, request_id: str) -> None:
    """The chain has credited everybody who worked on a request."""
    of_request = select(inference_sessions.c.id).where(inference_sessions.c.request_id == request_id)
    await connection.execute(
        update(node_contributions)
        .where(node_contributions.c.session_id.in_(of_request), node_contributions.c.payment_units > 0)
        .values(paid_at=now())
    )


async def mark_unpaid(connection: AsyncConnection, request_id: str) -> None:
    """The chain has taken back what it had credited for a request."""
    of_request = select(inference_sessions.c.id).where(inference_sessions.c.request_id == request_id)
    await connection.execute(
        update(node_contributions).where(node_contributions.c.session_id.in_(of_request)).values(paid_at=None)
    )


# ---- gateways


async def beat(connection: AsyncConnection, gateway: Gateway, lifetime: timedelta) -> None:
    """This process is alive, and will be for ``lifetime`` unless it says otherwise."""
    values = {"incarnation": gateway.incarnation, "alive_until": now() + lifetime}
    await connection.execute(insert_if_absent(connection, gateways).values(name=gateway.name, **values))
    await connection.execute(update(gateways).where(gateways.c.name == gateway.name).values(**values))


async def open_in_hands_of(connection: AsyncConnection, gateway: Gateway) -> list[str]:
    """Open requests that this life of ``gateway`` has begun."""
    is_open = inference_sessions.c.status.in_([status.value for status in OPEN])
    mine = inference_sessions.c.incarnation == gateway.incarnation
    return list((await connection.execute(select(inference_sessions.c.request_id).where(is_open, mine))).scalars())


async def orphans(connection: AsyncConnection, asking: Gateway | None = None) -> list[str]:
    """Open requests in the hands of a process that is no more. Who is ``asking`` lives, even where it was too slow to
    say so in time."""
    alive = exists().where(
        and_(
            gateways.c.name == inference_sessions.c.gateway,
            gateways.c.incarnation == inference_sessions.c.incarnation,
            gateways.c.alive_until > now(),
        )
    )
    is_open = inference_sessions.c.status.in_([status.value for status in OPEN])
    query = select(inference_sessions.c.request_id).where(is_open, ~alive).order_by(inference_sessions.c.started_at)
    if asking is not None:
        query = query.where(inference_sessions.c.incarnation != asking.incarnation)
    return list((await connection.execute(query)).scalars())
