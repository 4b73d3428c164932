"""``/api/account``: what a user has."""

from __future__ import annotations

from fastapi import APIRouter, Request

from far_mesh.marketplace.account.schemas import BalanceAnswer
from far_mesh.marketplace.auth.endpoints import Caller
from far_mesh.marketplace.chain.amounts import units_to_far

router = APIRouter(prefix="/api/account", tags=["account"])


@router.get("/balance")
async def balance(request: Request, wallet: Caller) -> BalanceAnswer:
    """The caller's prepaid money, and where to pay more in."""
    rooms = request.app.state.rooms
    found = await rooms.account.balance(wallet)
    return BalanceAnswer(
        wallet_address=wallet,
        available_units=found.available,
        held_units=found.held,
        deposited_units=found.deposited,
        available_far=units_to_far(found.available),
        held_far=units_to_far(found.held),
        deposited_far=units_to_far(found.deposited),
        chain_id=rooms.chain.chain_id,
        token_address=rooms.chain.token_address,
        escrow_address=rooms.chain.escrow_address,
    )
