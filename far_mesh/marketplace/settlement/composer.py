"""The edge of :mod:`.batches`: reads what waits, asks the chain what it can be paid with, and writes batches down.

Redemptions come first, because what they bring into the pool pays for the requests of their channels. Nothing is
composed while an earlier redemption, batch or payout root is on its way: what the chain says that can be charged, and
what was redeemed, would be counted twice. All batches of one composition share what there is, and go out together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.ids import ZERO_ADDRESS
from far_mesh.marketplace.chain.client import Chain, Claim
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainUnavailable, Conflict, InsufficientFunds, TransactionReverted
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.vouchers import Channel, Domain
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.batches import Batch, Composition, Means, Rule, compose, gathered, is_due
from far_mesh.marketplace.settlement.merkle import payout_tree
from far_mesh.marketplace.settlement.owed import BATCH
from far_mesh.marketplace.settlement.schemas import Fence, Kind

MAX_CLAIMS = 50
"""Vouchers that are redeemed in one transaction."""
QUESTIONS_AT_ONCE = 8
LOOK_SECONDS = 1.0
REST_FACTOR = 20
"""How much longer than a look takes nobody looks again: looking is at most a twentieth of the work."""
PATIENCE_SECONDS = 15.0
"""After this long what is due and could not be settled is tried again: its users may have paid in meanwhile."""

T = TypeVar("T")
U = TypeVar("U")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Redemption:
    """What the escrow would redeem of a channel now, of which ``before_units`` were redeemed before. It is urgent while
    the channel is closing."""

    claim: Claim
    before_units: int
    is_urgent: bool

    @property
    def units(self) -> int:
        """What it brings into the pool."""
        return self.claim.claimed_units - self.before_units


class BatchComposer:
    """Composes while the settler leads. ``settler`` is the wallet that signs."""

    def __init__(self, database: Database, chain: Chain, settler: str, rule: Rule, first_block: int) -> None:
        self._database = database
        self._chain = chain
        self._settler = settler
        self._rule = rule
        self._first_block = first_block
        self._domain = Domain(chain.chain_id, chain.escrow_address)
        self._rests_until = 0.0

    async def compose(self, fence: Fence) -> bool:
        """Write down what is due, or was ordered. Whether there was anything. While the chain does not say what can be
        charged, nothing is due.

        Raises:
            LeaseLost: somebody else composes now.
        """
        try:
            return await self._compose(fence)
        except ChainUnavailable as error:
            log.warning("composing_waits", code=error.code, objection=error.facts.get("objection"))
            self._rest(time.monotonic(), PATIENCE_SECONDS)
            return False

    async def _compose(self, fence: Fence) -> bool:
        began = time.monotonic()
        async with self._database.reading() as connection:
            ordered = await batches.is_ordered(connection)
            if not ordered and began < self._rests_until:
                return False
            busy = await batches.unfinished(connection)
            if Kind.REDEEM in busy:
                return False
            due = ordered or is_due(await batches.waiting(connection), self._rule, now())
            # Who closes a channel does not wait for our clock, and what is on its way does not hold up vouchers.
            redeemable = await channels.redeemable(
                connection, self._domain, MAX_CLAIMS, closing_only=bool(busy) or not due
            )
        tried = await _all(self._try, redeemable)
        await self._learn(redeemable, tried)
        redemptions = [one for one in tried if isinstance(one, Redemption)]
        composition = await self.composition(redemptions) if due and not busy else Composition()
        is_time = ordered or is_due(gathered(composition.requests), self._rule, now())
        first = redemptions if is_time else [one for one in redemptions if one.is_urgent]
        if first:
            await self._write_redemption(fence, first)
            return True
        if is_time and await self._write_batches(fence, composition):
            return True
        if ordered and not busy:
            await self._finish_orders(fence)
        self._rest(began, PATIENCE_SECONDS if redeemable or composition.left_out else LOOK_SECONDS)
        return False

    def _rest(self, began: float, seconds: float) -> None:
        ended = time.monotonic()
        self._rests_until = ended + max(seconds, REST_FACTOR * (ended - began))

    async def _finish_orders(self, fence: Fence) -> None:
        async with self._database.writing() as connection:
            await outbox.hold_fence(connection, fence)
            await batches.finish_orders(connection)

    # ---- vouchers

    async def redemptions(self) -> list[Redemption]:
        """What would be redeemed now, if it were time to settle. Nothing is written.

        Raises:
            ChainUnavailable: nobody can say what can be redeemed.
        """
        async with self._database.reading() as connection:
            redeemable = await channels.redeemable(connection, self._domain, MAX_CLAIMS)
        return [one for one in await _all(self._try, redeemable) if isinstance(one, Redemption)]

    async def _write_redemption(self, fence: Fence, redemptions: Sequence[Redemption]) -> None:
        claims = [{**asdict(one.claim), "before_units": one.before_units} for one in redemptions]
        async with self._database.writing() as connection:
            await outbox.hold_fence(connection, fence)
            number = await batches.count_of(connection, Kind.REDEEM) + 1
            await outbox.add(connection, Kind.REDEEM, f"redeem-{number}", self._settler, {"claims": claims})
        log.info("redemption_composed", number=number, channels=len(claims))

    async def _try(self, one: tuple[Channel, int]) -> Redemption | str:
        """What can be redeemed of a channel, or why nothing. Each is tried alone: one that is refused would hold up all
        others."""
        channel, units = one
        assert channel.signature is not None
        claim = Claim(channel.channel_id, channel.promised_units, units, channel.signature)
        try:
            await self._chain.redeem_vouchers(self._settler, [claim])
        except TransactionReverted as error:
            reason = str(error.facts["reason"])
            log.warning("voucher_not_redeemable", channel_id=channel.channel_id, reason=reason)
            return reason
        return Redemption(claim, channel.redeemed_units, is_urgent=channel.closes_at is not None)

    async def _learn(self, redeemable: Sequence[tuple[Channel, int]], tried: Sequence[Redemption | str]) -> None:
        """Of some channels more was taken out than the books know."""
        for (channel, _units), found in zip(redeemable, tried, strict=True):
            if found == "ChannelNothingToRedeem":
                state = await self._chain.channel_of(channel.channel_id)
                async with self._database.writing() as connection:
                    await channels.redeemed(connection, self._domain, channel.channel_id, state.redeemed_units)

    # ---- batches

    async def _write_batches(self, fence: Fence, composition: Composition) -> bool:
        numbered = await self._numbered(composition.batches)
        try:
            async with self._database.writing() as connection:
                await outbox.hold_fence(connection, fence)
                for number, batch in numbered:
                    await self._write(connection, number, batch)
        except (Conflict, InsufficientFunds) as error:
            log.warning("batch_not_written", code=error.code, objection=error.message)
            return False
        for number, batch in numbered:
            log.info("batch_composed", number=number, requests=len(batch.requests), units=batch.total_units)
        return bool(numbered)

    async def _write(self, connection: AsyncConnection, number: int, batch: Batch) -> None:
        name = f"{BATCH}{number}"
        await batches.add(connection, number, batch)
        await ledger.payout_sent(connection, name, batch.payouts, batch.fee_units)
        for channel_id, units in batch.netted.items():
            await channels.net(connection, self._domain, channel_id, units)
        kind = Kind.COMMIT if batch.is_root else Kind.SETTLE
        await outbox.add(connection, kind, name, self._settler, {"number": number})

    async def composition(self, redemptions: Iterable[Redemption] = ()) -> Composition:
        """What would be settled now, after these redemptions, and what cannot be. Nothing is written.

        Raises:
            ChainUnavailable: nobody can say what can be charged.
        """
        async with self._database.snapshot() as connection:
            requests = await batches.to_settle(connection)
            locking = await batches.locking(connection)
            redeemed = await channels.to_net(connection, self._domain)
            owed = await batches.owed(connection, {wallet for request in requests for wallet in request.payouts})
        for one in redemptions:
            redeemed[one.claim.channel_id] = redeemed.get(one.claim.channel_id, 0) + one.units
        users = sorted({request.user for request in requests if request.payment is Payment.NETTED})
        chargeable = dict(zip(users, await _all(self._chargeable, users), strict=True))
        means = Means(
            users={user: units - locking.get(user, 0) for user, units in chargeable.items()},
            channels=redeemed,
            owed=owed,
            fee_bps=await self._chain.fee_bps(),
            cap_units=await self._chain.release_cap_per_day(),
            unpayable=frozenset({ZERO_ADDRESS, self._chain.escrow_address}),
        )
        composition = compose(requests, means)
        if composition.left_out:
            log.warning("requests_not_settled", **Counter(one.why.value for one in composition.left_out))
        return composition

    async def _chargeable(self, user: str) -> int:
        deposit, allowance = await self._chain.deposit_of(user), await self._chain.spending_allowance(user)
        return min(deposit, allowance)

    async def _numbered(self, composed: Iterable[Batch]) -> list[tuple[int, Batch]]:
        """Batches with numbers. One that the chain knows already is passed over, unless it is the very same batch:
        that was done before the database was restored from a backup, and is not done again."""
        async with self._database.reading() as connection:
            number = await batches.next_number(connection)
        numbered = []
        for batch in composed:
            while await self._is_taken(number, batch):
                log.error("batch_number_taken", number=number)
                number += 1
            numbered.append((number, batch))
            number += 1
        return numbered

    async def _is_taken(self, number: int, batch: Batch) -> bool:
        if batch.is_root:
            committed = await self._chain.payout_root_of(number)
            return any(committed.root) and committed.root != await self._root(batch)
        if not await self._chain.is_batch_settled(number):
            return False
        return await self._chain.details_of_batch(number, self._first_block) != batch.detail_root()

    async def _root(self, batch: Batch) -> bytes:
        async with self._database.reading() as connection:
            return payout_tree(await batches.leaves(connection, batch.payouts)).root


async def _all(question: Callable[[T], Awaitable[U]], about: Iterable[T]) -> list[U]:
    """The answers in order, a few questions at a time."""
    free = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def ask(one: T) -> U:
        async with free:
            return await question(one)

    return list(await asyncio.gather(*(ask(one) for one in about)))
