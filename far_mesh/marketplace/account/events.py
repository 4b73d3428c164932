"""What the chain says of users' money, in the books: the one place where it is booked, and booked back.

Whoever sees an event first books it, under a name that is its transaction, its place and the hash of its block. An
event whose block was given up is taken back by the posting with the other signs; in another block it counts again,
under another name. All functions are for a transaction that holds the cursor (:mod:`.repository`).

A user's deposit on chain changes by what the user does, too: channels, and escrows that no request of ours asked for.
Both leave the deposit and come back to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.account import repository
from far_mesh.marketplace.account.repository import BookedEvent, NewEvent
from far_mesh.marketplace.chain.amounts import WEI_PER_UNIT, wei_to_units, wei_to_units_up
from far_mesh.marketplace.chain.client import EscrowEvent
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Told
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.provider import Deposit
from far_mesh.marketplace.payments.vouchers import Channel, Domain

DEPOSITED = "Deposited"
TRANSFERRED = "Transferred"
"""A deposit by plain transfer; this is no event of a contract."""

_OF_CHANNELS = ("ChannelOpened", "ChannelToppedUp", "VoucherRedeemed", "ChannelClosing", "ChannelClosed")
_OF_ESCROWS = ("EscrowCreated", "EscrowReleased", "EscrowCancelled")
WATCHED = (DEPOSITED, "DepositWithdrawn", *_OF_CHANNELS, *_OF_ESCROWS)

_TOLD: Mapping[str, tuple[Told, ...]] = {
    DEPOSITED: (Told.DEPOSIT,),
    TRANSFERRED: (Told.DEPOSIT,),
    "DepositWithdrawn": (Told.WITHDRAWAL,),
    "ChannelOpened": (Told.CHANNEL_FUNDED,),
    "ChannelToppedUp": (Told.CHANNEL_FUNDED,),
    "ChannelClosed": (Told.CHANNEL_CLOSED,),
    "EscrowCreated": (Told.ESCROW_LOCKED,),
    "EscrowReleased": (Told.ESCROW_RETURNED,),
    "EscrowCancelled": (Told.ESCROW_RETURNED,),
}
"""What a kind of event is booked as."""

_FUNDS_CHANNEL = ("ChannelOpened", "ChannelToppedUp")

log = structlog.get_logger(__name__)


def units_of(row: BookedEvent) -> int:
    """By how many units the deposit of its wallet was changed when it was booked."""
    return int(_detail(row, "units")) if row.kind == TRANSFERRED else wei_to_units(row.amount)


def tx_id_of(row: BookedEvent) -> str:
    """The transaction that did it, as the chain calls it."""
    return _detail(row, "tx_id") if row.kind == TRANSFERRED else row.tx_hash


@dataclass(frozen=True)
class _Change:
    """What an event means: whose deposit changes by how many wei, and which channel or escrow it is about."""

    wallet: str
    wei: int
    about: str | None = None


@dataclass(frozen=True)
class _ChannelTold:
    """What the chain says of a channel, all its events together."""

    deposit_units: int
    redeemed_units: int
    closes_at: datetime | None
    closed_at: datetime | None


async def follow(
    connection: AsyncConnection, domain: Domain, first_block: int, last_block: int, seen: Sequence[EscrowEvent]
) -> None:
    """Make the books say of these blocks, both included, what ``seen`` says: all that the escrow announced there."""
    there = {(event.tx_hash, event.log_index): event.block_hash for event in seen}
    for row in reversed(await repository.live_between(connection, first_block, last_block)):
        block_hash = there.get((row.tx_hash, row.log_index))
        if block_hash is None or row.block_hash not in (None, block_hash):
            await take_back(connection, domain, row)
    for event in seen:
        await book(connection, domain, event)


async def book(connection: AsyncConnection, domain: Domain, event: EscrowEvent) -> bool:
    """One event, in the books. False: it was booked before, or changes no money of a user. Dust below one unit is
    never made into money."""
    for row in reversed(await repository.live_of(connection, event.tx_hash)):
        if (row.block_hash or event.block_hash, row.block_number) != (event.block_hash, event.block_number):
            # Its transaction has moved to another block since. Rows of earlier versions know the number alone.
            await take_back(connection, domain, row)
    change = await _change(connection, event)
    if change is None:
        return False
    new = _new_event(event, change)
    name = await _free_name(connection, event.tx_hash, f"{event.tx_hash}:{event.log_index}@{event.block_hash}")
    if not await repository.add_event(connection, new, name):
        return False
    await _post(connection, domain, event, change, name)
    log.info("chain_event_booked", kind=event.name, wallet=change.wallet, tx_hash=event.tx_hash)
    return True


async def book_transfer(connection: AsyncConnection, wallet: str, tx_id: str, deposit: Deposit) -> bool:
    """A deposit by plain transfer, credited to ``wallet``. False: it was booked before.

    Raises:
        Conflict: it was credited to another account.
    """
    for row in await repository.live_of(connection, deposit.deposit_id):
        if row.wallet_address != wallet:
            raise Conflict(f"this deposit was credited to {row.wallet_address}", wallet=row.wallet_address)
        if (row.block_number, row.block_hash) != (deposit.block.number, deposit.block.hash):
            await repository.mark_moved(connection, row, deposit.block.number, deposit.block.hash)
        return False
    new = NewEvent(
        deposit.deposit_id,
        0,
        deposit.block.number,
        deposit.block.hash,
        TRANSFERRED,
        wallet,
        deposit.atoms,
        None,
        {"tx_id": tx_id, "payer": deposit.payer, "units": str(deposit.units)},
    )
    name = await _free_name(connection, deposit.deposit_id, deposit.deposit_id)
    await repository.add_event(connection, new, name)
    await ledger.deposit_seen(connection, wallet, deposit.units, name)
    log.info("deposit_booked", wallet=wallet, tx_id=tx_id)
    return True


async def take_back(connection: AsyncConnection, domain: Domain | None, row: BookedEvent) -> None:
    """An event that is no part of the chain any more: the books as if it had not been. ``domain`` is that of the
    escrow, if there is one."""
    if not await repository.mark_vanished(connection, row):
        return
    for told in _TOLD.get(row.kind, ()):
        await ledger.event_vanished(connection, told, row.booked_as)
    if row.kind in _FUNDS_CHANNEL and row.amount % WEI_PER_UNIT:
        await ledger.event_vanished(connection, Told.WITHDRAWAL, row.booked_as)
    if row.kind in _OF_CHANNELS and row.about is not None and domain is not None:
        said = await _channel_told(connection, row.about)
        await channels.taken_back(
            connection,
            domain,
            row.about,
            deposit_units=said.deposit_units,
            redeemed_units=said.redeemed_units if row.kind == "VoucherRedeemed" else None,
            closes_at=said.closes_at,
            closed_at=said.closed_at,
        )
    log.warning("chain_event_vanished", kind=row.kind, wallet=row.wallet_address, tx_hash=row.tx_hash)


async def _free_name(connection: AsyncConnection, tx_hash: str, name: str) -> str:
    """``name``, or with a number behind it when that was booked, and taken back, before: a block may return."""
    times = await repository.times_booked(connection, tx_hash, name)
    return f"{name}~{times + 1}" if times else name


# ---- what an event means


async def _change(connection: AsyncConnection, event: EscrowEvent) -> _Change | None:
    said = event.fields
    match event.name:
        case "Deposited":
            return _Change(said["user"], said["amount"])
        case "DepositWithdrawn":
            return _Change(said["user"], -said["amount"])
        case "ChannelOpened":
            return _Change(said["user"], -said["amount"], said["channelId"])
        case "EscrowCreated":
            if await repository.is_our_escrow(connection, said["escrowId"], event.tx_hash):
                return None  # the hold of its request has taken it from the deposit
            return _Change(said["user"], -said["amount"], said["escrowId"])
        case "EscrowReleased" | "EscrowCancelled":
            return await _follow_up(connection, "EscrowCreated", said["escrowId"], said["refund"])
        case "ChannelToppedUp":
            return await _follow_up(connection, "ChannelOpened", said["channelId"], -said["amount"])
        case "ChannelClosed":
            return await _follow_up(connection, "ChannelOpened", said["channelId"], said["refund"])
        case _:
            return await _follow_up(connection, "ChannelOpened", said["channelId"], 0)


async def _follow_up(connection: AsyncConnection, beginning: str, about: str, wei: int) -> _Change | None:
    """The change by an event that names only its channel or escrow: none when its beginning was not booked."""
    begun = await repository.live_about(connection, about, [beginning])
    return _Change(begun[0].wallet_address, wei, about) if begun else None


def _new_event(event: EscrowEvent, change: _Change) -> NewEvent:
    kept = ("signer", "closesAt", "totalClaimed")
    detail = {name: str(value) for name, value in event.fields.items() if name in kept}
    return NewEvent(
        event.tx_hash,
        event.log_index,
        event.block_number,
        event.block_hash,
        event.name,
        change.wallet,
        change.wei,
        change.about,
        detail,
    )


# ---- the postings


async def _post(connection: AsyncConnection, domain: Domain, event: EscrowEvent, change: _Change, name: str) -> None:
    wallet, wei = change.wallet, change.wei
    match event.name:
        case "Deposited":
            await ledger.deposit_seen(connection, wallet, wei_to_units(wei), name)
        case "DepositWithdrawn":
            await ledger.withdrawal_seen(connection, wallet, wei_to_units_up(-wei), name)
        case "EscrowCreated":
            await ledger.escrow_locked(connection, wallet, wei_to_units_up(-wei), name)
        case "EscrowReleased" | "EscrowCancelled":
            await ledger.escrow_returned(connection, wallet, wei_to_units(wei), name)
        case _:
            await _post_of_channel(connection, domain, event, change, name)


async def _post_of_channel(
    connection: AsyncConnection, domain: Domain, event: EscrowEvent, change: _Change, name: str
) -> None:
    channel_id, wallet = str(change.about), change.wallet
    said = await _channel_told(connection, channel_id)
    match event.name:
        case "ChannelOpened":
            await _fund(connection, wallet, -change.wei, name)
            await _open(connection, domain, Channel(channel_id, wallet, event.fields["signer"], said.deposit_units))
        case "ChannelToppedUp":
            await _fund(connection, wallet, -change.wei, name)
            await channels.topped_up(connection, domain, channel_id, said.deposit_units)
        case "VoucherRedeemed":
            await channels.redeemed(connection, domain, channel_id, said.redeemed_units)
        case "ChannelClosing":
            assert said.closes_at is not None
            await channels.closing(connection, domain, channel_id, said.closes_at)
        case _:
            await ledger.channel_closed(connection, wallet, said.deposit_units - said.redeemed_units, name)
            await channels.closed(connection, domain, channel_id)


async def _open(connection: AsyncConnection, domain: Domain, channel: Channel) -> None:
    try:
        await channels.opened(connection, domain, channel)
    except Conflict:
        # Opened, used, given up with its block, and opened anew with another key: nothing is served over it.
        await channels.closing(connection, domain, channel.channel_id, now())
        log.error("channel_conflict", channel_id=channel.channel_id, wallet=channel.user)


async def _fund(connection: AsyncConnection, wallet: str, wei: int, name: str) -> None:
    """Into a channel. Of an amount that is no whole number of units the rest is in no book of ours any more."""
    units = wei_to_units(wei)
    await ledger.channel_funded(connection, wallet, units, name)
    if wei % WEI_PER_UNIT:
        await ledger.withdrawal_seen(connection, wallet, wei_to_units_up(wei) - units, name)


async def _channel_told(connection: AsyncConnection, channel_id: str) -> _ChannelTold:
    rows = await repository.live_about(connection, channel_id, _OF_CHANNELS)
    closing = [int(_detail(row, "closesAt")) for row in rows if row.kind == "ChannelClosing"]
    claimed = [int(_detail(row, "totalClaimed")) for row in rows if row.kind == "VoucherRedeemed"]
    return _ChannelTold(
        deposit_units=sum(wei_to_units(-row.amount) for row in rows if row.kind in _FUNDS_CHANNEL),
        redeemed_units=wei_to_units_up(max(claimed, default=0)),
        closes_at=datetime.fromtimestamp(max(closing), UTC) if closing else None,
        closed_at=next((row.seen_at for row in rows if row.kind == "ChannelClosed"), None),
    )


def _detail(row: BookedEvent, name: str) -> str:
    return str((row.detail or {})[name])
