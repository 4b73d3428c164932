"""Deposits that a caller names by their transaction, before the watcher has seen them or where there is none.

Into the escrow: credited to whom the escrow says, whoever names the transaction. By transfer, credited to the account
that names it, which its payer alone may do: with the wallet that paid, or with a signature of it over
:func:`claim_text`. Either way once, however often and by however many it is named.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from far_mesh.marketplace.account import events, repository
from far_mesh.marketplace.account.repository import BookedEvent, ChainIdentity
from far_mesh.marketplace.account.watcher import belong_together
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainUnavailable, DatabaseUnavailable
from far_mesh.marketplace.payments.errors import (
    DepositNotYours,
    DepositPending,
    DepositRefused,
    DepositUnknown,
    PaymentsOff,
)
from far_mesh.marketplace.payments.provider import Coin, Deposit, PaymentProvider
from far_mesh.marketplace.payments.vouchers import Domain

AT_ONCE = 8
"""How many transactions are verified at the same time: each asks the chain several questions."""
RECHECK_SECONDS = 15.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claim:
    """Somebody says: this transaction has paid in. ``payer_signature`` is over :func:`claim_text`."""

    wallet: str
    tx_id: str
    payer_signature: str | None = None


@dataclass(frozen=True)
class Credited:
    """What a transaction was credited as. ``was_booked``: it had been credited before."""

    events: tuple[BookedEvent, ...]
    was_booked: bool


@dataclass(frozen=True)
class PayIn:
    """Where users pay in: into the escrow at ``escrow_address``, by transfer to ``deposit_address``, or not at all
    where both are None. ``token_address`` None: the chain's own coin. ``chain_id`` is what sign-in messages name."""

    payment_provider: str
    chain_id: int
    chain: str | None = None
    token_address: str | None = None
    escrow_address: str | None = None
    deposit_address: str | None = None


def claim_text(place: str, tx_id: str, wallet: str) -> str:
    """What the payer signs to have a transfer credited to ``wallet``. ``place`` is the domain of this marketplace."""
    return f"{place}: credit the deposit {tx_id} to the account {wallet}"


class Deposits(ABC):
    """One who is told of a transaction verifies it and books it, for all who ask about it at the same time."""

    def __init__(self, database: Database, provider: PaymentProvider, first_block: int) -> None:
        self._database = database
        self._provider = provider
        self._first_block = first_block
        self._under_way: dict[Claim, asyncio.Task[Credited]] = {}
        self._few = asyncio.Semaphore(AT_ONCE)

    @abstractmethod
    async def credit(self, claim: Claim) -> Credited:
        """Credit what a transaction has paid in.

        Raises:
            InvalidArgument: not the name of a transaction.
            DepositUnknown, DepositPending, DepositRefused: there is none, it is too early, it pays nothing in.
            DepositNotYours: somebody else has paid it.
            Conflict: it was credited to another account of its payer's.
            PaymentsOff: there are no payments here.
        """

    async def _together(self, claim: Claim, act: Callable[[], Awaitable[Credited]]) -> Credited:
        task = self._under_way.get(claim)
        if task is not None:
            return replace(await asyncio.shield(task), was_booked=True)

        async def alone() -> Credited:
            try:
                async with self._few:
                    return await act()
            finally:
                del self._under_way[claim]

        task = self._under_way[claim] = asyncio.create_task(alone())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asked may be gone
        return await asyncio.shield(task)

    async def _verified(self, tx_id: str) -> tuple[Deposit, ...]:
        deposits = await self._provider.verify_deposit(tx_id)
        if any(deposit.block.number < self._first_block for deposit in deposits):
            raise DepositRefused(f"this is from before block {self._first_block}, with which these books begin")
        return deposits


