"""The money of one request: opened, activated, closed or refunded, each act in one database transaction.

What the books say and what the chain is asked for are written together, so a crash leaves both or neither. Only a
request with an escrow of its own asks the chain for anything here: the others are settled in batches (:mod:`.batches`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Conflict, FeeMismatch
from far_mesh.marketplace.keys import budget
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.ledger.split import Settlement, Tokens, settle
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.intents import Intent
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import (
    OPEN,
    Gateway,
    NewSession,
    Outcome,
    PaidShare,
    Payment,
    Session,
    Share,
    Status,
    Work,
)
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.owed import Owed, owed
from far_mesh.marketplace.settlement.schemas import Kind
from far_mesh.marketplace.tiers import promise


@dataclass(frozen=True)
class Measured:
    """How an answer went. Milliseconds since the request was accepted, and the 95th percentile of those between its
    tokens."""

    finish_reason: str
    latency_ms: int | None = None
    time_to_first_token_ms: int | None = None
    p95_token_ms: int | None = None


Choose = Callable[[Owed], Payment]


async def open_request(
    connection: AsyncConnection,
    session: NewSession,
    gateway: Gateway,
    lock_seconds: int,
    *,
    intent: Intent | None = None,
    choose: Choose | None = None,
) -> NewSession:
    """Hold the most that a request can cost, and ask the chain to lock it if it is to have an escrow of its own: what
    the user has signed an ``intent`` for, or as much as is held. ``choose`` decides how it is paid, by what the user
    owes already. The request as it began; one that waits for no lock is active.

    Raises:
        InsufficientBalance: that much is not available.
        KeyLimitReached: it is more than may be spent today with the API key.
        Conflict: there is a request of this name already.
        Whatever ``choose`` raises.
    """
    if not await ledger.hold(connection, session.user_wallet, session.request_id, session.held_units, _source(session)):
        raise _asked_before(session)
    if session.api_key_id is not None:
        await budget.reserve(connection, session.api_key_id, session.held_units, now())
    if choose is not None:
        session = replace(session, payment=choose(await owed(connection, session.user_wallet)))
    if session.payment is not Payment.ESCROW:
        await sessions.add(connection, session, gateway, Status.ACTIVE)
        return session
    await sessions.add(connection, session, gateway)
    wanted: dict[str, Any] = {"units": session.held_units, "lock_seconds": lock_seconds}
    if intent is not None:
        wanted = {"units": intent.max_units, "lock_seconds": intent.lock_seconds, "intent": intent.document()}
    await outbox.add(connection, Kind.LOCK, session.request_id, session.user_wallet, wanted)
    return session


async def check_before_waiting(connection: AsyncConnection, session: NewSession) -> None:
    """See that a request could be opened now, so that nobody waits for what will be refused. Nothing is held.

    Raises:
        InsufficientBalance: what it may cost is not available.
        Conflict: there is a request of this name already.
    """
    if await sessions.find(connection, session.request_id) is not None:
        raise _asked_before(session)
    await ledger.check_available(connection, session.user_wallet, session.held_units, _source(session))


def _source(session: NewSession) -> Book:
    return Book.USER_CHANNEL if session.payment is Payment.CHANNEL else Book.USER_DEPOSIT


def _asked_before(session: NewSession) -> Conflict:
    return Conflict(f"{session.request_id} was asked for before: GET /api/inference/requests/{session.request_id}")


async def activate_request(connection: AsyncConnection, request_id: str, fee_bps: int) -> None:
    """The chain has locked the money of a request, at this fee.

    Raises:
        Conflict: somebody has ended the request meanwhile.
        FeeMismatch: the fee is not the one that was frozen when the money was held.
    """
    session = await _open_session(connection, request_id)
    if session is None:
        raise Conflict(f"{request_id} has ended already", request_id=request_id)
    if fee_bps != session.fee_bps:
        raise FeeMismatch(f"the escrow takes {fee_bps} basis points and FAR_FEE_BPS was {session.fee_bps}")
    await sessions.change(connection, request_id, status=Status.ACTIVE.value)


async def close_request(connection: AsyncConnection, request_id: str, work: Work, measured: Measured) -> Outcome:
    """Pay for proven work, refund the rest, and ask the chain to do the same. With nothing to pay: refund all. Over a
    channel nothing is paid for that no voucher covers. What was slower than its tier had promised is credited in the
    same transaction, so that the chain is asked for what is left of the fee.

    Raises:
        Conflict: the request has ended already, or was never active.
    """
    session = await _open_session(connection, request_id)
    if session is None or session.status is not Status.ACTIVE:
        raise Conflict(f"{request_id} is not active", request_id=request_id)
    divided = await _division(connection, session, work)
    is_met = promise.is_met(session.promised_p95_ms, measured.p95_token_ms)
    outcome = replace(_outcome(divided, work), service_level_met=is_met)
    if divided.paid:
        await _capture(connection, session, divided)
        outcome = await _credited(connection, session, outcome)
    else:
        await _give_back(connection, session, "no work could be proven")
    if session.channel_id is not None:
        await channels.captured(connection, session.channel_id, outcome.cost_units, session.counted_units)
    await _unspent(connection, session, session.held_units - outcome.cost_units)
    await sessions.add_contributions(connection, session, outcome.shares)
    await _end(connection, session, Status.COMPLETED, work, outcome, measured)
    return outcome


async def refund_request(connection: AsyncConnection, request_id: str, error_code: str) -> bool:
    """Give everything that is held for a request back. False: it has ended already."""
    session = await _open_session(connection, request_id)
    if session is None:
        return False
    await _give_back(connection, session, error_code)
    await _unspent(connection, session, session.held_units)
    if session.channel_id is not None:
        await channels.captured(connection, session.channel_id, 0, session.counted_units)
    await sessions.change(
        connection,
        request_id,
        status=Status.FAILED.value,
        completed_at=now(),
        error_code=error_code[:64],
        total_cost_units=0,
        fee_units=0,
        refund_units=session.held_units,
        checkpoint=None,
    )
    return True


def division(session: NewSession, work: Work, most_units: int | None = None) -> Settlement[Share]:
    """How the money of ``session`` is divided for ``work``, of which ``most_units`` can be paid."""
    most = session.held_units if most_units is None else min(most_units, session.held_units)
    divided = settle(
        most,
        Tokens(work.prompt_tokens, work.completion_tokens, work.cached_tokens),
        session.prices,
        [(share, share.token_layers) for share in work.shares] if work.completion_tokens or work.embedded else [],
        work.expected_token_layers,
    )
    return replace(divided, held=session.held_units, refund=divided.refund + session.held_units - most)


async def _division(connection: AsyncConnection, session: Session, work: Work) -> Settlement[Share]:
    if session.channel_id is None:
        return division(session, work)
    return division(session, work, await channels.uncaptured(connection, session.channel_id))


def by_wallet(divided: Settlement[Share]) -> Settlement[str]:
    """The same division with one amount per wallet: the books and the chain pay wallets, not nodes."""
    wallets: dict[str, int] = {}
    for share, units in divided.amounts:
        wallets[share.wallet] = wallets.get(share.wallet, 0) + units
    return Settlement(divided.held, tuple(sorted(wallets.items())), divided.fee, divided.refund)


async def _open_session(connection: AsyncConnection, request_id: str) -> Session | None:
    session = await sessions.find(connection, request_id, lock=True)
    return session if session is not None and session.status in OPEN else None


async def _capture(connection: AsyncConnection, session: Session, divided: Settlement[Share]) -> None:
    wallets = by_wallet(divided)
    request_id = session.request_id
    await ledger.capture(connection, session.user_wallet, request_id, wallets)
    if session.payment is not Payment.ESCROW:
        return
    await ledger.payout_sent(connection, request_id, dict(wallets.amounts), wallets.fee, request_id)
    amounts = {"amounts": [list(amount) for amount in wallets.amounts]}
    await outbox.add(connection, Kind.RELEASE, request_id, session.user_wallet, amounts)


async def _credited(connection: AsyncConnection, session: Session, outcome: Outcome) -> Outcome:
    """The outcome after what a missed promise gives back, and after what earlier ones have to give. The fee of an
    escrow of its own is computed by the contract and taken by the release: what such a request gives back lowers the
    fees on later ones."""
    own_escrow, wallet, request_id = session.payment is Payment.ESCROW, session.user_wallet, session.request_id
    credit = 0
    if outcome.service_level_met is False:
        credit = promise.credit_for(outcome.cost_units, outcome.fee_units, session.credit_bps)
    if credit:
        await ledger.service_credit(connection, wallet, request_id, credit, later=own_escrow)
    outcome = replace(outcome, credit_units=credit)
    if own_escrow:
        return outcome
    spent = await ledger.credit_spent(connection, wallet, request_id, outcome.fee_units - credit)
    return replace(
        outcome,
        cost_units=outcome.cost_units - credit - spent,
        fee_units=outcome.fee_units - credit - spent,
        refund_units=outcome.refund_units + credit + spent,
        spent_credit_units=spent,
    )


async def _unspent(connection: AsyncConnection, session: Session, units: int) -> None:
    if session.api_key_id is not None:
        await budget.give_back(connection, session.api_key_id, units, session.started_at)


async def _give_back(connection: AsyncConnection, session: Session, reason: str) -> None:
    await ledger.release_hold(connection, session.user_wallet, session.request_id, reason)
    if session.payment is not Payment.ESCROW:
        return
    if not await outbox.abandon_lock(connection, session.request_id):
        await outbox.add(connection, Kind.CANCEL, session.request_id, session.user_wallet, {})


def outcome_of(session: NewSession, work: Work) -> Outcome:
    """How :func:`close_request` divides the money of a request that no channel pays."""
    return _outcome(division(session, work), work)


def _outcome(divided: Settlement[Share], work: Work) -> Outcome:
    paid = dict(divided.amounts)
    shares = tuple(PaidShare(share, paid.get(share, 0)) for share in work.shares)
    return Outcome(divided.held, divided.cost, divided.fee, divided.refund, shares)


async def _end(
    connection: AsyncConnection, session: Session, status: Status, work: Work, outcome: Outcome, measured: Measured
) -> None:
    await sessions.change(
        connection,
        session.request_id,
        status=status.value,
        completed_at=now(),
        prompt_tokens=work.prompt_tokens,
        cached_tokens=min(work.cached_tokens, work.prompt_tokens),
        token_count=work.completion_tokens,
        total_cost_units=outcome.cost_units,
        fee_units=outcome.fee_units,
        refund_units=outcome.refund_units,
        finish_reason=measured.finish_reason,
        latency_ms=measured.latency_ms,
        time_to_first_token_ms=measured.time_to_first_token_ms,
        p95_token_ms=measured.p95_token_ms,
        service_level_met=outcome.service_level_met,
        credit_units=outcome.credit_units,
        spent_credit_units=outcome.spent_credit_units,
        checkpoint=None,
    )
