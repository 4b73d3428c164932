"""Shapes of a user's account."""

from __future__ import annotations

from pydantic import BaseModel


class BalanceAnswer(BaseModel):
    """A user's prepaid money. Units are 1e-9 FAR; the ``_far`` numbers are for eyes only."""

    wallet_address: str
    available_units: int
    held_units: int
    deposited_units: int
    available_far: float
    held_far: float
    deposited_far: float
    chain_id: int
    token_address: str
    escrow_address: str
