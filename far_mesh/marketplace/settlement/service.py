"""The settler: the one process that turns outbox rows into transactions, and finds out what became of them.

A row goes pending → sent → confirmed or failed, and from confirmed back to sent when the chain gives up the block. What
was signed is written down before it is sent, so after a crash the same bytes are sent again rather than new ones. What
a row means is the business of its act (:mod:`.acts`), which also says whether the chain has done it: that decides.

Who writes here holds the lease, and proves it in each transaction (:func:`.repository.hold_fence`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta

import structlog

from discovery.protocol.ids import ZERO_ADDRESS
from far_mesh.marketplace.chain.client import Chain, Escrow, address_of
from far_mesh.marketplace.chain.node import BlockId, Mined, call_of, max_fee_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import (
    AllowanceTooLow,
    ChainUnavailable,
    DatabaseUnavailable,
    InsufficientBalance,
    PaymentRequired,
    SettlementDelayed,
    TransactionReverted,
)
from far_mesh.marketplace.payments import intents
from far_mesh.marketplace.payments.errors import IntentRefused
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.acts import Act, Composer, Needless, Ready
from far_mesh.marketplace.settlement.bell import Bell, either
from far_mesh.marketplace.settlement.blocks import BlockWatch
from far_mesh.marketplace.settlement.lead import LEASE_LIFETIME, Lead
from far_mesh.marketplace.settlement.recovery import recover, recover_own
from far_mesh.marketplace.settlement.schemas import Attempt, Kind, Row, RowStatus

LOOK_SECONDS = 0.25
TEND_SECONDS = 3.0
REBROADCAST_EVERY = 20

log = structlog.get_logger(__name__)


class Settlement:
    """What the other rooms see: new rows are announced here, and a lock is awaited here. ``chain`` is None where
    there is no escrow: then nothing is ever locked."""

    def __init__(self, database: Database, chain: Chain | None, lock_timeout_seconds: float) -> None:
        self._database = database
        self._chain = chain
        self._lock_timeout = lock_timeout_seconds
        self.new_rows = Bell()
        self.finished_rows = Bell()
        self.unpayable = frozenset({ZERO_ADDRESS} if chain is None else {ZERO_ADDRESS, chain.escrow_address})

    async def locked(self, wallet: str, request_id: str) -> Escrow:
        """The escrow of a request, once its money is locked.

        Raises:
            AllowanceTooLow, InsufficientBalance, IntentRefused: the user's consent or deposit does not cover it.
            TransactionReverted: the escrow refused for another reason.
            SettlementDelayed: not in time.
        """
        assert self._chain is not None
        try:
            async with asyncio.timeout(self._lock_timeout):
                row = await self._finished(Kind.LOCK, request_id)
        except TimeoutError:
            raise SettlementDelayed(
                "the money could not be locked on chain in time; try again", retry_after=10.0
            ) from None
        if row.status is RowStatus.FAILED:
            raise _refusal(row)
        return await self._chain.escrow_of(wallet, request_id)

    async def _finished(self, kind: Kind, request_id: str) -> Row:
        while True:
            rung = self.finished_rows.listen()
            async with self._database.reading() as connection:
                row = await repository.find(connection, kind, request_id)
            if row is not None and row.is_final:
                return row
            await either(rung, LOOK_SECONDS)


_REFUSED_INTENTS = {
    "EscrowInvalidSignature": "the intent is not signed by its user",
    "EscrowNonceAlreadyUsed": "an intent with this nonce was used or cancelled before",
    "EscrowIntentExpired": "the intent has expired",
    "EscrowFeeTooHigh": "the escrow's fee is higher than the intent allows",
}


def _refusal(row: Row) -> PaymentRequired | TransactionReverted:
    if "intent" in row.payload and row.error_code in _REFUSED_INTENTS:
        return IntentRefused(_REFUSED_INTENTS[row.error_code], param=intents.PARAM)
    if row.error_code == "EscrowInsufficientAllowance":
        return AllowanceTooLow(
            "the spending allowance on chain does not cover this request: raise it with setSpendingAllowance",
            needed_units=row.payload["units"],
        )
    if row.error_code == "EscrowInsufficientDeposit":
        return InsufficientBalance(
            "the deposit on chain does not cover this request", needed_units=row.payload["units"]
        )
    return TransactionReverted(f"the money could not be locked on chain: {row.error_code}", reason=row.error_code)


@dataclass(frozen=True)
class Rules:
    """How patient the settler is. ``confirmations``: blocks on top before a transaction counts. ``bump_seconds``: after
    this long in no block a transaction is signed again with higher fees, of at most ``max_fee_wei`` per gas.
    ``reorg_blocks``: for so many blocks after it counted it is watched whether its block is still there."""

    confirmations: int = 0
    bump_seconds: float = 30.0
    max_fee_wei: int | None = None
    reorg_blocks: int = 64


class Settler:
    """Owner of the settler's key: of one stream of nonces, whatever the transactions are for."""

    def __init__(
        self,
        database: Database,
        chain: Chain,
        private_key: str,
        gateway: Gateway,
        room: Settlement,
        acts: Mapping[Kind, Act],
        rules: Rules,
        composer: Composer | None = None,
    ) -> None:
        self._database = database
        self._chain = chain
        self._key = private_key
        self._address = address_of(private_key)
        self._lead = Lead(database, gateway)
        self._room = room
        self._acts = acts
        self._rules = rules
        self._composer = composer
        self._blocks = BlockWatch(chain)
        self._rounds = 0
        self._raised_under: int | None = None

    def __repr__(self) -> str:
        return f"Settler({self._address})"

    async def run(self) -> None:
        """Settle until cancelled. A chain or a database that does not answer is asked again."""
        while True:
            rung = self._room.new_rows.listen()
            try:
                await self.settle()
            except (ChainUnavailable, DatabaseUnavailable) as error:
                log.warning("settlement_waits", code=error.code, objection=error.facts.get("objection"))
                await asyncio.sleep(1.0)
            await either(rung, LOOK_SECONDS)

    async def settle(self) -> bool:
        """One round. Whether this process may do it at all; it may not any more when it slept for too long."""
        return await self._lead.round(self._round)

    async def _round(self, is_new: bool) -> None:
        """What the chain gave up, what became of what was sent, what is due, what is to be sent."""
        if is_new:
            self._rounds = 0  # a newcomer offers at once what its predecessor wrote down
        await self._watch()
        await self._follow_up()
        if self._composer is not None:
            await self._composer.compose(self._lead.fence)
        if await self._send_new():
            await self._follow_up()
        self._rounds += 1

    async def drain(self) -> None:
        """Settle until nothing is waiting that this process could settle."""
        while await self.settle() and await self._has_unfinished():  # noqa: ASYNC110 - it is the chain that we wait for
            await asyncio.sleep(0.05)

    async def _has_unfinished(self) -> bool:
        async with self._database.reading() as connection:
            return await repository.has_unfinished(connection)

    # ---- what the chain gave up

    async def _watch(self) -> None:
        """What was confirmed in a block that the chain has given up is looked for again."""
        deepest = await self._blocks.newest() - self._rules.reorg_blocks
        async with self._database.reading() as connection:
            noted = await repository.blocks_after(connection, deepest)
        try:
            for block in await self._blocks.given_up(noted):
                async with self._database.reading() as connection:
                    rows = await repository.confirmed_in(connection, block)
                for row in rows:
                    await self._look_again(row)
        except BaseException:
            self._blocks.forget()
            raise

    async def _look_again(self, row: Row) -> None:
        attempt, mined = await self._fate(row)
        if mined is not None and mined.ok:
            await self._move(row, mined.block, attempt)
        elif await self._act(row).has_happened(row):
            await self._move(row, await self._chain.head(), None)
        else:
            await self._vanish(row)

    # ---- what became of what was sent

    async def _follow_up(self) -> None:
        async with self._database.reading() as connection:
            rows = await repository.on_their_way(connection)
        if not rows:
            return
        newest = await self._chain.block_number()
        # Asked before the receipts: a nonce that is used now, with no receipt after, was used by something else.
        used = await self._chain.transaction_count(self._address)
        for row in rows:
            await self._lead.keep()
            if row.signed.nonce < used:
                await self._decide(row, newest, used)
        waiting = [row for row in rows if row.signed.nonce >= used]
        if waiting:
            await self._push(waiting, newest, used)

    async def _decide(self, row: Row, newest: int, used: int) -> None:
        """What has become of a row whose nonce is used: the attempt that is in a block decides, whichever it is."""
        attempt, mined = await self._fate(row)
        deep = newest - self._rules.confirmations
        if mined is not None and mined.block_number > deep:
            return
        if mined is not None and mined.ok:
            await self._confirm(row, mined.block, attempt)
        elif await self._may_still_be_mined(row, used):
            return
        elif mined is not None:
            await self._confirm_or_fail(row, "reverted", "the transaction was reverted")
        elif row.signed.nonce < await self._chain.transaction_count(self._address, max(deep, 0)):
            await self._confirm_or_sign_anew(row)

    async def _fate(self, row: Row) -> tuple[Attempt | None, Mined | None]:
        """The attempt that did it, or else one that was mined and failed, or nothing."""
        found: tuple[Attempt | None, Mined | None] = (None, None)
        for attempt in await self._attempts(row):
            mined = await self._chain.mined(attempt.tx_hash)
            if mined is not None:
                found = (attempt, mined)
                if mined.ok:
                    break
        return found

    async def _may_still_be_mined(self, row: Row, used: int) -> bool:
        """Whether the chain's node keeps an attempt with a nonce that is not used yet."""
        later = [attempt for attempt in await self._attempts(row) if attempt.nonce >= used]
        return any([await self._chain.is_waiting(attempt.tx_hash) for attempt in later])

    async def _confirm_or_sign_anew(self, row: Row) -> None:
        if await self._act(row).has_happened(row):
            await self._confirm(row, await self._chain.head())
            return
        log.warning("transaction_displaced", kind=row.kind, request_id=row.request_id, nonce=row.nonce)
        await self._sign_anew(row)

    async def _confirm_or_fail(self, row: Row, code: str, error: str) -> None:
        if await self._act(row).has_happened(row):
            await self._confirm(row, await self._chain.head())
        else:
            await self._give_up(row, code, error)

    # ---- what is in no block yet

    async def _push(self, waiting: Sequence[Row], newest: int, used: int) -> None:
        """The lowest nonce holds up all others: if it waits for too long, more is offered for it. What the node has
        forgotten, it gets again."""
        first, *others = waiting
        if self._is_stuck(first, newest) and await self._fate(first) == (None, None):
            first = await self._raise(first, newest, used)
        if self._rounds % REBROADCAST_EVERY == 0:
            for row in (first, *others):
                if not await self._chain.is_waiting(row.signed.tx_hash):
                    await self._offer(row)

    def _is_stuck(self, row: Row, newest: int) -> bool:
        # Once under one block: if the chain makes no blocks, fees are not what it waits for.
        waited = now() - (row.sent_at or now())
        return waited > timedelta(seconds=self._rules.bump_seconds) and newest != self._raised_under

    async def _raise(self, row: Row, newest: int, used: int) -> Row:
        """Sign again, dearer. Where a nonce before it is missing, because something else that used it has vanished from
        the chain, with that nonce instead. The row as it is then."""
        self._raised_under = newest
        before, most = row.signed, self._rules.max_fee_wei
        if before.nonce > used:
            call, _fees = call_of(before.raw)
            signed = await self._chain.sign(call, used, self._key, most)
        else:
            signed = await self._chain.sign_dearer(before, self._key)
        if most is not None and max_fee_of(signed.raw) > most:
            return await self._hold_at_the_cap(row)
        async with self._lead.writing() as connection:
            sent = await repository.mark_sent(connection, row, signed)
        if sent is None:
            return row
        log.info("transaction_raised", kind=row.kind, request_id=row.request_id, attempt=sent.attempts)
        await self._offer(sent)
        return sent

    async def _hold_at_the_cap(self, row: Row) -> Row:
        if row.error_code == repository.FEE_CAP:
            return row
        log.error("fee_cap_reached", kind=row.kind, request_id=row.request_id, max_fee_wei=self._rules.max_fee_wei)
        async with self._lead.writing() as connection:
            return await repository.mark_capped(connection, row) or row

    async def _offer(self, row: Row) -> None:
        """Hand the written-down bytes to the chain.

        Raises:
            LeaseLost: somebody else does that now.
        """
        await self._lead.keep()
        objection = await self._chain.send_raw(row.signed.raw)
        if objection:
            log.warning("transaction_not_taken", kind=row.kind, request_id=row.request_id, objection=objection)
            async with self._lead.writing() as connection:
                await repository.note_objection(connection, row, objection)

    # ---- what is to be sent

    async def _send_new(self) -> bool:
        async with self._database.reading() as connection:
            rows = await repository.with_status(connection, RowStatus.PENDING)
        for row in rows:
            await self._lead.keep()
            ready = await self._act(row).is_ready(row)
            if isinstance(ready, Needless):
                await self._end_needless(row, ready)
            elif ready is Ready.YES:
                await self._send(row)
        return bool(rows)

    async def _send(self, row: Row) -> None:
        try:
            call = await self._act(row).prepare(row)
        except TransactionReverted as error:
            await self._refused(row, str(error.facts["reason"]))
            return
        signed = await self._chain.sign(call, await self._next_nonce(), self._key, self._rules.max_fee_wei)
        async with self._lead.writing() as connection:
            sent = await repository.mark_sent(connection, row, signed)
        if sent is not None:
            await self._offer(sent)

    async def _refused(self, row: Row, reason: str) -> None:
        """The contract would refuse it now: because it has happened, because something is under way, or for good."""
        if await self._act(row).has_happened(row):
            await self._confirm(row, await self._chain.head())
            return
        async with self._database.reading() as connection:
            waits = await repository.has_unfinished_before(connection, row)
        if not waits:
            await self._give_up(row, reason, f"the escrow refuses: {reason}")

    async def _next_nonce(self) -> int:
        async with self._database.reading() as connection:
            last = await repository.last_nonce(connection)
        used = await self._chain.transaction_count(self._address, waiting=True)
        return used if last is None else max(used, last + 1)

    # ---- how a row changes

    async def _confirm(
        self, row: Row, block: BlockId | None, attempt: Attempt | None = None, note: str | None = None
    ) -> None:
        async with self._lead.writing() as connection:
            confirmed = await repository.mark_confirmed(connection, row, block, attempt, note)
            if confirmed is None:
                return
            await self._act(row).confirmed(connection, confirmed)
        log.info("settled", kind=row.kind, request_id=row.request_id, tx_hash=confirmed.tx_hash)
        self._room.finished_rows.ring()

    async def _fail(self, row: Row, code: str, error: str) -> None:
        async with self._lead.writing() as connection:
            failed = await repository.mark_failed(connection, row, code, error)
            if failed is None:
                return
            await self._act(row).returned(connection, failed, error)
        log.error("settlement_failed", kind=row.kind, request_id=row.request_id, reason=code, tx_hash=row.tx_hash)
        self._room.finished_rows.ring()

    async def _give_up(self, row: Row, code: str, error: str) -> None:
        """It was refused. For good, unless it came too early: before something that has yet to happen, again maybe."""
        ready = await self._act(row).is_ready(row)
        if isinstance(ready, Needless):
            await self._end_needless(row, ready)
        elif ready is Ready.YES:
            await self._fail(row, code, error)
        elif row.status is RowStatus.SENT:
            await self._sign_anew(row)

    async def _sign_anew(self, row: Row) -> None:
        async with self._lead.writing() as connection:
            await repository.mark_pending(connection, row)

    async def _end_needless(self, row: Row, why: Needless) -> None:
        if why.code is None:
            await self._confirm(row, None, note=why.note)
        else:
            await self._fail(row, why.code, why.note)

    async def _vanish(self, row: Row) -> None:
        async with self._lead.writing() as connection:
            vanished = await repository.mark_vanished(connection, row)
            if vanished is None:
                return
            await self._act(row).vanished(connection, vanished)
        log.warning("transaction_vanished", kind=row.kind, request_id=row.request_id, block=row.block_number)
        self._rounds = 0  # all that waits is offered again in this round, in nonce order

    async def _move(self, row: Row, block: BlockId, attempt: Attempt | None) -> None:
        async with self._lead.writing() as connection:
            await repository.mark_moved(connection, row, block, attempt)
        log.info("transaction_moved", kind=row.kind, request_id=row.request_id, block=block.number)

    def _act(self, row: Row) -> Act:
        return self._acts[row.kind]

    async def _attempts(self, row: Row) -> list[Attempt]:
        async with self._database.reading() as connection:
            return await repository.attempts(connection, row)


