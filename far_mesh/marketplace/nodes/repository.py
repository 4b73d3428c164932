"""The registry of nodes in SQL.

Rows of several nodes are written as far as they can be locked at once (``SKIP LOCKED``): whoever captures a request
locks the rows of its nodes one after the other, and two who wait for each other would end in a deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.nodes.schemas import Hardware, NodeRow
from far_mesh.marketplace.tables import node_registry
from far_mesh.marketplace.tiers.reliability import observations_of

CHUNK = 500
KEEP_UNSERVED = timedelta(days=30)
_node = node_registry.c
_HARDWARE = ("gpu_model", "vram_gb", "location", "public_addr")


async def find(connection: AsyncConnection, node_id: str) -> NodeRow | None:
    """A node by its id."""
    return (await rows(connection, [node_id])).get(node_id)


async def rows(connection: AsyncConnection, node_ids: Collection[str]) -> dict[str, NodeRow]:
    """Those of these nodes that the registry has."""
    found: dict[str, NodeRow] = {}
    for some in _chunks(sorted(node_ids)):
        for row in await connection.execute(select(node_registry).where(_node.node_id.in_(some))):
            found[row.node_id] = _row(row)
    return found


async def page(connection: AsyncConnection, after: str | None, limit: int) -> list[NodeRow]:
    """The registry in the order of ids."""
    query = select(node_registry).order_by(_node.node_id).limit(limit)
    if after is not None:
        query = query.where(_node.node_id > after)
    return [_row(row) for row in await connection.execute(query)]


async def count_registered(connection: AsyncConnection, wallet: str, without: str) -> int:
    """How many nodes of ``wallet`` are registered, not counting one."""
    mine = and_(_node.wallet_address == wallet, _node.proven_at.is_not(None), _node.node_id != without)
    return int((await connection.execute(select(func.count()).where(mine))).scalar_one())


async def register(
    connection: AsyncConnection,
    node_id: str,
    wallet: str,
    model_id: str,
    hardware: Hardware,
    proven_at: datetime,
    at: datetime,
) -> bool:
    """What a node and its wallet have signed counts from now on. False: something as new as that counts already."""
    await _note(connection, [(node_id, wallet, model_id)], at)
    older = or_(_node.proven_at.is_(None), _node.proven_at < proven_at)
    said = {name: getattr(hardware, name) for name in _HARDWARE}
    values = {"wallet_address": wallet, "model_id": model_id, "proven_at": proven_at, "last_seen": at} | said
    changed = update(node_registry).where(_node.node_id == node_id, older).values(**values, is_active=True)
    return (await connection.execute(changed)).rowcount == 1


async def claim(
    connection: AsyncConnection, node_id: str, wallet: str, model_id: str, proven_at: datetime, at: datetime
) -> bool:
    """For whom a node earns, as both have signed; what is known of its hardware stays. False: something as new as that
    counts already."""
    await _note(connection, [(node_id, wallet, model_id)], at)
    older = or_(_node.proven_at.is_(None), _node.proven_at < proven_at)
    changed = update(node_registry).where(_node.node_id == node_id, older)
    return (await connection.execute(changed.values(wallet_address=wallet, proven_at=proven_at))).rowcount == 1


async def known_of_wallet(connection: AsyncConnection, wallet: str, limit: int) -> list[NodeRow]:
    """Nodes of a wallet that have served or were registered: those that were there last, in the order of ids. Others
    may only say that they are its own."""
    known = or_(_node.proven_at.is_not(None), ~_has_not_served())
    mine = select(node_registry).where(_node.wallet_address == wallet, known)
    found = await connection.execute(mine.order_by(_node.last_seen.desc(), _node.node_id).limit(limit))
    return sorted((_row(row) for row in found), key=lambda row: row.node_id)


async def heard(
    connection: AsyncConnection, node_id: str, claims: Mapping[str, Any], heard_at: datetime, at: datetime
) -> bool:
    """A registered node said how it is. False: it said something as new as that already."""
    newer = or_(_node.heard_at.is_(None), _node.heard_at < heard_at)
    changed = update(node_registry).where(_node.node_id == node_id, _node.proven_at.is_not(None), newer)
    values = {"claims": dict(claims), "heard_at": heard_at, "last_seen": at, "is_active": True}
    return (await connection.execute(changed.values(**values))).rowcount == 1


async def put_worker(
    connection: AsyncConnection,
    node_id: str,
    wallet: str,
    model_id: str,
    endpoint_url: str,
    vram_gb: int | None,
    at: datetime,
) -> None:
    """An operator says that this node is there. For whom a node earns that has served is not changed by that."""
    await _note(connection, [(node_id, wallet, model_id)], at)
    one = _node.node_id == node_id
    values = {"endpoint_url": endpoint_url, "vram_gb": vram_gb}
    await connection.execute(update(node_registry).where(one).values(**values))
    await connection.execute(
        update(node_registry).where(one, _has_not_served()).values(wallet_address=wallet, model_id=model_id)
    )


async def remove(connection: AsyncConnection, node_id: str) -> bool:
    """A registration counts no more. What the node has served stays in the books. False: it was not registered."""
    registered = or_(_node.proven_at.is_not(None), _node.endpoint_url.is_not(None))
    nothing = {"proven_at": None, "heard_at": None, "claims": None, "endpoint_url": None, "is_active": False}
    blank = dict.fromkeys(_HARDWARE)
    one = update(node_registry).where(_node.node_id == node_id, registered).values(**nothing, **blank)
    if (await connection.execute(one)).rowcount == 0:
        return False
    await connection.execute(delete(node_registry).where(_node.node_id == node_id, _has_not_served()))
    return True


# ---- who was seen


async def add_seen(connection: AsyncConnection, seen: Sequence[tuple[str, str, str]], at: datetime, most: int) -> int:
    """Write down nodes that are new: id, wallet, model. No more than ``most`` that have never served are kept at a
    time, for ids cost nothing. How many were left out."""
    there = await rows(connection, [node_id for node_id, _, _ in seen])
    new = sorted(one for one in seen if one[0] not in there)
    if not new:
        return 0
    idle = int((await connection.execute(select(func.count()).where(_has_not_served()))).scalar_one())
    welcome = new[: max(0, most - idle)]
    for some in _chunks(welcome):
        await _note(connection, some, at)
    return len(new) - len(welcome)


async def mark_seen(connection: AsyncConnection, node_ids: Collection[str], at: datetime) -> None:
    """They are in the swarm now."""
    for some in _chunks(sorted(node_ids)):
        await _write(connection, _node.node_id.in_(some), last_seen=at, is_active=True)


async def mark_gone(connection: AsyncConnection, before: datetime) -> None:
    """Nobody has seen them since."""
    unseen = or_(_node.last_seen.is_(None), _node.last_seen < before)
    await _write(connection, and_(_node.is_active, unseen), is_active=False)


async def forget_idle(connection: AsyncConnection, at: datetime) -> None:
    """Nodes that have never served and were not seen for a month."""
    old = and_(_has_not_served(), func.coalesce(_node.last_seen, _node.registered_at) < at - KEEP_UNSERVED)
    await connection.execute(delete(node_registry).where(_node.node_id.in_(_locked(old))))


async def _write(connection: AsyncConnection, which: ColumnElement[bool], **values: Any) -> None:
    await connection.execute(update(node_registry).where(_node.node_id.in_(_locked(which))).values(**values))


def _locked(which: ColumnElement[bool]) -> Any:
    # SQLite has one writer at a time, and leaves out the words about locks
    return select(_node.node_id).where(which).with_for_update(skip_locked=True)


def _has_not_served() -> ColumnElement[bool]:
    return and_(_node.total_tokens_served == 0, _node.total_earned_units == 0)


async def _note(connection: AsyncConnection, nodes: Iterable[tuple[str, str, str]], at: datetime) -> None:
    values = [
        {
            "node_id": node_id,
            "wallet_address": wallet,
            "model_id": model_id,
            "registered_at": at,
            "last_seen": at,
            "is_active": True,
            "total_tokens_served": 0,
            "total_earned_units": 0,
        }
        for node_id, wallet, model_id in nodes
    ]
    await connection.execute(insert_if_absent(connection, node_registry), values)


def _chunks(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def _row(row: Any) -> NodeRow:
    return NodeRow(
        node_id=row.node_id,
        wallet_address=row.wallet_address,
        model_id=row.model_id,
        hardware=Hardware(**{name: getattr(row, name) for name in _HARDWARE}),
        registered_at=row.registered_at,
        last_seen=row.last_seen,
        is_active=row.is_active,
        proven_at=row.proven_at,
        heard_at=row.heard_at,
        claims=row.claims,
        endpoint_url=row.endpoint_url,
        seen=observations_of(row, now()),
    )
