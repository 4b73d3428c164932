"""The acts of business, each one balanced posting under one idempotency key, in the caller's transaction.

    deposit_seen        deposits  → available          what the chain says the user paid in
    withdrawal_seen     available → deposits           what the chain says the user took out
    hold                available → held               the most that a request can cost
    capture             held → owed, fees, available   what it did cost
    release_hold        held → available               it cost nothing
    payout_confirmed    owed → credited                the chain says that the providers have it

``capture`` and ``release_hold`` share the key ``close:<request>``: a request ends in one of the two, once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.errors import Conflict, InsufficientBalance
from far_mesh.marketplace.ledger import repository
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Balance, Book
from far_mesh.marketplace.ledger.split import Settlement

_SETTLED = {Book.PROVIDER_OWED: Book.PROVIDER_CREDITED, Book.FEES_OWED: Book.FEES_CREDITED}


async def balance_of(connection: AsyncConnection, wallet: str) -> Balance:
    """The money of ``wallet`` as a user."""
    available = await repository.balance(connection, Account(Book.USER_AVAILABLE, wallet))
    held = await repository.balance(connection, Account(Book.USER_HELD, wallet))
    deposited = -await repository.balance(connection, Account(Book.USER_DEPOSITS, wallet))
    return Balance(available, held, deposited)


async def deposit_seen(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book a deposit that the chain has seen. ``event`` names it for ever. False: it was booked before."""
    lines = {Account(Book.USER_DEPOSITS, wallet): -units, Account(Book.USER_AVAILABLE, wallet): units}
    return await _post(connection, f"deposit:{event}", "deposit_seen", "deposited on chain", lines)


async def withdrawal_seen(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book a withdrawal that the chain has seen, even when it leaves less than nothing: it has happened."""
    available = Account(Book.USER_AVAILABLE, wallet)
    await repository.lock_account(connection, available)
    lines = {available: -units, Account(Book.USER_DEPOSITS, wallet): units}
    return await _post(connection, f"withdrawal:{event}", "withdrawal_seen", "deposit withdrawn on chain", lines)


async def hold(connection: AsyncConnection, wallet: str, request_id: str, units: int) -> bool:
    """Set ``units`` aside for a request. False: that was done before.

    Raises:
        InsufficientBalance: less than that is available.
    """
    available = Account(Book.USER_AVAILABLE, wallet)
    key = f"hold:{request_id}"
    await repository.lock_account(connection, available)
    if await repository.kind_of_posting(connection, key) is not None:
        return False
    have = await repository.balance(connection, available)
    if units > have:
        raise InsufficientBalance(
            f"this request may cost up to {units} units (1e-9 FAR) and {have} are available: deposit FAR, or "
            "lower max_tokens",
            needed_units=units,
            available_units=have,
        )
    lines = {available: -units, Account(Book.USER_HELD, wallet): units}
    return await _post(connection, key, "hold", "the most that the request can cost", lines, request_id)


async def held_for(connection: AsyncConnection, wallet: str, request_id: str) -> int:
    """The units that were set aside for a request when it began; 0 when there was no such request."""
    lines = await repository.amounts_of_posting(connection, f"hold:{request_id}")
    return lines.get(Account(Book.USER_HELD, wallet), 0)


async def capture(connection: AsyncConnection, wallet: str, request_id: str, settlement: Settlement[str]) -> bool:
    """Divide what is held among providers (payees are wallets), platform and user. False: that was done before.

    Raises:
        Conflict: the request was released instead, or the settlement is not about what is held.
    """
    if await held_for(connection, wallet, request_id) != settlement.held:
        raise Conflict(f"{request_id} does not hold {settlement.held} units", request_id=request_id)
    lines: dict[Account, int] = defaultdict(int)
    lines[Account(Book.USER_HELD, wallet)] -= settlement.held
    for provider, units in settlement.amounts:
        lines[Account(Book.PROVIDER_OWED, provider)] += units
    lines[Account(Book.FEES_OWED, PLATFORM)] += settlement.fee
    lines[Account(Book.USER_AVAILABLE, wallet)] += settlement.refund
    return await _post(connection, f"close:{request_id}", "capture", "work done and proven", lines, request_id)


async def release_hold(connection: AsyncConnection, wallet: str, request_id: str, reason: str) -> bool:
    """Give all that is held for a request back. False: that was done before.

    Raises:
        Conflict: the request was captured, or nothing was ever held for it.
    """
    held = await held_for(connection, wallet, request_id)
    if not held:
        raise Conflict(f"nothing is held for {request_id}", request_id=request_id)
    lines = {Account(Book.USER_HELD, wallet): -held, Account(Book.USER_AVAILABLE, wallet): held}
    return await _post(connection, f"close:{request_id}", "release_hold", reason, lines, request_id)


async def payout_confirmed(connection: AsyncConnection, request_id: str) -> bool:
    """The chain has credited the providers and the platform of a captured request. False: that was booked before.

    Raises:
        Conflict: the request was never captured.
    """
    captured = await repository.amounts_of_posting(connection, f"close:{request_id}")
    lines: dict[Account, int] = {}
    for account, units in captured.items():
        if settled := _SETTLED.get(account.kind):
            lines[account] = -units
            lines[Account(settled, account.owner)] = units
    if not lines:
        raise Conflict(f"nothing was captured for {request_id}, so nothing can be paid out", request_id=request_id)
    return await _post(connection, f"payout:{request_id}", "payout_confirmed", "released on chain", lines, request_id)


async def _post(
    connection: AsyncConnection,
    key: str,
    kind: str,
    reason: str,
    amounts: Mapping[Account, int],
    request_id: str | None = None,
) -> bool:
    """Write a balanced set of lines once. False: this very thing was written before.

    Raises:
        Conflict: another kind of thing was written under the same key.
    """
    lines = {account: units for account, units in amounts.items() if units}
    if sum(lines.values()) != 0:
        raise ValueError(f"the posting {key} does not balance")
    posting_id = await repository.add_posting(connection, key, kind, reason, request_id)
    if posting_id is None:
        before = await repository.kind_of_posting(connection, key)
        if before != kind:
            raise Conflict(f"{key} is closed: it was a {before} already", key=key, before=before)
        return False
    if lines:
        await repository.add_entries(connection, posting_id, lines)
    return True
