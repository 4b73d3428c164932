"""Jobs and messages to webhooks in SQL. Whoever works on a row proves with its token that nobody took it over."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent, moment
from far_mesh.marketplace.errors import LeaseLost
from far_mesh.marketplace.jobs.schemas import UNDER_WAY, Delivery, DeliveryStatus, Job, JobStatus, Tried
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.tables import jobs, webhook_attempts, webhook_deliveries, webhook_secrets

_JOB = [jobs.c[field.name] for field in fields(Job)]
_DELIVERY = [webhook_deliveries.c[field.name] for field in fields(Delivery)]
_UNDER_WAY = [status.value for status in UNDER_WAY]
AT_ONCE = 100


# ---- for those who ask


async def add(connection: AsyncConnection, values: dict[str, Any]) -> bool:
    """A job waits from now on. False: there is one of this id."""
    added = insert_if_absent(connection, jobs).values(**values, status=JobStatus.QUEUED.value).returning(jobs.c.id)
    return (await connection.execute(added)).first() is not None


async def one_at_a_time(connection: AsyncConnection, wallet: str) -> None:
    """Until this transaction ends, nobody else is here for ``wallet``. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        await connection.execute(lock, {"name": f"jobs/{wallet}"})


async def count(connection: AsyncConnection, wallet: str) -> int:
    """How many jobs of ``wallet`` wait or run."""
    mine = (jobs.c.wallet_address == wallet) & jobs.c.status.in_(_UNDER_WAY)
    return (await connection.execute(select(func.count()).where(mine))).scalar_one()


async def find(connection: AsyncConnection, job_id: str) -> Job | None:
    """The job of this id."""
    row = (await connection.execute(select(*_JOB).where(jobs.c.id == job_id))).one_or_none()
    return None if row is None else _job(row)


async def page(
    connection: AsyncConnection, wallet: str, status: JobStatus | None, before: tuple[datetime, str] | None, limit: int
) -> list[Job]:
    """Jobs of ``wallet``, the newest first, those that are older than ``before``."""
    query = select(*_JOB).where(jobs.c.wallet_address == wallet)
    if status is not None:
        query = query.where(jobs.c.status == status.value)
    if before is not None:
        query = query.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(*before))
    ordered = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    return [_job(row) for row in await connection.execute(ordered)]


async def ask_to_cancel(connection: AsyncConnection, job_id: str) -> Job:
    """A job that there is is not wanted any more. As it is then, locked for this transaction."""
    asked = func.coalesce(jobs.c.cancel_asked_at, now())
    wanted = update(jobs).where(jobs.c.id == job_id, jobs.c.status.in_(_UNDER_WAY)).values(cancel_asked_at=asked)
    await connection.execute(wanted)
    return _job((await connection.execute(select(*_JOB).where(jobs.c.id == job_id).with_for_update())).one())


# ---- for those who work


async def claim(connection: AsyncConnection, gateway: Gateway, lifetime: timedelta) -> Job | None:
    """The job whose turn it is, in the hands of ``gateway``. What somebody had in hand who lives no more is free again:
    when the lease is over, or at once when it was an earlier life of this gateway."""
    at = moment(connection)
    dead = or_(
        jobs.c.lease_until <= at, and_(jobs.c.gateway == gateway.name, jobs.c.incarnation != gateway.incarnation)
    )
    free = or_(
        and_(jobs.c.status == JobStatus.QUEUED.value, jobs.c.due_at <= at),
        and_(jobs.c.status == JobStatus.RUNNING.value, dead),
    )
    first = select(jobs.c.id).where(free).order_by(jobs.c.rank_at, jobs.c.id).limit(1).with_for_update(skip_locked=True)
    job_id = (await connection.execute(first)).scalar_one_or_none()
    if job_id is None:
        return None
    taken = {
        "status": JobStatus.RUNNING.value,
        "gateway": gateway.name,
        "incarnation": gateway.incarnation,
        "lease_token": jobs.c.lease_token + 1,
        "lease_until": moment(connection, lifetime),
        "started_at": func.coalesce(jobs.c.started_at, now()),
    }
    query = update(jobs).where(jobs.c.id == job_id).values(**taken).returning(*_JOB)
    return _job((await connection.execute(query)).one())


async def hold(connection: AsyncConnection, job: Job) -> Job:
    """Until this transaction ends, nobody else can take ``job`` over. As it is now.

    Raises:
        LeaseLost: somebody has, or has ended it.
    """
    row = (await connection.execute(select(*_JOB).where(_is_in_hand(job)).with_for_update())).one_or_none()
    if row is None:
        raise LeaseLost(f"the job {job.id} is somebody else's by now", job_id=job.id)
    return _job(row)


async def change(connection: AsyncConnection, job: Job, **values: Any) -> Job | None:
    """Write what has become of a job that is in hand; None when somebody else has it."""
    query = update(jobs).where(_is_in_hand(job)).values(**values).returning(*_JOB)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _job(row)


async def renew(connection: AsyncConnection, job: Job, tokens: int, lifetime: timedelta) -> Job | None:
    """Keep a job in hand, and say how far it is."""
    return await change(connection, job, tokens=tokens, lease_until=moment(connection, lifetime))


