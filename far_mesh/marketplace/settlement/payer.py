"""The payer: the one process that pays providers by transfer, where there is no escrow.

A transfer is signed first, which changes nothing. Then batch, books, what it pays for and the signed bytes are written
down in one transaction of whoever holds the lease; then it is sent. So a crash leaves nothing or something that is
followed up, and what is on its way is known by name. Nothing is signed while a transfer is on its way. Only when none
of its attempts has paid or ever will, what it paid for is free for another one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from far_mesh.marketplace.chain.node import SignedCall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import (
    ChainUnavailable,
    Conflict,
    DatabaseUnavailable,
    InsufficientFunds,
    TransactionReverted,
)
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import PLATFORM
from far_mesh.marketplace.payments import addresses
from far_mesh.marketplace.payments.errors import PayoutFundsShort, PayoutInFlight, PayoutInvalid
from far_mesh.marketplace.payments.provider import (
    Block,
    Coin,
    PaymentProvider,
    Payout,
    SignedPayouts,
    State,
    Status,
)
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.bell import Bell, either
from far_mesh.marketplace.settlement.lead import Lead
from far_mesh.marketplace.settlement.schemas import Attempt, Kind, Row
from far_mesh.marketplace.settlement.transfer_repository import WORKS_AT_ONCE, Held
from far_mesh.marketplace.settlement.transfers import TRANSFER, Fate, Rule, Share, Waiting, fate, is_due, share_of

LOOK_SECONDS = 1.0
OFFER_SECONDS = 10.0
"""How often the same bytes are offered again while they are in no block."""
WATCH_SECONDS = 15.0
"""How often it is looked whether the blocks in which transfers were paid are still there."""
PATIENCE_SECONDS = 30.0
"""For how long whoever could not be paid is passed over, and how long to wait where nobody can be."""
NO_ADDRESS = "no_payout_address"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Patience:
    """After ``bump_seconds`` in no block more is offered for a transfer. For ``reorg_blocks`` after it was paid it is
    watched whether its block is still there."""

    bump_seconds: float = 30.0
    reorg_blocks: int = 64


class Payer:
    """Owner of the paying wallet: of one transaction at a time."""

    def __init__(
        self,
        database: Database,
        provider: PaymentProvider,
        coin: Coin,
        gateway: Gateway,
        rule: Rule,
        patience: Patience,
        new_rows: Bell,
    ) -> None:
        self._database = database
        self._provider = provider
        self._coin = coin
        self._rule = rule
        self._patience = patience
        self._new_rows = new_rows
        self._lead = Lead(database, gateway)
        self._offered: dict[int, float] = {}
        self._raised_under: int | None = None
        self._passed_over: dict[str, tuple[float, Held]] = {}
        self._rests_until = 0.0
        self._watches_at = 0.0

    async def run(self) -> None:
        """Pay until cancelled. A chain or a database that does not answer is asked again."""
        while True:
            rung = self._new_rows.listen()
            try:
                await self.settle()
            except (ChainUnavailable, DatabaseUnavailable) as error:
                log.warning("payouts_wait", code=error.code, objection=error.facts.get("objection"))
            await either(rung, LOOK_SECONDS)

    async def settle(self) -> bool:
        """One round. Whether this process may do it at all; it may not any more when it slept for too long."""
        return await self._lead.round(self._round)

    async def _round(self, is_new: bool) -> None:
        """What the chain gave up, what became of what was sent, what is due."""
        if is_new:
            self._offered.clear()  # a newcomer offers at once what its predecessor wrote down
        await self._watch()
        await self._follow_up()
        if await self._compose():
            await self._follow_up()

    # ---- what the chain gave up

    async def _watch(self) -> None:
        """What was paid in a block that the chain has given up is on its way again."""
        if time.monotonic() < self._watches_at:
            return
        newest = await self._provider.newest_block()
        if newest is not None:
            async with self._database.reading() as connection:
                young = await transfers.confirmed_after(connection, newest - self._patience.reorg_blocks)
            for row in young:
                await self._lead.keep()
                await self._look_again(row)
        self._watches_at = time.monotonic() + WATCH_SECONDS

    async def _look_again(self, row: Row) -> None:
        attempts, told = await self._statuses(row)
        for attempt, status in zip(attempts, told, strict=True):
            if status.state is State.CONFIRMED:
                assert status.block is not None
                if (attempt.tx_hash, status.block) != (row.tx_hash, _block_of(row)):
                    await self._move(row, status.block, attempt)
                return
        if fate(told) is not Fate.WAIT:
            await self._vanish(row)

    # ---- what became of what was sent

    async def _follow_up(self) -> None:
        async with self._database.reading() as connection:
            rows = await outbox.on_their_way(connection)
        for row in rows:
            await self._lead.keep()
            await self._follow(row)

    async def _follow(self, row: Row) -> None:
        attempts, told = await self._statuses(row)
        found = fate(told)
        if found is Fate.PAID:
            place = next(index for index, status in enumerate(told) if status.state is State.CONFIRMED)
            block = told[place].block
            assert block is not None
            await self._confirm(row, block, attempts[place])
        elif found is Fate.NEVER:
            # Asked twice: between two questions the chain may have put one attempt in the place of another.
            if fate((await self._statuses(row))[1]) is Fate.NEVER:
                await self._give_up(row, told)
        elif found is Fate.OPEN:
            await self._push(row)

    async def _statuses(self, row: Row) -> tuple[list[Attempt], list[Status]]:
        """All attempts, the newest first, and what the chain says of each."""
        async with self._database.reading() as connection:
            attempts = await outbox.attempts(connection, row)
        told = []
        for one in attempts:
            seen = _block_of(row) if one.tx_hash == row.tx_hash else None
            told.append(await self._provider.status(_as_signed(one), seen))
        return attempts, told

    async def _push(self, row: Row) -> None:
        """Offer it, the first time and now and then; and with more for whoever makes the blocks, if it waits for too
        long."""
        hastened = await self._hasten(row) if self._has_waited(row) else None
        if hastened is not None:
            await self._offer(hastened)
        elif time.monotonic() >= self._offered.get(row.id, 0.0):
            await self._offer(row)

    def _has_waited(self, row: Row) -> bool:
        return row.sent_at is not None and now() - row.sent_at > timedelta(seconds=self._patience.bump_seconds)

    async def _hasten(self, row: Row) -> Row | None:
        """Sign it with a better offer. None where there is no such thing, or where no block was made since the last
        time: then it is not for the fee that it waits."""
        newest = await self._provider.newest_block()
        if newest is None or newest == self._raised_under:
            return None
        before = _newest(row)
        signed = await self._provider.hasten(before)
        self._raised_under = newest
        if signed.tx_id == before.tx_id:
            return None
        async with self._lead.writing() as connection:
            sent = await outbox.mark_sent(connection, row, _call(signed))
        if sent is not None:
            log.info("transfer_hastened", name=row.request_id, attempt=sent.attempts)
        return sent

    async def _offer(self, row: Row) -> None:
        """Hand the written-down bytes to the chain.

        Raises:
            LeaseLost: somebody else does that now.
        """
        await self._lead.keep()
        objection = await self._provider.send(_newest(row))
        self._offered[row.id] = time.monotonic() + OFFER_SECONDS
        if objection:
            log.warning("transfer_not_taken", name=row.request_id, objection=objection)
            async with self._lead.writing() as connection:
                await outbox.note_objection(connection, row, objection)

    # ---- how a row changes

    async def _confirm(self, row: Row, block: Block, attempt: Attempt) -> None:
        async with self._lead.writing() as connection:
            confirmed = await outbox.mark_confirmed(connection, row, block, attempt)
            if confirmed is None:
                return
            await ledger.payout_confirmed(connection, row.request_id, vanished=confirmed.vanished)
            await transfers.mark_paid(connection, row.payload["number"], now())
        log.info("transfer_paid", name=row.request_id, tx_hash=attempt.tx_hash, block=block.number)
        self._rests_until = 0.0

    async def _give_up(self, row: Row, told: Sequence[Status]) -> None:
        """None of its attempts has paid or ever will: what was earned is owed again."""
        is_refused = any(status.state is State.FAILED for status in told)
        code, why = ("reverted", "the chain refused it") if is_refused else ("displaced", "it will never be in a block")
        async with self._lead.writing() as connection:
            failed = await outbox.mark_failed(connection, row, code, why)
            if failed is None:
                return
            await ledger.payout_returned(connection, row.request_id, why, vanished=failed.vanished)
            await transfers.dissolve(connection, row.payload["number"])
        log.error("transfer_failed", name=row.request_id, reason=code, tx_hash=row.tx_hash)
        if is_refused:
            for wallet, _address, _units in row.payload["payouts"]:
                self._pass_over(wallet, Held(code, f"{why}: {row.tx_hash}"))

    async def _vanish(self, row: Row) -> None:
        async with self._lead.writing() as connection:
            vanished = await outbox.mark_vanished(connection, row)
            if vanished is None:
                return
            await ledger.payout_vanished(connection, row.request_id, vanished.vanished)
            await transfers.mark_paid(connection, row.payload["number"], None)
        log.warning("transfer_vanished", name=row.request_id, block=row.block_number)
        self._offered.pop(row.id, None)

    async def _move(self, row: Row, block: Block, attempt: Attempt) -> None:
        async with self._lead.writing() as connection:
            await outbox.mark_moved(connection, row, block, attempt)
        log.info("transfer_moved", name=row.request_id, block=block.number)

    # ---- what is due

    async def _compose(self) -> bool:
        """Sign and write down what is due, or was ordered. Whether there was anything."""
        async with self._database.reading() as connection:
            ordered = await batches.is_ordered(connection)
            if not ordered and time.monotonic() < self._rests_until:
                return False
            if await outbox.has_unfinished(connection):
                return False
            waiting = await transfers.waiting(connection)
        due = [one for one in waiting if is_due(one, self._rule, now()) or (ordered and one.owed_units > 0)]
        held: dict[str, Held] = {}
        try:
            composed = await self._compose_of(due, held)
        except PayoutInFlight as error:
            log.warning("payouts_wait", code=error.code, objection=error.message)
            self._rests_until = time.monotonic() + LOOK_SECONDS
            return False
        await self._note(held, {share.wallet for share in composed}, {one.wallet for one in due})
        if composed:
            return True
        if ordered:
            async with self._lead.writing() as connection:
                await batches.finish_orders(connection)
        self._rests_until = time.monotonic() + (PATIENCE_SECONDS if held else LOOK_SECONDS)
        return False

    async def _compose_of(self, due: Sequence[Waiting], held: dict[str, Held]) -> list[Share]:
        """One transfer to the first of these who can be paid. Who cannot is in ``held`` then."""
        left = list(due)
        while left:
            shares: list[Share] = []
            while left and len(shares) < self._provider.max_payouts:
                one = left.pop(0)
                share = await self._share(one)
                if isinstance(share, Held):
                    held[one.wallet] = share
                elif share is not None and share.address not in {other.address for other in shares}:
                    shares.append(share)
            signed, shares = await self._sign(shares, held)
            if signed is not None:
                return shares if await self._write(signed, shares) else []
            if any(one.code == PayoutFundsShort.code for one in held.values()):
                break  # those behind would be paid out of the same wallet
        return []

    async def _share(self, one: Waiting) -> Share | Held | None:
        until, why = self._passed_over.get(one.wallet, (0.0, None))
        if why is not None and time.monotonic() < until:
            return why
        address = await self._address(one.wallet)
        if address is None:
            return Held(NO_ADDRESS, "this wallet has not said where it is to be paid")
        info = await self._provider.explain_address(address)
        if not info.payable:
            return self._pass_over(one.wallet, Held(PayoutInvalid.code, f"{info.address}: {info.explanation}"))
        async with self._database.reading() as connection:
            works = await transfers.works(connection, one.wallet)
        return share_of(one, info.address, works, self._coin, is_all=len(works) < WORKS_AT_ONCE)

    async def _address(self, wallet: str) -> str | None:
        if self._provider.pays_wallets:
            return wallet
        async with self._database.reading() as connection:
            return await addresses.effective(connection, wallet, now())

    async def _sign(self, shares: Sequence[Share], held: dict[str, Held]) -> tuple[SignedPayouts | None, list[Share]]:
        """One transaction for as many of these as can be paid: where the chain refuses all together, it is asked about
        each alone, and where there is too little for all, there may be enough for the first. Nothing is sent.

        Raises:
            PayoutInFlight: something that we do not know of is on its way.
        """
        accepted = list(shares)
        while accepted:
            answer = await self._try(accepted)
            if isinstance(answer, SignedPayouts):
                return answer, accepted
            if len(accepted) == 1:
                held[accepted[0].wallet] = self._refuse(accepted[0], answer)
                break
            if answer.code == PayoutFundsShort.code:
                accepted = accepted[: len(accepted) // 2]
                continue
            alone = [(share, await self._try([share])) for share in accepted]
            held |= {share.wallet: self._refuse(share, why) for share, why in alone if isinstance(why, Held)}
            fine = [share for share, why in alone if isinstance(why, SignedPayouts)]
            accepted = fine if len(fine) < len(accepted) else accepted[:1]
        return None, []

    async def _try(self, shares: Sequence[Share]) -> SignedPayouts | Held:
        try:
            return await self._provider.prepare([Payout(share.address, share.units) for share in shares])
        except (PayoutInvalid, PayoutFundsShort, TransactionReverted) as error:
            return Held(error.code, error.message)

    def _refuse(self, share: Share, why: Held) -> Held:
        return why if why.code == PayoutFundsShort.code else self._pass_over(share.wallet, why)

    def _pass_over(self, wallet: str, why: Held) -> Held:
        log.warning("payout_held", wallet=wallet, code=why.code, reason=why.reason)
        self._passed_over[wallet] = (time.monotonic() + PATIENCE_SECONDS, why)
        return why

    async def _write(self, signed: SignedPayouts, shares: Sequence[Share]) -> bool:
        """All of it, or nothing."""
        payouts = {share.wallet: share.units for share in shares}
        try:
            async with self._lead.writing() as connection:
                number = await batches.next_number(connection)
                name = f"{TRANSFER}{number}"
                await transfers.add(connection, number, shares)
                await ledger.payout_sent(connection, name, payouts, 0)
                paid = [[share.wallet, share.address, share.units] for share in shares]
                await outbox.add(connection, Kind.TRANSFER, name, PLATFORM, {"number": number, "payouts": paid})
                row = await outbox.find(connection, Kind.TRANSFER, name)
                assert row is not None
                await outbox.mark_sent(connection, row, _call(signed))
        except (Conflict, InsufficientFunds) as error:
            log.warning("transfer_not_written", code=error.code, objection=error.message)
            return False
        log.info("transfer_composed", number=number, providers=len(shares), units=sum(payouts.values()))
        return True

    async def _note(self, held: Mapping[str, Held], paid: Collection[str], due: Collection[str]) -> None:
        """Keep who cannot be paid, for whoever asks. Written only where it has changed."""
        async with self._database.reading() as connection:
            before = await transfers.held(connection)
        news = {wallet: why for wallet, why in held.items() if before.get(wallet) != why}
        free = {wallet for wallet in before if wallet in paid or wallet not in due}
        if news or free:
            async with self._lead.writing() as connection:
                await transfers.note_held(connection, news, free)


def _block_of(row: Row) -> Block | None:
    return None if row.block_number is None else Block(row.block_number, row.block_hash)


def _as_signed(attempt: Attempt) -> SignedPayouts:
    return SignedPayouts(attempt.tx_hash, attempt.raw_tx, attempt.nonce)


def _newest(row: Row) -> SignedPayouts:
    return SignedPayouts(row.signed.tx_hash, row.signed.raw, row.signed.nonce)


def _call(signed: SignedPayouts) -> SignedCall:
    return SignedCall(signed.raw, signed.tx_id, signed.fence)
