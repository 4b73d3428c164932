"""The acts of business, each one balanced posting under one idempotency key, in the caller's transaction.

    deposit_seen        chain    → deposit               the chain says that the user paid in
    withdrawal_seen     deposit  → chain                 the chain says that the user took out
    channel_funded      deposit  → channel               the chain says that the user put a part into a channel
    channel_closed      channel  → deposit               the chain says that what was left of it came back
    escrow_locked       deposit  → chain                 the chain says that the user locked a part without us
    escrow_returned     chain    → deposit               the chain says that some of it came back
    …_vanished          the other way                    the chain takes one of these back: another block came instead
    hold                deposit  → hold                  the most that a request can cost; or out of a channel
    capture             hold     → earned, fee, deposit  what it did cost; the rest goes back to where it was held from
    release_hold        hold     → deposit               it cost nothing
    service_credit      fee → deposit                    it missed what its tier had promised; or credits → credit
    credit_spent        fee → deposit, credit → credits  an earlier one had, and the fee on this one is lower for it
    refund              earned, fee → deposit            what it did cost is given back afterwards
    payout_sent         earned, fee → in flight          the chain is asked to pay
    payout_confirmed    in flight → paid                 the chain has paid
    payout_vanished     paid → in flight                 the block in which it had paid is no part of the chain any more
    payout_returned     in flight → earned, fee          the chain will not pay this
    slash               earned   → deposit, fee          a provider loses what it got for work that was none
    adjustment          any      → any                   a person sets something right, and says why

An act that is done again with the same content changes nothing and returns False. The same key with other content is a
:class:`Conflict`. What takes from an account that others take from too locks it, and raises before it goes below zero.

``capture`` and ``release_hold`` share the key ``close:<request>``, ``payout_confirmed`` and ``payout_returned`` the key
``payout:<payout>:end``: each ends in one of the two, once. After it vanished for the n-th time, it ends once more, as
``payout:<payout>:end:<n>``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.errors import Conflict, InsufficientBalance, InsufficientFunds
from far_mesh.marketplace.ledger import repository
from far_mesh.marketplace.ledger.repository import TooLittle
from far_mesh.marketplace.ledger.schemas import MAY_BE_NEGATIVE, PLATFORM, Account, Balance, Book, Posting, Told
from far_mesh.marketplace.ledger.split import Settlement

FEE = Account(Book.PLATFORM_FEE, PLATFORM)
ROUNDING = Account(Book.ROUNDING, PLATFORM)
CREDITS = Account(Book.CREDITS, PLATFORM)


async def balance_of(connection: AsyncConnection, wallet: str) -> Balance:
    """The money of ``wallet`` as a user."""
    found = await repository.balances_of(connection, wallet)
    return Balance(
        available=found.get(Book.USER_DEPOSIT, 0),
        held=found.get(Book.USER_HOLD, 0),
        deposited=-found.get(Book.CHAIN, 0),
        in_channels=found.get(Book.USER_CHANNEL, 0),
        credit=found.get(Book.USER_CREDIT, 0),
    )


# ---- what the chain tells of a user's deposit


async def deposit_seen(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book a deposit that the chain has seen. ``event`` names it for ever. False: it was booked before."""
    _check_amounts(units)
    lines = {Account(Book.CHAIN, wallet): -units, Account(Book.USER_DEPOSIT, wallet): units}
    return await _post(connection, Posting(f"deposit:{event}", "deposit_seen", "deposited on chain", lines))