class EscrowDeposits(Deposits):
    """Deposits into the escrow. The watcher books the same events by the same function."""

    def __init__(self, database: Database, provider: PaymentProvider, first_block: int, chain: Chain) -> None:
        super().__init__(database, provider, first_block)
        self._chain = chain
        self._domain = Domain(chain.chain_id, chain.escrow_address)

    async def credit(self, claim: Claim) -> Credited:
        """See :class:`Deposits`. Who asks makes no difference."""
        tx_hash = claim.tx_id.lower()
        if known := await self._known(tx_hash):
            return Credited(known, True)
        return await self._together(Claim("", tx_hash), lambda: self._book(tx_hash))

    async def _known(self, tx_hash: str) -> tuple[BookedEvent, ...]:
        async with self._database.reading() as connection:
            rows = await repository.live_of(connection, tx_hash)
        return tuple(row for row in rows if row.kind == events.DEPOSITED)

    async def _book(self, tx_hash: str) -> Credited:
        verified = await self._verified(tx_hash)
        seen = await self._chain.escrow_events_of([events.DEPOSITED], tx_hash)
        if {event.block_hash for event in seen} != {deposit.block.hash for deposit in verified}:
            raise DepositPending("the chain has just changed its mind about this block; ask again", retry_after=2.0)
        async with self._database.writing() as connection:
            await repository.hold(connection)
            booked = [await events.book(connection, self._domain, event) for event in seen]
        return Credited(await self._known(tx_hash), not any(booked))


class TransferDeposits(Deposits):
    """Deposits by plain transfer. They are verified again while their blocks are young."""

    def __init__(
        self, database: Database, provider: PaymentProvider, first_block: int, place: str, reorg_blocks: int
    ) -> None:
        super().__init__(database, provider, first_block)
        self._place = place
        self._reorg_blocks = reorg_blocks

    async def open(self) -> Coin | None:
        """Check the provider, and that the database belongs to its chain and its coin. The coin, if there is one.

        Raises:
            ChainMismatch: it belongs to others, or the chain is not as the settings say.
        """
        coin, identity = None, ChainIdentity(0, "none", "none")
        with suppress(PaymentsOff):
            coin = await self._provider.check()
            identity = ChainIdentity(0, coin.chain, coin.token or coin.symbol)
        await belong_together(self._database, identity, self._first_block)
        return coin

    async def answers(self) -> None:
        """Does the chain answer, if there is one?

        Raises:
            ChainUnavailable: it does not.
        """
        with suppress(PaymentsOff):
            await self._provider.check()

    async def credit(self, claim: Claim) -> Credited:
        """See :class:`Deposits`."""
        return await self._together(claim, lambda: self._book(claim))

    async def _book(self, claim: Claim) -> Credited:
        verified = await self._verified(claim.tx_id)
        own = [deposit for deposit in verified if self._may(claim, deposit.payer)]
        if not own:
            text = claim_text(self._place, claim.tx_id, claim.wallet)
            raise DepositNotYours(
                f"{verified[0].payer} has paid this and alone may claim it: sign in with that wallet, or let it sign "
                f"{text!r} and send that as payer_signature",
                payer=verified[0].payer,
            )
        async with self._database.writing() as connection:
            await repository.hold(connection)
            booked = [await events.book_transfer(connection, claim.wallet, claim.tx_id, deposit) for deposit in own]
            rows = [row for deposit in own for row in await repository.live_of(connection, deposit.deposit_id)]
        return Credited(tuple(rows), not any(booked))

    def _may(self, claim: Claim, payer: str) -> bool:
        if payer == claim.wallet:
            return True
        signature, text = claim.payer_signature, claim_text(self._place, claim.tx_id, claim.wallet)
        return signature is not None and self._provider.signed_by(payer, text, signature)

    # ---- what became of them

    async def run(self) -> None:
        """Verify young deposits again until cancelled."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                await self.look()
            except (ChainUnavailable, DatabaseUnavailable) as error:
                log.warning("deposits_not_read", code=error.code)

    async def look(self) -> None:
        """Take back what the chain has given up, and book again what has come back."""
        newest = await self._provider.newest_block()
        if newest is None:
            return
        async with self._database.reading() as connection:
            young = await repository.latest_since(connection, events.TRANSFERRED, newest - self._reorg_blocks)
        for row in young:
            await self._follow(row)

    async def _follow(self, row: BookedEvent) -> None:
        tx_id = events.tx_id_of(row)
        try:
            verified = await self._provider.verify_deposit(tx_id)
        except (DepositUnknown, DepositPending, DepositRefused):
            verified = ()
        there = next((deposit for deposit in verified if deposit.deposit_id == row.tx_hash), None)
        async with self._database.writing() as connection:
            await repository.hold(connection)
            if there is not None:
                await events.book_transfer(connection, row.wallet_address, tx_id, there)
            elif row.vanished_at is None:
                await events.take_back(connection, None, row)