class Caretaker:
    """Says that this gateway lives, and settles what nobody cares for any more: what gateways that do not live any more
    have left behind, and what of its own is in nobody's hands. ``under_way`` are the requests that are."""

    def __init__(
        self,
        database: Database,
        gateway: Gateway,
        room: Settlement,
        under_way: Callable[[], Set[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._room = room
        self._under_way = under_way
        self._clock = clock
        self._seen = clock()
        self._judges_from = self._seen

    async def tend(self) -> None:
        """Once: the sign of life, then the orphans. Who could not give a sign itself does not take others for dead by
        theirs: it waits until they had the time to give another."""
        async with self._database.writing() as connection:
            await sessions.beat(connection, self._gateway, LEASE_LIFETIME)
        before, self._seen = self._seen, self._clock()
        if self._seen - before > LEASE_LIFETIME.total_seconds() / 2:
            self._judges_from = self._seen + LEASE_LIFETIME.total_seconds()
        found = await recover_own(self._database, self._gateway, self._under_way)
        if self._seen >= self._judges_from:
            found += await recover(self._database, self._gateway)
        if found:
            self._room.new_rows.ring()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                await self.tend()
            except DatabaseUnavailable as error:
                log.warning("gateway_not_tended", code=error.code)

    async def leave(self) -> None:
        """A polite end: what was cancelled is closed, and whoever comes next need not wait."""
        try:
            await recover_own(self._database, self._gateway, self._under_way)
            async with self._database.writing() as connection:
                await sessions.beat(connection, self._gateway, timedelta(0))
                await repository.drop_leases(connection, self._gateway)
        except DatabaseUnavailable as error:
            log.warning("left_without_a_word", code=error.code)
