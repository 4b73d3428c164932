"""``/api/account``: what a user has, and what it came from."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from discovery.protocol.ids import check_wallet
from far_mesh.marketplace.account import events
from far_mesh.marketplace.account.deposits import Claim
from far_mesh.marketplace.account.repository import BookedEvent
from far_mesh.marketplace.account.schemas import (
    BalanceAnswer,
    ChainEventAnswer,
    DepositAnswer,
    DepositList,
    DepositRequest,
    PendingAnswer,
    PlainDepositRequest,
)
from far_mesh.marketplace.auth.door import AccountReader, AccountWriter
from far_mesh.marketplace.chain.amounts import units_to_far
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.payments.errors import DepositPending

MAX_PAGE = 200
DEPOSIT_ANSWERS = errors(403, 404) | {202: {"model": PendingAnswer}}

router = APIRouter(tags=["account"])


@router.get("/api/account/balance")
async def balance(request: Request, wallet: AccountReader) -> BalanceAnswer:
    """The caller's prepaid money, and where to pay more in."""
    rooms = request.app.state.rooms
    found = await rooms.account.balance(wallet)
    return BalanceAnswer(
        wallet_address=wallet,
        available_units=found.available,
        held_units=found.held,
        deposited_units=found.deposited,
        credit_units=found.credit,
        available_far=units_to_far(found.available),
        held_far=units_to_far(found.held),
        deposited_far=units_to_far(found.deposited),
        credit_far=units_to_far(found.credit),
        **asdict(rooms.pay_in),
    )


@router.post("/api/account/deposit", responses=DEPOSIT_ANSWERS, response_model=DepositAnswer)
async def deposit(request: Request, wallet: AccountWriter, body: DepositRequest) -> DepositAnswer | Response:
    """Credit a transaction now, without waiting until it is found. As often as you like: it counts once."""
    return await _credit(request, Claim(wallet, body.tx_hash, body.payer_signature))


@router.post("/deposit", dependencies=[PerAddress], responses=DEPOSIT_ANSWERS, response_model=DepositAnswer)
async def plain_deposit(request: Request, body: PlainDepositRequest) -> DepositAnswer | Response:
    """The same, not signed in: what anybody says of a transaction can harm nobody."""
    return await _credit(request, Claim(check_wallet(body.user_pubkey), body.tx_sig, body.payer_signature))


@router.get("/api/account/deposits")
async def deposits(
    request: Request,
    wallet: AccountReader,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> DepositList:
    """What the chain has told of the caller's deposit, newest first."""
    rows = await request.app.state.rooms.account.history(wallet, before, limit)
    return DepositList(deposits=[_event(row) for row in rows], next_before=rows[-1].id if len(rows) == limit else None)


async def _credit(request: Request, claim: Claim) -> DepositAnswer | Response:
    try:
        credited = await request.app.state.rooms.deposits.credit(claim)
    except DepositPending as error:
        return _pending(error)
    return DepositAnswer(was_booked=credited.was_booked, deposits=[_event(row) for row in credited.events])


def _pending(error: DepositPending) -> Response:
    answer = PendingAnswer(
        confirmations=error.facts.get("confirmations"), needed=error.facts.get("needed"), message=error.message
    )
    headers = {"retry-after": str(max(1, math.ceil(error.retry_after or 1)))}
    return Response(answer.model_dump_json(), 202, headers, "application/json")


def _event(row: BookedEvent) -> ChainEventAnswer:
    return ChainEventAnswer(
        id=row.id,
        kind=row.kind,
        wallet_address=row.wallet_address,
        tx_hash=events.tx_id_of(row),
        units=events.units_of(row),
        block_number=row.block_number,
        booked_at=row.seen_at,
        vanished_at=row.vanished_at,
    )