async def withdrawal_seen(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book a withdrawal that the chain has seen, even when it leaves less than nothing: it has happened."""
    _check_amounts(units)
    lines = {Account(Book.USER_DEPOSIT, wallet): -units, Account(Book.CHAIN, wallet): units}
    posting = Posting(f"withdrawal:{event}", "withdrawal_seen", "deposit withdrawn on chain", lines)
    return await _post(connection, posting, spends=[Account(Book.USER_DEPOSIT, wallet)], has_happened=True)


async def channel_funded(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book what a user has put into a payment channel, even when it leaves less than nothing: it has happened."""
    _check_amounts(units)
    lines = {Account(Book.USER_DEPOSIT, wallet): -units, Account(Book.USER_CHANNEL, wallet): units}
    posting = Posting(f"channel_funded:{event}", "channel_funded", "put into a channel on chain", lines)
    return await _post(connection, posting, spends=[Account(Book.USER_DEPOSIT, wallet)], has_happened=True)


async def channel_closed(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book what has come back from a payment channel, even when it leaves less than nothing: it has happened."""
    _check_amounts(units)
    lines = {Account(Book.USER_CHANNEL, wallet): -units, Account(Book.USER_DEPOSIT, wallet): units}
    posting = Posting(f"channel_closed:{event}", "channel_closed", "left in a channel that was closed", lines)
    return await _post(connection, posting, spends=[Account(Book.USER_CHANNEL, wallet)], has_happened=True)


async def escrow_locked(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book what a user has locked in an escrow that is none of ours, even when it leaves less than nothing."""
    _check_amounts(units)
    lines = {Account(Book.USER_DEPOSIT, wallet): -units, Account(Book.CHAIN, wallet): units}
    posting = Posting(f"escrow_locked:{event}", "escrow_locked", "locked on chain without us", lines)
    return await _post(connection, posting, spends=[Account(Book.USER_DEPOSIT, wallet)], has_happened=True)


async def escrow_returned(connection: AsyncConnection, wallet: str, units: int, event: str) -> bool:
    """Book what has come back from such an escrow."""
    _check_amounts(units)
    lines = {Account(Book.CHAIN, wallet): -units, Account(Book.USER_DEPOSIT, wallet): units}
    posting = Posting(f"escrow_returned:{event}", "escrow_returned", "came back from an escrow without us", lines)
    return await _post(connection, posting)


async def event_vanished(connection: AsyncConnection, told: Told, event: str) -> bool:
    """Take back what was booked of ``event``, which is no part of the chain any more, even below zero.

    Raises:
        Conflict: no such thing was booked.
    """
    before = await repository.posted(connection, f"{told}:{event}")
    if before is None:
        raise Conflict(f"{told}:{event} was never booked", event=event)
    lines = {account: -units for account, units in before.lines.items()}
    posting = Posting(f"{told.vanished}:{event}", told.vanished, "not on chain any more", lines)
    spends = [account for account, units in lines.items() if units < 0 and account.kind not in MAY_BE_NEGATIVE]
    return await _post(connection, posting, spends=spends, has_happened=True)


# ---- a request


async def hold(
    connection: AsyncConnection, wallet: str, request_id: str, units: int, source: Book = Book.USER_DEPOSIT
) -> bool:
    """Set ``units`` of the user's deposit, or of its channels, aside for a request. False: that was done before.

    Raises:
        InsufficientBalance: less than that is available.
        Conflict: something else is held under this name.
    """
    _check_amounts(units)
    available = Account(source, wallet)
    lines = {available: -units, Account(Book.USER_HOLD, wallet): units}
    posting = Posting(f"hold:{request_id}", "hold", "the most that the request can cost", lines, request_id)
    try:
        return await _post(connection, posting, spends=[available])
    except InsufficientFunds as error:
        raise _not_enough(units, error.facts["available_units"]) from None


async def check_available(
    connection: AsyncConnection, wallet: str, units: int, source: Book = Book.USER_DEPOSIT
) -> None:
    """See that so much could be held at this moment. Nothing is.

    Raises:
        InsufficientBalance: less than that is available.
    """
    have = await repository.balance(connection, Account(source, wallet))
    if have < units:
        raise _not_enough(units, have)


def _not_enough(units: int, have: int) -> InsufficientBalance:
    return InsufficientBalance(
        f"this request may cost up to {units} units (1e-9 FAR) and {have} are available: deposit FAR, or "
        "lower max_tokens",
        needed_units=units,
        available_units=have,
    )


async def held_for(connection: AsyncConnection, wallet: str, request_id: str) -> int:
    """The units that were set aside for a request when it began; 0 when there was no such request."""
    return (await _held(connection, wallet, request_id))[1]


async def _held(connection: AsyncConnection, wallet: str, request_id: str) -> tuple[Account, int]:
    """Where it was held from, and how much."""
    lines = await repository.lines_of(connection, f"hold:{request_id}")
    units = lines.pop(Account(Book.USER_HOLD, wallet), 0)
    return next(iter(lines), Account(Book.USER_DEPOSIT, wallet)), units


async def capture(connection: AsyncConnection, wallet: str, request_id: str, settlement: Settlement[str]) -> bool:
    """Divide what is held among providers (payees are wallets), platform and user. False: that was done before.

    Raises:
        Conflict: the request was released instead, or divided otherwise, or the settlement is not about what is held.
    """
    source, held = await _held(connection, wallet, request_id)
    if held != settlement.held:
        raise Conflict(f"{request_id} does not hold {settlement.held} units", request_id=request_id)
    lines: dict[Account, int] = defaultdict(int)
    lines[Account(Book.USER_HOLD, wallet)] -= settlement.held
    for provider, units in settlement.amounts:
        lines[Account(Book.PROVIDER_EARNED, provider)] += units
    lines[FEE] += settlement.fee
    lines[source] += settlement.refund
    return await _post(connection, Posting(f"close:{request_id}", "capture", "work done and proven", lines, request_id))


async def release_hold(connection: AsyncConnection, wallet: str, request_id: str, reason: str) -> bool:
    """Give all that is held for a request back. False: that was done before.

    Raises:
        Conflict: the request was captured, or nothing was ever held for it.
    """
    source, held = await _held(connection, wallet, request_id)
    if not held:
        raise Conflict(f"nothing is held for {request_id}", request_id=request_id)
    lines = {Account(Book.USER_HOLD, wallet): -held, source: held}
    return await _post(connection, Posting(f"close:{request_id}", "release_hold", reason, lines, request_id))


async def refund(
    connection: AsyncConnection, wallet: str, request_id: str, amounts: Mapping[Account, int], reason: str
) -> bool:
    """Give back, once, of what a captured request did cost: ``amounts`` by who gives, each at most what it got.

    Raises:
        Conflict: somebody would give more than it got of this request, or another refund was made.
        InsufficientFunds: somebody has been paid out meanwhile.
    """
    captured = await repository.lines_of(connection, f"close:{request_id}")
    if Account(Book.USER_HOLD, wallet) not in captured:
        raise Conflict(f"{request_id} is no request of {wallet} that has ended", request_id=request_id)
    payers = {Book.PROVIDER_EARNED, Book.PLATFORM_FEE}
    for account, units in amounts.items():
        if account.kind not in payers or not 0 <= units <= captured.get(account, 0):
            raise Conflict(f"{account} did not get {units} units of {request_id}", request_id=request_id)
    lines = {account: -units for account, units in amounts.items()}
    lines[Account(Book.USER_DEPOSIT, wallet)] = sum(amounts.values())
    posting = Posting(f"refund:{request_id}", "refund", reason, lines, request_id)
    return await _post(connection, posting, spends=amounts)


async def service_credit(
    connection: AsyncConnection, wallet: str, request_id: str, units: int, *, later: bool = False
) -> bool:
    """Give back, once, a part of the platform's fee on a captured request that missed what its tier had promised.
    Belongs into the transaction of the capture. ``later``: the fee itself is taken on chain, so that those on later
    requests are lower. False: that was done before.

    Raises:
        Conflict: it is more than the platform got of this request, or another credit was given.
    """
    source = await _charged(connection, wallet, request_id, units, f"credit_spent:{request_id}")
    lines = {FEE: -units, source: units}
    if later:
        lines = {CREDITS: -units, Account(Book.USER_CREDIT, wallet): units}
    posting = Posting(f"service_credit:{request_id}", "service_credit", "slower than promised", lines, request_id)
    return await _post(connection, posting)


async def credit_spent(connection: AsyncConnection, wallet: str, request_id: str, most: int) -> int:
    """Lower the fee on a captured request by what the user was promised for earlier ones, at most by ``most`` units.
    By how much. Belongs into the transaction of the capture.

    Raises:
        Conflict: it is more than the platform got of this request, or it was lowered before.
    """
    credit = Account(Book.USER_CREDIT, wallet)
    have = await repository.balance(connection, credit)
    while (units := min(have, most)) > 0:
        source = await _charged(connection, wallet, request_id, units, f"service_credit:{request_id}")
        lines = {FEE: -units, source: units, credit: -units, CREDITS: units}
        posting = Posting(f"credit_spent:{request_id}", "credit_spent", "was slower before", lines, request_id)
        try:
            await _post(connection, posting, spends=[credit])
        except InsufficientFunds as error:  # another request of this user has ended in this moment
            have = error.facts["available_units"]
        else:
            return units
    return 0


async def _charged(connection: AsyncConnection, wallet: str, request_id: str, units: int, beside: str) -> Account:
    """Where a request was paid from, of which the platform has ``units`` or more after what it gave back ``beside``."""
    captured = await repository.lines_of(connection, f"close:{request_id}")
    left = captured.get(FEE, 0) + (await repository.lines_of(connection, beside)).get(FEE, 0)
    if Account(Book.USER_HOLD, wallet) not in captured or not 0 < units <= left:
        raise Conflict(f"the platform did not get {units} units of {request_id}", request_id=request_id)
    return (await _held(connection, wallet, request_id))[0]


# ---- payouts


async def payout_sent(
    connection: AsyncConnection, payout_id: str, amounts: Mapping[str, int], fee: int, request_id: str | None = None
) -> bool:
    """The chain is about to be asked to pay ``amounts`` to wallets and ``fee`` to the platform. Belongs into the
    transaction that writes the question into the outbox. ``request_id``: when it pays for one request alone.

    Raises:
        InsufficientFunds: somebody has not earned that much.
    """
    _check_amounts(fee, *amounts.values())
    lines: dict[Account, int] = {}
    for wallet, units in amounts.items():
        _move(lines, Account(Book.PROVIDER_EARNED, wallet), Account(Book.IN_FLIGHT, wallet), units)
    _move(lines, FEE, Account(Book.IN_FLIGHT, PLATFORM), fee)
    spends = [account for account in lines if account.kind is not Book.IN_FLIGHT]
    posting = Posting(f"payout:{payout_id}:sent", "payout_sent", "to be paid on chain", lines, request_id)
    return await _post(connection, posting, spends=spends)


async def payout_confirmed(
    connection: AsyncConnection, payout_id: str, rounding: int = 0, *, vanished: int = 0
) -> bool:
    """The chain has paid. ``rounding``: units by which its fee is more than ours. ``vanished``: how often this payout
    has vanished before.

    Raises:
        Conflict: it was never sent, was returned, or has not vanished so often.
    """
    lines: dict[Account, int] = defaultdict(int)
    sent = await _in_flight(connection, payout_id, vanished)
    for owner, units in sent.items():
        _move(lines, Account(Book.IN_FLIGHT, owner), _paid(owner), units)
    _move(lines, ROUNDING, _paid(PLATFORM), rounding)
    return await _post(connection, Posting(_end(payout_id, vanished), "payout_confirmed", "paid on chain", lines))


async def payout_vanished(connection: AsyncConnection, payout_id: str, vanished: int) -> bool:
    """The chain has given up the block in which it had paid, for the ``vanished``-th time: it is in flight again.

    Raises:
        Conflict: it had not been paid.
    """
    key = _vanished(payout_id, vanished)
    before = await repository.posted(connection, _end(payout_id, vanished - 1))
    if before is None or before.kind != "payout_confirmed":
        raise Conflict(f"the payout {payout_id} was not paid", payout_id=payout_id)
    lines = {account: -units for account, units in before.lines.items()}
    return await _post(connection, Posting(key, "payout_vanished", "not on chain any more", lines))


async def payout_returned(connection: AsyncConnection, payout_id: str, reason: str, *, vanished: int = 0) -> bool:
    """The chain will never pay this: it is owed again. ``vanished`` as in :func:`payout_confirmed`.

    Raises:
        Conflict: it was never sent, has been paid, or has not vanished so often.
    """
    lines: dict[Account, int] = {}
    for owner, units in (await _in_flight(connection, payout_id, vanished)).items():
        owed = FEE if owner == PLATFORM else Account(Book.PROVIDER_EARNED, owner)
        _move(lines, Account(Book.IN_FLIGHT, owner), owed, units)
    return await _post(connection, Posting(_end(payout_id, vanished), "payout_returned", reason, lines))


def _end(payout_id: str, vanished: int) -> str:
    return f"payout:{payout_id}:end:{vanished}" if vanished else f"payout:{payout_id}:end"


def _paid(owner: str) -> Account:
    return Account(Book.PLATFORM_PAID if owner == PLATFORM else Book.PROVIDER_PAID, owner)


def _vanished(payout_id: str, times: int) -> str:
    return f"payout:{payout_id}:vanished:{times}"


async def _in_flight(connection: AsyncConnection, payout_id: str, vanished: int) -> dict[str, int]:
    sent = await repository.lines_of(connection, f"payout:{payout_id}:sent")
    if not sent:
        raise Conflict(f"there is no payout {payout_id}", payout_id=payout_id)
    if vanished and await repository.posted(connection, _vanished(payout_id, vanished)) is None:
        raise Conflict(f"the payout {payout_id} has not vanished {vanished} times", payout_id=payout_id)
    return {account.owner: units for account, units in sent.items() if account.kind is Book.IN_FLIGHT}


# ---- what should not be necessary


async def slash(
    connection: AsyncConnection, provider: str, units: int, evidence: str, compensation: Mapping[str, int]
) -> bool:
    """Take ``units`` of what ``provider`` has earned and was not paid. ``compensation`` goes to the users it harmed,
    the rest to the platform. ``evidence`` names the deed for ever, such as the hash of what proves it.

    Raises:
        InsufficientFunds: it has not that much left here.
    """
    earned = Account(Book.PROVIDER_EARNED, provider)
    rest = units - sum(compensation.values())
    _check_amounts(units, rest, *compensation.values())
    lines = {earned: -units, FEE: rest}
    lines |= {Account(Book.USER_DEPOSIT, wallet): amount for wallet, amount in compensation.items()}
    posting = Posting(f"slash:{evidence}", "slash", "work that was none", lines)
    return await _post(connection, posting, spends=[earned])


async def adjustment(connection: AsyncConnection, name: str, amounts: Mapping[Account, int], reason: str) -> bool:
    """Set something right by hand. ``name`` is this adjustment's for ever; ``reason`` is for whoever reads the books.

    Raises:
        ValueError: it does not balance, or has no reason.
        InsufficientFunds: an account would go below zero.
    """
    if not reason.strip():
        raise ValueError("an adjustment needs a reason")
    spends = [account for account, units in amounts.items() if units < 0 and account.kind not in MAY_BE_NEGATIVE]
    return await _post(connection, Posting(f"adjustment:{name}", "adjustment", reason, amounts), spends=spends)


# ---- how a posting is written


def _check_amounts(*units: int) -> None:
    if min(units) < 0:
        raise ValueError("an act of the books moves no less than nothing")


def _move(lines: dict[Account, int], source: Account, target: Account, units: int) -> None:
    lines[source] = lines.get(source, 0) - units
    lines[target] = lines.get(target, 0) + units


async def _post(
    connection: AsyncConnection, posting: Posting, *, spends: Collection[Account] = (), has_happened: bool = False
) -> bool:
    """Write a posting once. False: this very thing was written before.

    ``spends`` are accounts that others take from too: they are locked, and nothing is written that would leave less
    than nothing in one of them, unless ``has_happened``.

    Raises:
        Conflict: something else was written under the same key.
        InsufficientFunds: there is too little in one of ``spends``.
    """
    lines = {account: units for account, units in posting.lines.items() if units}
    if sum(lines.values()) != 0:
        raise ValueError(f"the posting {posting.key} does not balance")
    posting = Posting(posting.key, posting.kind, posting.reason[:200], lines, posting.request_id)
    checked = [] if has_happened else [account for account in spends if account in lines]
    written = await repository.write(connection, posting, lock=bool(spends), checked=checked)
    if isinstance(written, TooLittle):
        raise _insufficient(posting, written)
    return written or await _again(connection, posting)


async def _again(connection: AsyncConnection, posting: Posting) -> bool:
    before = await repository.posted(connection, posting.key)
    if before == posting:
        return False
    was = before.kind if before else "nothing"
    raise Conflict(f"{posting.key} is closed: it was another {was} already", key=posting.key, before=was)


def _insufficient(posting: Posting, found: TooLittle) -> InsufficientFunds:
    needed = -posting.lines[found.account]
    return InsufficientFunds(
        f"{posting.kind} takes {needed} units and there are {found.have} in {found.account}",
        account=str(found.account),
        needed_units=needed,
        available_units=found.have,
    )
