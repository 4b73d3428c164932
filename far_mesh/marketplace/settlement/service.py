"""The settler: the one process that turns outbox rows into transactions, and finds out what became of them.

A row goes pending → sent → confirmed or failed. What was signed is written down before it is sent, so after a crash
the same bytes are sent again rather than new ones. Every act is harmless when done twice: the escrow of a request is
locked once, and released or cancelled once; so what the escrow says (:data:`~.schemas.EFFECT`) always decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from far_mesh.marketplace.chain.client import Call, Chain, Escrow, address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import (
    AllowanceTooLow,
    ChainUnavailable,
    DatabaseUnavailable,
    InsufficientBalance,
    SettlementDelayed,
    TransactionReverted,
)
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.acts import EFFECT
from far_mesh.marketplace.settlement.bell import Bell, either
from far_mesh.marketplace.settlement.recovery import recover
from far_mesh.marketplace.settlement.schemas import Fence, Kind, Row, RowStatus

ZERO_ADDRESS = "0x" + "00" * 20
LEASE = "settler"
LEASE_LIFETIME = timedelta(seconds=15)
LOOK_SECONDS = 0.25
TEND_SECONDS = 3.0
REBROADCAST_EVERY = 20

log = structlog.get_logger(__name__)


class Settlement:
    """What the other rooms see: new rows are announced here, and a lock is awaited here."""

    def __init__(self, database: Database, chain: Chain, lock_timeout_seconds: float) -> None:
        self._database = database
        self._chain = chain
        self._lock_timeout = lock_timeout_seconds
        self.new_rows = Bell()
        self.finished_rows = Bell()
        self.unpayable = frozenset({ZERO_ADDRESS, chain.escrow_address})

    async def locked(self, wallet: str, request_id: str) -> Escrow:
        """The escrow of a request, once its money is locked.

        Raises:
            AllowanceTooLow, InsufficientBalance: the user's consent or deposit on chain does not cover it.
            TransactionReverted: the escrow refused for another reason.
            SettlementDelayed: not in time.
        """
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


def _refusal(row: Row) -> AllowanceTooLow | InsufficientBalance | TransactionReverted:
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


class Settler:
    """Owner of the settler's key."""

    def __init__(
        self, database: Database, chain: Chain, private_key: str, gateway: Gateway, room: Settlement, confirmations: int
    ) -> None:
        self._database = database
        self._chain = chain
        self._key = private_key
        self._address = address_of(private_key)
        self._gateway = gateway
        self._room = room
        self._confirmations = confirmations
        self._rounds = 0
        self._fence: Fence | None = None
        self._one_at_a_time = asyncio.Lock()  # two rounds at once would give one nonce to two rows

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
        """One round: what became of what was sent, then what is to be sent. Whether this process may do it at all."""
        async with self._one_at_a_time:
            if not await self._leads():
                return False
            await self._follow_up()
            if await self._send_new():
                await self._follow_up()
            self._rounds += 1
            return True

    async def _leads(self) -> bool:
        """Whether this gateway holds the lease. It is renewed when half of it is over: most rounds write nothing."""
        if self._fence is not None:
            async with self._database.reading() as connection:
                if await repository.lease_left(connection, self._fence) > LEASE_LIFETIME / 2:
                    return True
        async with self._database.writing() as connection:
            self._fence = await repository.take_lease(connection, LEASE, self._gateway, LEASE_LIFETIME)
        return self._fence is not None

    async def drain(self) -> None:
        """Settle until nothing is waiting that this process could settle."""
        while await self.settle() and await self._has_unfinished():  # noqa: ASYNC110 - it is the chain that we wait for
            await asyncio.sleep(0.05)

    async def _has_unfinished(self) -> bool:
        return bool(await self._rows(RowStatus.PENDING) or await self._rows(RowStatus.SENT))

    # ---- what became of what was sent

    async def _follow_up(self) -> None:
        rows = await self._rows(RowStatus.SENT)
        if not rows:
            return
        newest = await self._chain.block_number()
        # Asked before the receipts: a nonce that is used now, with no receipt after, was used by something else.
        used_nonces = await self._chain.transaction_count(self._address)
        for row in rows:
            await self._follow(row, newest, used_nonces)

    async def _follow(self, row: Row, newest: int, used_nonces: int) -> None:
        assert row.tx_hash is not None
        assert row.nonce is not None
        mined = await self._chain.mined(row.tx_hash)
        if mined is not None and mined.block_number + self._confirmations > newest:
            return
        if mined is not None and mined.ok:
            await self._confirm(row)
        elif mined is not None:
            await self._confirm_or_fail(row, "reverted", "the transaction was reverted")
        elif row.nonce < used_nonces:
            await self._confirm_or_sign_anew(row)
        elif self._rounds % REBROADCAST_EVERY == 0:
            await self._offer(row)

    async def _confirm_or_sign_anew(self, row: Row) -> None:
        if await self._has_happened(row):
            await self._confirm(row)
            return
        log.warning("transaction_displaced", kind=row.kind, request_id=row.request_id, nonce=row.nonce)
        async with self._database.writing() as connection:
            await repository.mark_pending(connection, row)

    async def _confirm_or_fail(self, row: Row, code: str, error: str) -> None:
        if await self._has_happened(row):
            await self._confirm(row)
        else:
            await self._fail(row, code, error)

    async def _has_happened(self, row: Row) -> bool:
        escrow = await self._chain.escrow_of(row.wallet_address, row.request_id)
        return escrow.status is EFFECT[row.kind]

    # ---- what is to be sent

    async def _send_new(self) -> bool:
        rows = await self._rows(RowStatus.PENDING)
        for row in rows:
            if row.kind is Kind.LOCK or await self._lock_is_there(row):
                await self._send(row)
        return bool(rows)

    async def _lock_is_there(self, row: Row) -> bool:
        """Whether a release or a cancel can go on. One that follows a lock which never happened has nothing to do."""
        async with self._database.reading() as connection:
            lock = await repository.find(connection, Kind.LOCK, row.request_id)
        if lock is None or lock.status is RowStatus.FAILED:
            await self._end_without_lock(row)
            return False
        return lock.status is RowStatus.CONFIRMED

    async def _end_without_lock(self, row: Row) -> None:
        if row.kind is Kind.CANCEL:
            await self._confirm(row, "nothing was locked")
        else:
            await self._fail(row, "not_locked", "there is no lock to release")

    async def _send(self, row: Row) -> None:
        try:
            call = await self._prepare(row)
        except TransactionReverted as error:
            await self._refused(row, str(error.facts["reason"]))
            return
        signed = await self._chain.sign(call, await self._next_nonce(), self._key)
        async with self._database.writing() as connection:
            assert self._fence is not None
            await repository.hold_fence(connection, self._fence)
            if not await repository.mark_sent(connection, row, signed):
                return
        await self._offer(await self._again(row))

    def _prepare(self, row: Row) -> Awaitable[Call]:
        prepare: dict[Kind, Callable[[], Awaitable[Call]]] = {
            Kind.LOCK: lambda: self._chain.lock(
                self._address, row.wallet_address, row.request_id, row.payload["units"], row.payload["lock_seconds"]
            ),
            Kind.RELEASE: lambda: self._chain.release(
                self._address, row.wallet_address, row.request_id, [tuple(one) for one in row.payload["amounts"]]
            ),
            Kind.CANCEL: lambda: self._chain.cancel(self._address, row.wallet_address, row.request_id),
        }
        return prepare[row.kind]()

    async def _refused(self, row: Row, reason: str) -> None:
        """The escrow would refuse it now: because it has happened, because something is under way, or for good."""
        if await self._has_happened(row):
            await self._confirm(row)
            return
        async with self._database.reading() as connection:
            if await repository.has_unfinished_before(connection, row):
                return
        await self._fail(row, reason, f"the escrow refuses: {reason}")

    async def _next_nonce(self) -> int:
        async with self._database.reading() as connection:
            last = await repository.last_nonce(connection)
        used = await self._chain.transaction_count(self._address)
        return used if last is None else max(used, last + 1)

    async def _offer(self, row: Row) -> None:
        """Hand the written-down bytes to the chain."""
        assert row.raw_tx is not None
        objection = await self._chain.send_raw(row.raw_tx)
        if objection:
            log.warning("transaction_not_taken", kind=row.kind, request_id=row.request_id, objection=objection)
            async with self._database.writing() as connection:
                await repository.note_objection(connection, row, objection)

    # ---- ends

    async def _confirm(self, row: Row, note: str | None = None) -> None:
        async with self._database.writing() as connection:
            if not await repository.mark_confirmed(connection, row, note):
                return
            if row.kind is Kind.RELEASE:
                await ledger.payout_confirmed(connection, row.request_id)
                await sessions.mark_paid(connection, row.request_id)
        log.info("settled", kind=row.kind, request_id=row.request_id, tx_hash=row.tx_hash)
        self._room.finished_rows.ring()

    async def _fail(self, row: Row, code: str, error: str) -> None:
        async with self._database.writing() as connection:
            if not await repository.mark_failed(connection, row, code, error):
                return
            if row.kind is Kind.RELEASE:
                await ledger.payout_returned(connection, row.request_id, error)
        log.error("settlement_failed", kind=row.kind, request_id=row.request_id, reason=code, tx_hash=row.tx_hash)
        self._room.finished_rows.ring()

    async def _rows(self, status: RowStatus) -> list[Row]:
        async with self._database.reading() as connection:
            return await repository.with_status(connection, status)

    async def _again(self, row: Row) -> Row:
        async with self._database.reading() as connection:
            found = await repository.find(connection, row.kind, row.request_id)
        assert found is not None
        return found


class Caretaker:
    """Says that this gateway lives, and settles what gateways that do not live any more have left behind."""

    def __init__(self, database: Database, gateway: Gateway, room: Settlement) -> None:
        self._database = database
        self._gateway = gateway
        self._room = room

    async def tend(self) -> None:
        """Once: the sign of life, then the orphans."""
        async with self._database.writing() as connection:
            await sessions.beat(connection, self._gateway, LEASE_LIFETIME)
        if await recover(self._database):
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
        """A polite end: whoever comes next need not wait."""
        async with self._database.writing() as connection:
            await sessions.beat(connection, self._gateway, timedelta(0))
            await repository.drop_leases(connection, self._gateway)
