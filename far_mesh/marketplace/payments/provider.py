"""The interface that every way of paying fits, and the words it is made of.

Amounts that cross it are units of 1e-9 of the coin, as in the books; atoms are the smallest part of the coin on its
chain (wei, or what the decimals of a token say). Nothing here books anything: a provider says what a chain holds to be
true, and signs what it is told to pay.

Paying takes three steps, so that a crash between any two of them loses nothing and pays nothing twice::

    signed = await provider.prepare(payouts)       # nothing has left yet
    # write signed down, in the transaction that books the payout
    await provider.send(signed)                    # as often as needed: the same bytes
    status = await provider.status(signed, seen)   # seen: the block in which it was found before, if it was
    # only after FAILED or DISPLACED may the same payouts be prepared again
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from far_mesh.marketplace.payments.errors import PayoutInvalid

UNIT_DECIMALS = 9


@dataclass(frozen=True)
class Coin:
    """What is paid with. ``chain`` is a CAIP-2 name such as ``eip155:56``; ``token`` is the contract or mint, or None
    for the chain's own coin."""

    symbol: str
    decimals: int
    chain: str
    token: str | None = None

    def units_of(self, atoms: int) -> int:
        """Whole units in ``atoms``: what is less than one unit is nobody's balance."""
        if self.decimals >= UNIT_DECIMALS:
            return int(atoms // 10 ** (self.decimals - UNIT_DECIMALS))
        return int(atoms * 10 ** (UNIT_DECIMALS - self.decimals))

    def payable(self, units: int) -> int:
        """The most that is not more than ``units`` and is a whole number of atoms. The rest waits for the next time."""
        if self.decimals >= UNIT_DECIMALS:
            return units
        return units - units % int(10 ** (UNIT_DECIMALS - self.decimals))

    def atoms_of(self, units: int) -> int:
        """Exact.

        Raises:
            PayoutInvalid: the coin has no such small part; see :meth:`payable`.
        """
        if units != self.payable(units):
            raise PayoutInvalid(f"{units} units are not a whole number of the smallest part of {self.symbol}")
        if self.decimals >= UNIT_DECIMALS:
            return int(units * 10 ** (self.decimals - UNIT_DECIMALS))
        return int(units // 10 ** (UNIT_DECIMALS - self.decimals))


class AddressKind(StrEnum):
    """What an address is."""

    WALLET = "wallet"
    CONTRACT = "contract"
    TOKEN_ACCOUNT = "token account"  # noqa: S105 - an account of the SPL token program
    OURS = "ours"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class AddressInfo:
    """What is to be known before something is paid to an address. ``address`` is its canonical form, or what was asked
    when it has none; ``explanation`` is for people."""

    address: str
    kind: AddressKind
    payable: bool
    explanation: str


@dataclass(frozen=True)
class Block:
    """A place in a chain. ``hash`` tells two blocks of one number apart, where the chain has such a thing."""

    number: int
    hash: str | None = None


@dataclass(frozen=True)
class Deposit:
    """Money that has arrived for good.

    ``deposit_id`` is the same for the same money however often, whenever and by whomever it is verified: whoever books
    it makes it the key, so that it counts once. ``payer`` is who may claim it.
    """

    deposit_id: str
    payer: str
    atoms: int
    units: int
    block: Block


@dataclass(frozen=True)
class Payout:
    """What somebody is to get."""

    to: str
    units: int


@dataclass(frozen=True)
class Batch:
    """Payouts that are netted: many requests, one line per provider.

    ``number`` is used once. ``charges`` are units by wallet, taken from users' deposits by their allowances; what they
    do not cover comes from vouchers that were redeemed. ``fee_units`` go to the platform. ``details`` is the Merkle
    root of the lines that were netted, for whoever wants to check them.
    """

    number: int
    charges: Mapping[str, int] = field(default_factory=dict)
    fee_units: int = 0
    details: bytes = bytes(32)


@dataclass(frozen=True)
class SignedPayouts:
    """A transaction that anybody who has ``raw`` can send.

    ``fence`` is what keeps it from happening twice: the nonce of the paying wallet, or the last block height at which
    the chain would still take it.
    """

    tx_id: str
    raw: str = field(repr=False)
    fence: int


class State(StrEnum):
    """What has become of a transaction."""

    PENDING = "pending"  # in no block, and may still get there: send it again
    CONFIRMING = "confirming"  # in a block with too few on top
    CONFIRMED = "confirmed"
    FAILED = "failed"  # in a block for good, and refused: nothing was paid
    VANISHED = "vanished"  # was in a block that the chain has given up, and may return: send the same bytes again
    DISPLACED = "displaced"  # will never be in a block: nothing was paid


@dataclass(frozen=True)
class Status:
    """The state of a transaction, and where it is if it is in a block. Keep ``block`` and show it the next time."""

    state: State
    block: Block | None = None
    confirmations: int = 0

    @property
    def may_pay_again(self) -> bool:
        """Whether nothing was paid, for good."""
        return self.state in (State.FAILED, State.DISPLACED)


class PaymentProvider(ABC):
    """One way of paying. Made by a factory that takes the settings and touches no network; used from one event loop.

    A package adds its own with an entry point in the group ``far_mesh.payment_providers``: its name is what
    ``FAR_PAYMENT_PROVIDER`` is set to, its object is such a factory. Methods raise members of ``FarError`` only, among
    them ``ChainUnavailable`` where the chain is asked.
    """

    max_payouts: int = 1
    """How many payouts fit into one transaction."""

    pays_wallets: bool = False
    """Whether the wallets that nodes name are addresses of this chain. Elsewhere providers say where they are paid."""

    deposit_address: str | None = None
    """Where users pay in by transfer, if they do."""

    @abstractmethod
    async def check(self) -> Coin:
        """Is everything as the settings say: the chain, the coin, the keys? To be called once, before all else.

        Raises:
            ChainMismatch: another chain, or the token or the escrow is not there.
        """

    @abstractmethod
    async def verify_deposit(self, tx_id: str) -> tuple[Deposit, ...]:
        """What a transaction has paid in: at least one deposit.

        Raises:
            InvalidArgument: ``tx_id`` is not the name of a transaction on this chain.
            DepositUnknown: there is no such transaction.
            DepositPending: it is too early; ask again.
            DepositRefused: it pays nothing in, and why.
        """

    async def newest_block(self) -> int | None:
        """The newest block, so that young deposits can be verified again; None where what was verified is final."""
        return None

    def signed_by(self, payer: str, text: str, signature: str) -> bool:
        """Whether the key of ``payer`` has signed ``text``, in the way in which wallets of this chain sign texts."""
        return False

    @abstractmethod
    async def explain_address(self, address: str) -> AddressInfo:
        """What an address is, and whether it can be paid. Any text can be asked about."""

    @abstractmethod
    async def prepare(self, payouts: Sequence[Payout], *, batch: Batch | None = None) -> SignedPayouts:
        """Sign one transaction for these payouts; nothing is sent.

        Only one transaction is on its way at a time: each is signed for the next place after what blocks hold, so of
        two that were prepared at once at most one can happen. ``batch`` is for providers whose chain nets, and
        refuses to do one batch twice; the others ignore it, and fees stay where they are.

        Raises:
            PayoutInvalid: an address, an amount or the number of payouts.
            PayoutInFlight: an earlier transaction is in no block yet.
            PayoutFundsShort: there is too little to pay them, or the fees.
            TransactionReverted: the chain would refuse it for another reason.
        """

    @abstractmethod
    async def hasten(self, signed: SignedPayouts) -> SignedPayouts:
        """The same payouts with a better offer to whoever makes the blocks, for when ``signed`` waits too long. At most
        one of the two can happen, and either may: ask for the status of both. Some chains know no such thing; then it
        is ``signed`` itself."""

    @abstractmethod
    async def send(self, signed: SignedPayouts) -> str | None:
        """Hand it to the chain; doing it again is harmless. What the chain objects to, or None. An objection decides
        nothing: only :meth:`status` does."""

    @abstractmethod
    async def status(self, signed: SignedPayouts, seen: Block | None = None) -> Status:
        """What has become of it. ``seen`` is the block of the last status, if it had one: without it a transaction that
        has vanished cannot be told from one that was never there."""

    @abstractmethod
    async def close(self) -> None:
        """Close what is open."""


def check_payouts(payouts: Sequence[Payout], most: int) -> None:
    """What holds for payouts everywhere.

    Raises:
        PayoutInvalid: none, more than ``most``, one that is not positive, or two to the same address.
    """
    if not 1 <= len(payouts) <= most:
        raise PayoutInvalid(f"{len(payouts)} payouts; one transaction carries 1 to {most}", most=most)
    if any(payout.units <= 0 for payout in payouts):
        raise PayoutInvalid("a payout must be more than nothing")
    if len({payout.to for payout in payouts}) != len(payouts):
        raise PayoutInvalid("two payouts to one address: add them up first")
