"""Compares the books with the chain, once or on a clock, and tells what came of it. Changes neither.

A run reads the events of the escrow from where the last clean one ended, less as many blocks as the chain may still
give up; and compares the sums of everybody whom these events, new lines of the books or an unfinished row concern. What
is found is looked at a second time after a pause: a block that is just being given up is no disagreement.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from far_mesh.marketplace.account.repository import ChainIdentity
from far_mesh.marketplace.chain.audit import MONEY, AuditedChain, signer_of
from far_mesh.marketplace.chain.client import LOG_BLOCKS, EscrowEvent
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, DatabaseUnavailable
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import reconcile_books as repository
from far_mesh.marketplace.settlement.reconcile import Finding, compare_events, compare_sums
from far_mesh.marketplace.settlement.reconcile_books import Concerned, Notes, Result, Window
from far_mesh.marketplace.settlement.reconcile_chain import (
    check_nonces,
    concerned_by,
    read_chain,
    read_owners,
    read_sums,
)
from far_mesh.marketplace.settlement.repository import take_lease

LEASE = "reconciler"
PAUSE_SECONDS = 5.0
OVERLAP = timedelta(hours=1)
"""Rows that name no block are looked at again when they ended so shortly before the last run: clocks differ."""

OnProgress = Callable[[int, int], None]

log = structlog.get_logger(__name__)


def _nobody_listens(_block: int, _newest: int) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class Compared:
    """One look: until which block, what was found, and from where the next one may go on."""

    block: int
    findings: list[Finding]
    kept: Notes | None
    after: Notes


class Reconciler:
    """Compares once, or on a clock."""

    def __init__(
        self, database: Database, chain: AuditedChain, *, first_block: int, confirmations: int, reorg_blocks: int
    ) -> None:
        self._database = database
        self._chain = chain
        self._first_block = first_block
        self._confirmations = confirmations
        self._reorg_blocks = reorg_blocks
        self.last: Result | None = None
        """What came of the last comparison, whichever gateway made it."""

    # ---- on a clock

    async def run(self, gateway: Gateway, every_seconds: float) -> None:
        """Until cancelled. Of several gateways one compares; the others learn what it found."""
        while True:
            try:
                await self._tend(gateway, timedelta(seconds=2 * every_seconds))
            except (ChainUnavailable, DatabaseUnavailable) as error:
                log.warning("books_not_compared", code=error.code)
            await asyncio.sleep(every_seconds)

    async def _tend(self, gateway: Gateway, lifetime: timedelta) -> None:
        async with self._database.writing() as connection:
            fence = await take_lease(connection, LEASE, gateway, lifetime)
        if fence is not None:
            await self.compare()
            return
        async with self._database.reading() as connection:
            self.last = await repository.result(connection)

    # ---- once

    async def compare(
        self, *, full: bool = False, accept: bool = False, on_progress: OnProgress = _nobody_listens
    ) -> Result:
        """Compare, and a second time after a pause if anything was found; what was found both times counts. ``full``:
        from the first block on, and everybody's sums. ``accept``: whatever is found is known, and the next run goes on
        behind it.

        Raises:
            ChainMismatch: the books belong to another chain or escrow.
            ChainUnavailable, DatabaseUnavailable: no answer.
        """
        identity = await self._identity()
        compared = await self._look(full, on_progress)
        if compared.findings:
            await asyncio.sleep(PAUSE_SECONDS)
            before = {(one.kind, one.about) for one in compared.findings}
            compared = await self._look(full, on_progress)
            still = [one for one in compared.findings if (one.kind, one.about) in before]
            compared = replace(compared, findings=still)
        result = repository.new_result(compared.block, [one.as_facts() for one in compared.findings])
        async with self._database.writing() as connection:
            if accept or not compared.findings:
                await repository.keep(connection, compared.kept, compared.after, identity)
            await repository.keep_result(connection, result)
        for one in compared.findings:
            log.error("books_disagree", kind=one.kind, about=one.about, message=one.message)
        log.info("books_compared", block=compared.block, findings=len(compared.findings))
        self.last = result
        return result

    async def _identity(self) -> ChainIdentity:
        """The chain, if the books belong to it."""
        chain = self._chain
        identity = ChainIdentity(chain.chain_id, await chain.genesis_hash(), chain.escrow_address)
        async with self._database.reading() as connection:
            known = await repository.chain_of_books(connection)
        if known is None:
            raise DatabaseUnavailable("this database has never seen a chain: start far-mesh serve with it first")
        if known != identity:
            raise ChainMismatch("the database belongs to another chain or another escrow: there is nothing to compare")
        return identity

    async def _look(self, full: bool, on_progress: OnProgress) -> Compared:
        async with self._database.reading() as connection:
            kept = await repository.notes(connection)
        still_stands = kept is not None and await self._still_stands(kept)
        begin = kept if kept is not None and still_stands and not full else None
        look = _Look(self._database, self._chain, begin or Notes(self._first_block), self._first_block, begin is None)
        block, after = await look.through(self._confirmations, self._reorg_blocks, on_progress)
        return Compared(block, look.findings, kept, after)

    async def _still_stands(self, notes: Notes) -> bool:
        """Whether the blocks that were compared are still those of the chain."""
        return notes.last_hash is None or await self._chain.block_hash(notes.next_block - 1) == notes.last_hash


def reconciler_of(settings: Settings, database: Database, chain: AuditedChain) -> Reconciler:
    """The reconciler as the settings want it."""
    return Reconciler(
        database,
        chain,
        first_block=settings.chain_start_block,
        confirmations=settings.confirmations,
        reorg_blocks=settings.reorg_blocks,
    )


@dataclass
class _Look:
    """One look through the chain, window by window, and what it gathers on its way."""

    database: Database
    chain: AuditedChain
    notes: Notes
    escrow_block: int
    is_full: bool
    findings: list[Finding] = field(default_factory=list)
    concerned: Concerned = field(default_factory=Concerned)
    seen: set[str] = field(default_factory=set)

    async def through(self, confirmations: int, reorg_blocks: int, on_progress: OnProgress) -> tuple[int, Notes]:
        """From where the notes end to the newest block that counts. That block, and new notes."""
        notes = self.notes
        newest = await self.chain.block_number()
        while newest - notes.next_block >= LOG_BLOCKS + reorg_blocks + confirmations:
            window = await self._window(notes.next_block, notes.next_block + LOG_BLOCKS - 1, is_last=False)
            await self._compare_window(window, newest)
            notes = _further(notes, window.events, window.last_block + 1)
            on_progress(window.last_block, newest)
            newest = await self.chain.block_number()
        window = await self._window(notes.next_block, max(newest - confirmations, notes.next_block - 1), is_last=True)
        until = max(notes.next_block, window.last_block + 1 - reorg_blocks)
        entry, nonce = await self._compare_all(window, newest, _further(notes, window.events, window.last_block + 1))
        on_progress(window.last_block, newest)
        last_hash = await self.chain.block_hash(until - 1) if until else None
        return window.last_block, replace(
            _further(notes, window.events, until), last_hash=last_hash, entry=entry, nonce=nonce
        )

    async def _window(self, first: int, last: int, *, is_last: bool) -> Window:
        events: list[EscrowEvent] = []
        for begin in range(first, last + 1, LOG_BLOCKS):
            events += await self.chain.escrow_events(MONEY, begin, min(last, begin + LOG_BLOCKS - 1))
        self.seen.update(event.tx_hash for event in events)
        since = None if self.is_full or self.notes.at is None else self.notes.at - OVERLAP
        return Window(first, last, events, is_last, since, self.escrow_block)

    async def _compare_window(self, window: Window, newest: int) -> None:
        async with self.database.snapshot() as connection:
            named = await repository.read_names(connection, window.events)
            books = await repository.read_acts(connection, window, named)
        owners = await read_owners(self.chain, window, named)
        self.concerned |= concerned_by(window.events, owners, books)
        self.findings += compare_events(await read_chain(self.chain, window, newest, owners, books), books)

    async def _compare_all(self, window: Window, newest: int, totals: Notes) -> tuple[int, int | None]:
        """The last window and all sums. The newest line of the books, and the settler's next nonce."""
        escrow = self.chain.escrow_address
        async with self.database.reading() as connection:
            named = await repository.read_names(connection, window.events)
        owners = await read_owners(self.chain, window, named)
        async with self.database.snapshot() as connection:
            entry = await repository.last_entry(connection)
            self.concerned |= await repository.concerned_since(connection, None if self.is_full else self.notes.entry)
            books = await repository.read_acts(connection, window, named)
            self.concerned |= concerned_by(window.events, owners, books)
            channels = await repository.channels_of(connection, self.concerned.users, escrow)
            self.concerned |= Concerned(channels=frozenset(channels))
            books = await repository.read_sums(connection, books, self.concerned, escrow)
            signed = await repository.newest_signed(connection)
        chain = await read_chain(self.chain, window, newest, owners, books)
        chain = replace(chain, withdrawn=totals.withdrawn, fees_withdrawn=totals.fees_withdrawn)
        chain = await read_sums(self.chain, chain, self.concerned)
        self.findings += [*compare_events(chain, books), *compare_sums(chain, books)]
        return entry, None if signed is None else await self._compare_nonces(signer_of(signed), window.last_block)

    async def _compare_nonces(self, settler: str, block: int) -> int:
        used = await self.chain.transaction_count(settler, block)
        first = None if self.is_full else self.notes.nonce
        async with self.database.reading() as connection:
            signed = await repository.transactions_by_nonce(connection, first, used)
        self.findings += await check_nonces(self.chain, settler, signed, self.seen)
        return used


def _further(notes: Notes, events: Iterable[EscrowEvent], next_block: int) -> Notes:
    """The notes, and what was taken out before ``next_block``."""
    withdrawn, fees = defaultdict(int, notes.withdrawn), notes.fees_withdrawn
    for event in events:
        if event.block_number >= next_block:
            continue
        if event.name == "CreditWithdrawn":
            withdrawn[event.fields["provider"]] += event.fields["amount"]
        elif event.name == "FeesWithdrawn":
            fees += event.fields["amount"]
    return replace(notes, next_block=next_block, withdrawn=dict(withdrawn), fees_withdrawn=fees)