async def late(connection: AsyncConnection) -> list[Job]:
    """Jobs that wait and whose time is over, locked for this transaction."""
    over = jobs.c.deadline_at <= moment(connection)
    query = select(*_JOB).where(jobs.c.status == JobStatus.QUEUED.value, over).limit(AT_ONCE)
    return [_job(row) for row in await connection.execute(query.with_for_update(skip_locked=True))]


async def end(connection: AsyncConnection, job: Job, **values: Any) -> Job | None:
    """A job that waits, or that is in hand, has ended; None when something else has become of it."""
    waits = (jobs.c.id == job.id) & (jobs.c.status == job.status.value) & (jobs.c.lease_token == job.lease_token)
    query = update(jobs).where(waits).values(**values, sealed_request=None).returning(*_JOB)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _job(row)


async def forget(connection: AsyncConnection) -> int:
    """Jobs whose time to be read is over are deleted, with all that was sent of them. How many."""
    return (await connection.execute(delete(jobs).where(jobs.c.expires_at <= moment(connection)))).rowcount


def _is_in_hand(job: Job) -> ColumnElement[bool]:
    running = jobs.c.status == JobStatus.RUNNING.value
    return (jobs.c.id == job.id) & (jobs.c.lease_token == job.lease_token) & running


def _job(row: Any) -> Job:
    return Job(**{**row._asdict(), "status": JobStatus(row.status)})


# ---- webhooks


async def secret_of(connection: AsyncConnection, wallet: str) -> bytes | None:
    """The secrets with which messages to ``wallet`` are signed, encrypted."""
    query = select(webhook_secrets.c.sealed).where(webhook_secrets.c.wallet_address == wallet)
    found: bytes | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def put_secret(connection: AsyncConnection, wallet: str, sealed: bytes) -> None:
    """Other ones from now on."""
    values = {"sealed": sealed, "made_at": now()}
    await connection.execute(insert_if_absent(connection, webhook_secrets).values(wallet_address=wallet, **values))
    mine = webhook_secrets.c.wallet_address == wallet
    await connection.execute(update(webhook_secrets).where(mine).values(**values))


async def add_delivery(connection: AsyncConnection, job: Job, event: str) -> None:
    """A message of a job's end is to be sent."""
    values = {"id": f"msg_{secrets.token_hex(12)}", "job_id": job.id, "wallet_address": job.wallet_address}
    status, at = DeliveryStatus.PENDING.value, now()
    new = insert(webhook_deliveries).values(**values, event=event, status=status, created_at=at, due_at=at)
    await connection.execute(new)


async def claim_delivery(connection: AsyncConnection, lifetime: timedelta, without: Sequence[str]) -> Delivery | None:
    """The message that has waited longest, of nobody who is in ``without``. Until its ``lifetime`` is over nobody else
    gets it; who dies meanwhile leaves it to be sent again."""
    due = (webhook_deliveries.c.status == DeliveryStatus.PENDING.value) & (
        webhook_deliveries.c.due_at <= moment(connection)
    )
    first = select(webhook_deliveries.c.id).where(due, webhook_deliveries.c.wallet_address.not_in(without))
    ordered = first.order_by(webhook_deliveries.c.due_at).limit(1).with_for_update(skip_locked=True)
    delivery_id = (await connection.execute(ordered)).scalar_one_or_none()
    if delivery_id is None:
        return None
    taken = {"lease_token": webhook_deliveries.c.lease_token + 1, "due_at": moment(connection, lifetime)}
    mine = webhook_deliveries.c.id == delivery_id
    query = update(webhook_deliveries).where(mine).values(**taken).returning(*_DELIVERY)
    return _delivery((await connection.execute(query)).one())


async def note_attempt(
    connection: AsyncConnection, delivery: Delivery, tried: Tried, status: DeliveryStatus, again: timedelta
) -> None:
    """What came of sending it, and when to do so again if that is to be. Nothing, when somebody else has it by now."""
    is_over = status is not DeliveryStatus.PENDING
    values = {"status": status.value, "attempts": delivery.attempts + 1, "ended_at": now() if is_over else None}
    mine = (webhook_deliveries.c.id == delivery.id) & (webhook_deliveries.c.lease_token == delivery.lease_token)
    noted = update(webhook_deliveries).where(mine).values(**values, due_at=moment(connection, again))
    if (await connection.execute(noted)).rowcount:
        row = {"at": tried.at, "ms": tried.ms, "http_status": tried.http_status, "error_code": tried.error_code}
        await connection.execute(insert(webhook_attempts).values(delivery_id=delivery.id, **row))


async def deliveries_of(connection: AsyncConnection, job_id: str) -> list[tuple[Delivery, list[Tried]]]:
    """The messages of a job and each time they were sent, the oldest first."""
    query = select(*_DELIVERY).where(webhook_deliveries.c.job_id == job_id).order_by(webhook_deliveries.c.created_at)
    found = [_delivery(row) for row in await connection.execute(query)]
    columns = [webhook_attempts.c[field.name] for field in fields(Tried)]
    tried = []
    for delivery in found:
        mine = select(*columns).where(webhook_attempts.c.delivery_id == delivery.id).order_by(webhook_attempts.c.id)
        tried.append((delivery, [Tried(**row._asdict()) for row in await connection.execute(mine)]))
    return tried


def _delivery(row: Any) -> Delivery:
    return Delivery(**{**row._asdict(), "status": DeliveryStatus(row.status)})
