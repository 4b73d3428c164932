"""Payment channels in SQL: what was put in, promised, earned and redeemed. Every change is a compare-and-set.

Functions take a connection of :meth:`Database.writing`; the caller books in the same transaction.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, delete, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.payments.errors import ChannelClosing, ChannelUnknown, VoucherNeeded
from far_mesh.marketplace.payments.tables import payment_channels
from far_mesh.marketplace.payments.vouchers import Channel, Domain, Voucher, check

_COLUMNS = [payment_channels.c[one.name if one.name != "user" else "user_wallet"] for one in fields(Channel)]


async def find(connection: AsyncConnection, domain: Domain, channel_id: str) -> Channel:
    """The channel.

    Raises:
        ChannelUnknown: there is none of that id in this escrow.
    """
    row = (await connection.execute(select(*_COLUMNS).where(_is(domain, channel_id)))).first()
    if row is None:
        raise ChannelUnknown("no such payment channel is known here; open one, and wait for its confirmations")
    return Channel(*row)


async def opened(connection: AsyncConnection, domain: Domain, channel: Channel) -> bool:
    """The chain has announced a channel. False: that was known.

    Raises:
        Conflict: another one is known under its id: of another escrow, user or key.
    """
    await connection.execute(
        insert_if_absent(connection, payment_channels).values(
            channel_id=channel.channel_id,
            chain_id=domain.chain_id,
            escrow_address=domain.escrow,
            user_wallet=channel.user,
            signer=channel.signer,
            deposit_units=0,
            promised_units=0,
            earned_units=0,
            redeemed_units=0,
            opened_at=now(),
            changed_at=now(),
        )
    )
    try:
        known = await find(connection, domain, channel.channel_id)
    except ChannelUnknown:
        raise Conflict("this channel is known as one of another escrow") from None
    if (known.user, known.signer) != (channel.user, channel.signer):
        raise Conflict("another channel is known under this id")
    return await topped_up(connection, domain, channel.channel_id, channel.deposit_units)


async def topped_up(connection: AsyncConnection, domain: Domain, channel_id: str, deposit_units: int) -> bool:
    """The chain says that ``deposit_units`` were put in, in all. False: as much was known."""
    less = payment_channels.c.deposit_units < deposit_units
    return await _change(connection, _is(domain, channel_id) & less, deposit_units=deposit_units)


async def accept(connection: AsyncConnection, domain: Domain, voucher: Voucher) -> int:
    """Take a voucher, and return how many units it adds to what was promised before. Of several that race for one
    channel each is weighed against those that were taken before it, so the sum of all answers is the highest voucher.

    Raises:
        ChannelUnknown, ChannelClosing, VoucherStale, VoucherTooHigh, VoucherForged: see :func:`~.vouchers.check`.
    """
    while True:
        channel = await find(connection, domain, voucher.channel_id)
        added = check(domain, channel, voucher)
        unchanged = (
            _is(domain, voucher.channel_id)
            & (payment_channels.c.promised_units == channel.promised_units)
            & payment_channels.c.closes_at.is_(None)
        )
        if await _change(connection, unchanged, promised_units=voucher.units, signature=voucher.signature):
            return added


async def earn(connection: AsyncConnection, domain: Domain, channel_id: str, units: int, *, step_units: int) -> Channel:
    """Count ``units`` as served, before they are: whoever cannot count them does not serve them. This is
    :func:`~.vouchers.may_serve` as one statement, for all gateways together.

    Raises:
        VoucherNeeded: a voucher has to come first; ``promise_units`` says for how much at least.
        ChannelUnknown, ChannelClosing: nothing is served over this channel.
    """
    after = payment_channels.c.earned_units + units
    covered = after <= payment_channels.c.promised_units + step_units
    fits = after <= payment_channels.c.deposit_units
    may = _is(domain, channel_id) & covered & fits & payment_channels.c.closes_at.is_(None)
    earned = await _change(connection, may, earned_units=after)
    channel = await find(connection, domain, channel_id)
    if earned:
        return channel
    if channel.closes_at is not None:
        raise ChannelClosing("this channel is being closed: nothing more is served over it")
    needed = channel.earned_units + units
    raise VoucherNeeded(
        f"sign a voucher for {needed} units before more is served"
        if needed <= channel.deposit_units
        else f"{needed} units are needed and {channel.deposit_units} lie in the channel: top it up",
        channel_id=channel_id,
        promise_units=needed,
        deposit_units=channel.deposit_units,
    )


async def uncaptured(connection: AsyncConnection, channel_id: str) -> int:
    """How much of what was promised no request has captured yet. Nobody else captures until this transaction ends."""
    table = payment_channels.c
    query = select(table.promised_units - table.captured_units).where(table.channel_id == channel_id).with_for_update()
    found: int = (await connection.execute(query)).scalar_one()
    return max(0, found)


async def captured(connection: AsyncConnection, channel_id: str, cost_units: int, counted_units: int) -> None:
    """A request has ended: of ``counted_units`` that :func:`earn` counted for it, it did cost ``cost_units``, and the
    rest is uncounted. Belongs behind :func:`uncaptured`, which says how much it may cost."""
    table = payment_channels.c
    await connection.execute(
        update(payment_channels)
        .where(table.channel_id == channel_id)
        .values(
            captured_units=table.captured_units + cost_units,
            # Never below what was taken out on chain, which the books may have learnt from the chain alone.
            earned_units=_at_least(table.earned_units - (counted_units - cost_units), table.redeemed_units),
            changed_at=now(),
        )
    )


async def of_user(connection: AsyncConnection, domain: Domain, wallet: str) -> list[Channel]:
    """The channels of a user in this escrow, those with the most left first."""
    table = payment_channels.c
    here = (table.chain_id == domain.chain_id) & (table.escrow_address == domain.escrow)
    query = select(*_COLUMNS).where(here & (table.user_wallet == wallet))
    rows = await connection.execute(query.order_by((table.deposit_units - table.earned_units).desc(), table.channel_id))
    return [Channel(*row) for row in rows]


async def redeemable(
    connection: AsyncConnection, domain: Domain, limit: int, *, closing_only: bool = False
) -> list[tuple[Channel, int]]:
    """Channels with something to redeem, those that are closing first and then those with the most: each with what
    can be claimed with its signature, in all, which is what requests that have ended did cost."""
    table = payment_channels.c
    here = (table.chain_id == domain.chain_id) & (table.escrow_address == domain.escrow) & table.closed_at.is_(None)
    claimable = case((table.captured_units < table.promised_units, table.captured_units), else_=table.promised_units)
    owed = claimable - table.redeemed_units
    query = (
        select(*_COLUMNS, claimable)
        .where(here & (owed > 0) & table.signature.is_not(None))
        .order_by(table.closes_at.is_(None), table.closes_at, owed.desc())
        .limit(limit)
    )
    if closing_only:
        query = query.where(table.closes_at.is_not(None))
    return [(Channel(*row[:-1]), row[-1]) for row in await connection.execute(query)]


async def redeemed(connection: AsyncConnection, domain: Domain, channel_id: str, redeemed_units: int) -> bool:
    """The chain says that ``redeemed_units`` were taken out, in all. False: as much was known.

    Where the books had lost the voucher (an old backup), they learn from the chain that it was promised and earned."""
    table = payment_channels.c
    less = table.redeemed_units < redeemed_units
    return await _change(
        connection,
        _is(domain, channel_id) & less,
        redeemed_units=redeemed_units,
        promised_units=_at_least(table.promised_units, redeemed_units),
        earned_units=_at_least(table.earned_units, redeemed_units),
    )


async def unredeemed(
    connection: AsyncConnection, domain: Domain, channel_id: str, redeemed_units: int, before_units: int
) -> None:
    """The chain has given up the block in which ``redeemed_units`` had been taken out: it is ``before_units`` again,
    unless more was taken out since."""
    as_then = payment_channels.c.redeemed_units == redeemed_units
    await _change(connection, _is(domain, channel_id) & as_then, redeemed_units=before_units)


async def to_net(connection: AsyncConnection, domain: Domain) -> dict[str, int]:
    """By channel, what was redeemed and is in no batch: so much of its requests can be paid out of the pool."""
    table = payment_channels.c
    here = (table.chain_id == domain.chain_id) & (table.escrow_address == domain.escrow)
    left = table.redeemed_units - table.netted_units
    return {row[0]: row[1] for row in await connection.execute(select(table.channel_id, left).where(here & (left > 0)))}


async def net(connection: AsyncConnection, domain: Domain, channel_id: str, units: int) -> None:
    """So much of what was redeemed is in a batch now; less than nothing when the batch was given up."""
    netted = payment_channels.c.netted_units + units
    await _change(connection, _is(domain, channel_id), netted_units=netted)


async def closing(connection: AsyncConnection, domain: Domain, channel_id: str, closes_at: datetime) -> bool:
    """The user has started to close the channel: nothing is accepted or served any more. False: that was known."""
    still_open = payment_channels.c.closes_at.is_(None)
    return await _change(connection, _is(domain, channel_id) & still_open, closes_at=closes_at)


async def closed(connection: AsyncConnection, domain: Domain, channel_id: str) -> bool:
    """What was left has gone back to the user: nothing can be redeemed any more. False: that was known."""
    not_yet = payment_channels.c.closed_at.is_(None)
    return await _change(connection, _is(domain, channel_id) & not_yet, closed_at=now())


async def taken_back(
    connection: AsyncConnection,
    domain: Domain,
    channel_id: str,
    *,
    deposit_units: int,
    redeemed_units: int | None,
    closes_at: datetime | None,
    closed_at: datetime | None,
) -> None:
    """The chain has given up a block with something about this channel: this is what it says now. ``redeemed_units``:
    None when that has not changed. What was promised and served for money that has gone stays promised and served; a
    channel that was never opened and never used is forgotten."""
    table = payment_channels.c
    least = _at_least(_at_least(table.promised_units, table.earned_units), deposit_units)
    values: dict[str, Any] = {"deposit_units": least, "closes_at": closes_at, "closed_at": closed_at}
    if redeemed_units is not None:
        values["redeemed_units"] = redeemed_units
    await _change(connection, _is(domain, channel_id), **values)
    await connection.execute(delete(payment_channels).where(_is(domain, channel_id) & (table.deposit_units == 0)))


def _at_least(column: ColumnElement[int], units: int | ColumnElement[int]) -> ColumnElement[int]:
    least = literal(units, BigInteger) if isinstance(units, int) else units
    return case((column < least, least), else_=column)


def _is(domain: Domain, channel_id: str) -> ColumnElement[bool]:
    table = payment_channels.c
    return (
        (table.channel_id == channel_id) & (table.chain_id == domain.chain_id) & (table.escrow_address == domain.escrow)
    )


async def _change(connection: AsyncConnection, where: ColumnElement[bool], **values: Any) -> bool:
    statement = update(payment_channels).where(where).values(**values, changed_at=now())
    return (await connection.execute(statement)).rowcount == 1
