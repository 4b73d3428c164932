"""No payments: for a mesh whose members share without money. Everything is refused with a word on what to set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from far_mesh.marketplace.payments.errors import PaymentsOff
from far_mesh.marketplace.payments.provider import (
    AddressInfo,
    Batch,
    Block,
    Coin,
    Deposit,
    PaymentProvider,
    Payout,
    SignedPayouts,
    Status,
)
from far_mesh.marketplace.settings import Settings


def create(_settings: Settings) -> NoPayments:
    """For ``FAR_PAYMENT_PROVIDER=none``."""
    return NoPayments()


class NoPayments(PaymentProvider):
    """Refuses everything but to be closed."""

    def __repr__(self) -> str:
        return "NoPayments()"

    async def check(self) -> Coin:
        """Refuses."""
        _refuse()

    async def verify_deposit(self, tx_id: str) -> tuple[Deposit, ...]:
        """Refuses."""
        _refuse()

    async def explain_address(self, address: str) -> AddressInfo:
        """Refuses."""
        _refuse()

    async def prepare(self, payouts: Sequence[Payout], *, batch: Batch | None = None) -> SignedPayouts:
        """Refuses."""
        _refuse()

    async def hasten(self, signed: SignedPayouts) -> SignedPayouts:
        """Refuses."""
        _refuse()

    async def send(self, signed: SignedPayouts) -> str | None:
        """Refuses."""
        _refuse()

    async def status(self, signed: SignedPayouts, seen: Block | None = None) -> Status:
        """Refuses."""
        _refuse()

    async def close(self) -> None:
        """Nothing is open."""


def _refuse() -> NoReturn:
    raise PaymentsOff(
        "there are no payments here: FAR_PAYMENT_PROVIDER is none. Set it to evm, hyperliquid or solana",
        setting="FAR_PAYMENT_PROVIDER",
    )
