"""What the chain is asked when the books are compared with it: everything after one and the same block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from far_mesh.marketplace.chain.audit import AuditedChain, ChannelMoney
from far_mesh.marketplace.chain.client import EscrowEvent
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.reconcile import (
    BatchLines,
    Books,
    Finding,
    OnChain,
    change_of,
    claims_of,
    foreign_events,
    needs_owner,
    payouts_of,
    rows_with_events,
)
from far_mesh.marketplace.settlement.reconcile_books import Concerned, Window
from far_mesh.marketplace.settlement.schemas import Kind

QUESTIONS_AT_ONCE = 16

KeyT = TypeVar("KeyT")
AnswerT = TypeVar("AnswerT")


async def ask(keys: Collection[KeyT], question: Callable[[KeyT], Awaitable[AnswerT]]) -> dict[KeyT, AnswerT]:
    """The same question about each, some at a time."""
    turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def one(key: KeyT) -> AnswerT:
        async with turns:
            return await question(key)

    ordered = list(keys)
    return dict(zip(ordered, await asyncio.gather(*(one(key) for key in ordered)), strict=True))


async def read_owners(chain: AuditedChain, window: Window, named: Books) -> dict[str, str]:
    """Users by their channels and escrows, where events do not name them."""
    events = [event for event in foreign_events(window.events, named) if needs_owner(event)]

    async def of_channel(channel_id: str) -> str:
        return (await chain.channel_at(channel_id, window.last_block)).user

    async def of_escrow(escrow_id: str) -> str:
        return await chain.escrow_user(escrow_id, window.last_block)

    channels = {event.fields["channelId"] for event in events if "channelId" in event.fields}
    escrows = {event.fields["escrowId"] for event in events if "escrowId" in event.fields}
    return await ask(channels, of_channel) | await ask(escrows, of_escrow)


async def read_chain(
    chain: AuditedChain, window: Window, newest: int, owners: Mapping[str, str], books: Books
) -> OnChain:
    """What became of everything that the books have of these blocks, or that is under way."""
    at = window.last_block
    seen = rows_with_events(window.events, books)
    asked_for = {
        row.request_id
        for row in books.rows.values()
        if row.kind in (Kind.LOCK, Kind.RELEASE, Kind.CANCEL) and (row.id not in seen or not row.is_done(at))
    }
    asked_for |= {one for one in books.in_motion if books.requests[one].payment is Payment.ESCROW}
    wallets = {one: books.requests[one].user for one in asked_for & books.requests.keys()}
    settled = [event.fields for event in window.events if event.name == "BatchSettled"]
    announced = {said["batchId"]: said["detailRoot"] for said in settled}
    batches = await ask(
        books.batches.keys(), lambda number: _is_on_chain(chain, books.batches[number], announced.get(number), window)
    )
    return OnChain(
        first_block=window.first_block,
        block=at,
        newest_block=newest,
        events=window.events,
        owners=owners,
        escrows=await ask(wallets.keys(), lambda request_id: chain.escrow_at(wallets[request_id], request_id, at)),
        batches=frozenset(number for number, is_done in batches.items() if is_done),
        channels=await read_channels(chain, {one for row in books.rows.values() for one in claims_of(row)}, at),
    )


async def _is_on_chain(chain: AuditedChain, batch: BatchLines, announced: str | None, window: Window) -> bool:
    """Whether this batch was done, and not another one under its number."""
    at = window.last_block
    if batch.is_payout_root:
        return await chain.root_at(batch.number, at) == batch.root
    if not await chain.is_settled_at(batch.number, at):
        return False
    if announced is None:
        details = await chain.details_of_batch(batch.number, window.escrow_block)
        announced = None if details is None else "0x" + details.hex()
    return announced == batch.root


async def read_channels(chain: AuditedChain, channel_ids: Collection[str], at: int) -> dict[str, ChannelMoney]:
    """These channels."""
    return await ask(channel_ids, lambda channel_id: chain.channel_at(channel_id, at))


async def read_sums(chain: AuditedChain, found: OnChain, concerned: Concerned) -> OnChain:
    """What all of these have."""
    at = found.block
    missing = concerned.channels - found.channels.keys()
    return replace(
        found,
        channels={**found.channels, **await read_channels(chain, missing, at)},
        deposits=await ask(concerned.users, lambda wallet: chain.deposit_wei(wallet, at)),
        credits=await ask(concerned.providers, lambda wallet: chain.credit_wei(wallet, at)),
        claimed=await ask(concerned.providers, lambda wallet: chain.claimed_wei(wallet, at)),
        pots=await chain.pots(at),
    )


async def check_nonces(
    chain: AuditedChain, settler: str, signed: Mapping[int, Collection[str]], seen: Collection[str]
) -> list[Finding]:
    """Whether all of the settler's nonces were used by what the books have ``signed`` with them. Transactions that are
    ``seen`` in events need not be asked for."""
    unseen = {nonce: hashes for nonce, hashes in signed.items() if not any(one in seen for one in hashes)}

    async def is_ours(nonce: int) -> bool:
        return any([await chain.mined(tx_hash) is not None for tx_hash in unseen[nonce]])

    answers = await ask(unseen.keys(), is_ours)
    message = f"the settler {settler} has used it for a transaction that nobody here has signed"
    return [Finding("unknown_transaction", f"nonce {nonce}", message) for nonce, ours in answers.items() if not ours]


def concerned_by(events: Collection[EscrowEvent], owners: Mapping[str, str], books: Books) -> Concerned:
    """Whose money these events are about, and what is under way."""
    users = {change_of(event, owners).wallet for event in foreign_events(events, books)}
    users |= {books.requests[one].user for one in books.in_motion}
    providers: set[str] = set()
    channels: set[str] = {one for row in books.rows.values() for one in claims_of(row)}
    for event in events:
        users.update(_users_in(event))
        providers.update(event.fields.get("providers", ()))
        channels.update(event.fields[name] for name in ("channelId",) if name in event.fields)
        if "provider" in event.fields:
            providers.add(event.fields["provider"])
    for row in books.rows.values():
        providers.update(payouts_of(row, books))
        if row.request_id in books.requests:
            users.add(books.requests[row.request_id].user)
    return Concerned(frozenset(users - {""}), frozenset(providers), frozenset(channels))


def _users_in(event: EscrowEvent) -> Iterator[str]:
    said = event.fields
    if "user" in said:
        yield said["user"]
    yield from said.get("users", ())
    yield from said.get("charges", {}).get("users", ())
