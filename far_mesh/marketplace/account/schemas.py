"""Shapes of a user's account."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TX_CHARACTERS = 128
MAX_SIGNATURE_CHARACTERS = 256

TxId = Annotated[str, Field(min_length=1, max_length=MAX_TX_CHARACTERS)]
Signature = Annotated[str, Field(max_length=MAX_SIGNATURE_CHARACTERS)]


class BalanceAnswer(BaseModel):
    """A user's prepaid money, and where to pay more in: into the escrow, or by transfer to ``deposit_address``.
    ``credit``: by how much later requests will cost less, for promises that earlier ones have missed. ``chain`` is a
    CAIP-2 name. Units are 1e-9 FAR; the ``_far`` numbers are for eyes only."""

    wallet_address: str
    available_units: int
    held_units: int
    deposited_units: int
    credit_units: int
    available_far: float
    held_far: float
    deposited_far: float
    credit_far: float
    payment_provider: str
    chain: str | None
    chain_id: int
    token_address: str | None
    escrow_address: str | None
    deposit_address: str | None


class DepositRequest(BaseModel):
    """Which transaction has paid in. ``payer_signature``: by a wallet other than the caller's, over the text that the
    answer without it names."""

    model_config = ConfigDict(extra="forbid")

    tx_hash: TxId
    payer_signature: Signature | None = None


class PlainDepositRequest(BaseModel):
    """The same of anybody, for the account ``user_pubkey``."""

    model_config = ConfigDict(extra="forbid")

    tx_sig: TxId
    user_pubkey: Annotated[str, Field(max_length=64)]
    payer_signature: Signature | None = None


class ChainEventAnswer(BaseModel):
    """Something that the chain has told of a user's deposit. ``units`` is by how much it changed. ``vanished_at``: when
    its block was found to be given up; then it counts no more."""

    id: int
    kind: str
    wallet_address: str
    tx_hash: str
    units: int
    block_number: int
    booked_at: datetime
    vanished_at: datetime | None


class DepositAnswer(BaseModel):
    """What a transaction was credited as. ``was_booked``: it had been credited before, by whoever."""

    status: Literal["credited"] = "credited"
    was_booked: bool
    deposits: list[ChainEventAnswer]


class PendingAnswer(BaseModel):
    """It is too early: ask again. ``needed`` are confirmations, or a word of the chain's own."""

    status: Literal["pending"] = "pending"
    confirmations: int | None
    needed: int | str | None
    message: str


class DepositList(BaseModel):
    """Newest first. ``next_before``: for the next page, if there may be one."""

    deposits: list[ChainEventAnswer]
    next_before: int | None
