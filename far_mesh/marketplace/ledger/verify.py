"""The books recomputed from their lines, and compared with everything that was noted beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

from sqlalchemy import BigInteger, ColumnElement, Table, and_, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.ledger.schemas import MAY_BE_NEGATIVE, Book, Told
from far_mesh.marketplace.sessions.schemas import OPEN, Status
from far_mesh.marketplace.tables import (
    accounts,
    balance_checkpoints,
    entries,
    inference_sessions,
    node_contributions,
    node_registry,
    postings,
)

BY_CHAIN = (
    *("withdrawal_seen", "channel_funded", "channel_closed", "escrow_locked"),
    *(told.vanished for told in Told),
)
"""Kinds of postings that tell what a user has done on chain: they are booked whatever is left."""


@dataclass(frozen=True)
class Finding:
    """Something that disagrees. ``about`` is what it is about: a posting's key, an account, a request, a node."""

    kind: str
    about: str
    message: str

    def as_facts(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """How much there was to recompute, and what disagrees."""

    postings: int
    lines: int
    accounts: int
    checkpoints: int
    findings: tuple[Finding, ...]


async def verify(connection: AsyncConnection) -> Report:
    """Recompute all sums. ``connection`` should be a snapshot, or what is written meanwhile looks like a mistake."""
    findings = [finding for check in _CHECKS async for finding in check(connection)]
    return Report(
        postings=await _count(connection, postings),
        lines=await _count(connection, entries),
        accounts=await _count(connection, accounts),
        checkpoints=await _count(connection, balance_checkpoints),
        findings=tuple(findings),
    )


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


async def _postings_balance(connection: AsyncConnection) -> AsyncIterator[Finding]:
    total = func.sum(entries.c.amount_units)
    query = (
        select(postings.c.idempotency_key, total)
        .join(entries, entries.c.posting_id == postings.c.id)
        .group_by(postings.c.id, postings.c.idempotency_key)
        .having(total != 0)
    )
    for key, units in await connection.execute(query):
        yield Finding("unbalanced_posting", key, f"its lines sum up to {units} units")


async def _accounts_are_not_negative(connection: AsyncConnection) -> AsyncIterator[Finding]:
    total = func.sum(entries.c.amount_units)
    # What the chain took from a deposit has happened, whatever was in it.
    taken = postings.c.kind.in_(BY_CHAIN) & (entries.c.amount_units < 0)
    by_chain = case((taken, entries.c.amount_units), else_=0)
    is_users = accounts.c.kind.in_([Book.USER_DEPOSIT.value, Book.USER_CHANNEL.value])
    query = (
        select(accounts.c.kind, accounts.c.owner, total)
        .join(entries, entries.c.account_id == accounts.c.id)
        .join(postings, postings.c.id == entries.c.posting_id)
        .where(accounts.c.kind.not_in([book.value for book in MAY_BE_NEGATIVE]))
        .group_by(accounts.c.id, accounts.c.kind, accounts.c.owner)
        .having(and_(total < 0, or_(~is_users, total < func.sum(by_chain))))
    )
    for kind, owner, units in await connection.execute(query):
        yield Finding("negative_account", f"{kind} of {owner}", f"there are {units} units in it")


async def _checkpoints_are_sums(connection: AsyncConnection) -> AsyncIterator[Finding]:
    summed = (
        select(func.coalesce(func.sum(entries.c.amount_units), 0))
        .where(
            entries.c.account_id == balance_checkpoints.c.account_id,
            entries.c.id <= balance_checkpoints.c.through_entry_id,
        )
        .scalar_subquery()
    )
    newest = select(func.coalesce(func.max(entries.c.id), 0)).scalar_subquery()
    query = (
        select(accounts.c.kind, accounts.c.owner, balance_checkpoints.c.balance_units, cast(summed, BigInteger))
        .join(balance_checkpoints, balance_checkpoints.c.account_id == accounts.c.id)
        .where(
            or_(
                balance_checkpoints.c.balance_units != summed,
                balance_checkpoints.c.through_entry_id > newest,
            )
        )
    )
    for kind, owner, noted, units in await connection.execute(query):
        yield Finding("wrong_checkpoint", f"{kind} of {owner}", f"{noted} units were noted, its lines say {units}")


async def _every_end_has_a_beginning(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """What is held and in flight is exactly what was not ended."""
    begun = postings.alias("begun")
    ended = postings.alias("ended")
    for book, beginnings, ends in (
        (Book.USER_HOLD, ("hold",), ("capture", "release_hold")),
        (Book.IN_FLIGHT, ("payout_sent", "payout_vanished"), ("payout_confirmed", "payout_returned")),
    ):
        # the keys of an end are those of its beginning with another word in the place of the last or the first one
        is_its_end = ended.c.idempotency_key == (
            func.replace(begun.c.idempotency_key, "hold:", "close:")
            if book is Book.USER_HOLD
            else func.replace(func.replace(begun.c.idempotency_key, ":sent", ":end"), ":vanished:", ":end:")
        )
        open_units = (
            select(accounts.c.id, _sum(entries.c.amount_units).label("units"))
            .select_from(begun)
            .outerjoin(ended, and_(is_its_end, ended.c.kind.in_(ends)))
            .join(entries, entries.c.posting_id == begun.c.id)
            .join(accounts, accounts.c.id == entries.c.account_id)
            .where(begun.c.kind.in_(beginnings), ended.c.id.is_(None), accounts.c.kind == book.value)
            .group_by(accounts.c.id)
            .subquery()
        )
        balance = _sum(entries.c.amount_units)
        expected = func.coalesce(open_units.c.units, 0)
        query = (
            select(accounts.c.kind, accounts.c.owner, balance, expected)
            .join(entries, entries.c.account_id == accounts.c.id)
            .outerjoin(open_units, open_units.c.id == accounts.c.id)
            .where(accounts.c.kind == book.value)
            .group_by(accounts.c.id, accounts.c.kind, accounts.c.owner, open_units.c.units)
            .having(balance != expected)
        )
        for kind, owner, units, should in await connection.execute(query):
            yield Finding(
                "open_amount", f"{kind} of {owner}", f"{units} units are in it, what was not ended is {should}"
            )


def _closing(book: Book) -> ColumnElement[int]:
    return _sum(case((accounts.c.kind == book.value, entries.c.amount_units), else_=0))


async def _sessions_are_what_was_booked(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """``inference_sessions`` against the postings of its requests."""
    booked = (
        select(
            postings.c.request_id,
            (-_closing(Book.USER_HOLD)).label("held"),
            (_closing(Book.USER_DEPOSIT) + _closing(Book.USER_CHANNEL)).label("refund"),
            _closing(Book.PLATFORM_FEE).label("fee"),
            _closing(Book.PROVIDER_EARNED).label("paid"),
        )
        .join(entries, entries.c.posting_id == postings.c.id)
        .join(accounts, accounts.c.id == entries.c.account_id)
        .where(postings.c.kind.in_(["capture", "release_hold", "service_credit", "credit_spent"]))
        .group_by(postings.c.request_id)
        .subquery()
    )
    session = inference_sessions.c
    is_open = session.status.in_([status.value for status in OPEN])
    agrees = and_(
        booked.c.held == session.held_units,
        booked.c.refund == session.refund_units,
        booked.c.fee == session.fee_units,
        booked.c.paid + booked.c.fee == session.total_cost_units,
    )
    query = (
        select(session.request_id, session.status)
        .outerjoin(booked, booked.c.request_id == session.request_id)
        .where(
            or_(
                and_(is_open, booked.c.request_id.is_not(None)),
                and_(~is_open, or_(booked.c.request_id.is_(None), ~agrees)),
            )
        )
    )
    for request_id, status in await connection.execute(query):
        yield Finding(
            "session", request_id, f"inference_sessions has it as {status}, with other amounts than the books"
        )


async def _credits_are_what_was_promised(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """What ``inference_sessions`` say of missed promises against the postings that made up for them."""
    session = inference_sessions.c
    to_user = accounts.c.kind.in_([Book.USER_DEPOSIT.value, Book.USER_CHANNEL.value, Book.USER_CREDIT.value])
    is_given = (postings.c.kind == "service_credit") & to_user
    is_spent = (postings.c.kind == "credit_spent") & (accounts.c.kind == Book.CREDITS.value)
    booked = (
        select(
            postings.c.request_id,
            _sum(case((is_given, entries.c.amount_units), else_=0)).label("given"),
            _sum(case((is_spent, entries.c.amount_units), else_=0)).label("spent"),
        )
        .join(entries, entries.c.posting_id == postings.c.id)
        .join(accounts, accounts.c.id == entries.c.account_id)
        .where(postings.c.kind.in_(["service_credit", "credit_spent"]))
        .group_by(postings.c.request_id)
        .subquery()
    )
    agrees = and_(
        func.coalesce(booked.c.given, 0) == session.credit_units,
        func.coalesce(booked.c.spent, 0) == session.spent_credit_units,
        or_(session.credit_units == 0, func.coalesce(session.service_level_met, True).is_(False)),
    )
    query = select(session.request_id).outerjoin(booked, booked.c.request_id == session.request_id).where(~agrees)
    for (request_id,) in await connection.execute(query):
        yield Finding("credit", request_id, "what it gave back for a missed promise is not what the books say")


async def _contributions_are_what_was_earned(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """``node_contributions`` against what was captured for wallets, request by request."""
    told = (
        select(
            inference_sessions.c.request_id,
            node_contributions.c.wallet_address.label("wallet"),
            _sum(node_contributions.c.payment_units).label("units"),
        )
        .join(node_contributions, node_contributions.c.session_id == inference_sessions.c.id)
        .where(inference_sessions.c.status == Status.COMPLETED.value, node_contributions.c.payment_units != 0)
        .group_by(inference_sessions.c.request_id, node_contributions.c.wallet_address)
        .subquery()
    )
    earned = (
        select(postings.c.request_id, accounts.c.owner.label("wallet"), entries.c.amount_units.label("units"))
        .join(entries, entries.c.posting_id == postings.c.id)
        .join(accounts, accounts.c.id == entries.c.account_id)
        .join(inference_sessions, inference_sessions.c.request_id == postings.c.request_id)
        .where(postings.c.kind == "capture", accounts.c.kind == Book.PROVIDER_EARNED.value)
        .subquery()
    )
    same = and_(told.c.request_id == earned.c.request_id, told.c.wallet == earned.c.wallet)
    for left, right in ((told, earned), (earned, told)):
        query = (
            select(left.c.request_id, left.c.wallet)
            .outerjoin(right, same)
            .where(or_(right.c.units.is_(None), right.c.units != left.c.units))
        )
        for request_id, wallet in await connection.execute(query):
            yield Finding("contribution", request_id, f"what {wallet} earned is not what node_contributions says")


async def _registry_is_the_sum(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """``node_registry`` against ``node_contributions``."""
    units = _sum(node_contributions.c.payment_units)
    tokens = _sum(node_contributions.c.tokens_contributed)
    registered = node_registry.c
    query = (
        select(registered.node_id)
        .outerjoin(node_contributions, node_contributions.c.node_id == registered.node_id)
        .group_by(registered.node_id, registered.total_earned_units, registered.total_tokens_served)
        .having(or_(units != registered.total_earned_units, tokens != registered.total_tokens_served))
    )
    for (node_id,) in await connection.execute(query):
        yield Finding("registry", node_id, "its totals are not the sums of its contributions")


Check = Callable[[AsyncConnection], AsyncIterator[Finding]]

_CHECKS: tuple[Check, ...] = (
    _postings_balance,
    _accounts_are_not_negative,
    _checkpoints_are_sums,
    _every_end_has_a_beginning,
    _sessions_are_what_was_booked,
    _credits_are_what_was_promised,
    _contributions_are_what_was_earned,
    _registry_is_the_sum,
)
