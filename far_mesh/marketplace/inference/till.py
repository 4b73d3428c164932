"""Where a request's way of payment is found out: by what the caller wants, and by what the chain and the books say."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from far_mesh.marketplace.chain.client import Chain, request_key
from far_mesh.marketplace.channels.meter import Meter
from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import UnsupportedParameter
from far_mesh.marketplace.inference.payment import PARAM, Means, Wanted, Way, choose
from far_mesh.marketplace.payments import intents
from far_mesh.marketplace.payments.errors import IntentRefused
from far_mesh.marketplace.payments.intents import Intent
from far_mesh.marketplace.sessions.schemas import NewSession, Payment
from far_mesh.marketplace.settlement.fees import FeeWatch
from far_mesh.marketplace.settlement.requests import Choose

CHARGEABLE_SECONDS = 2.0
MOST_WALLETS = 10_000


@dataclass(frozen=True)
class Credit:
    """What the operator lends: ``limit_units`` to each user until a batch charges them, and how long a voucher is
    waited for. ``lock_seconds`` is how long an escrow must last."""

    limit_units: int
    lock_seconds: int
    voucher_seconds: float


@dataclass(frozen=True)
class Paid:
    """A request with its way of payment. The fields are those of :class:`~.run.Order`."""

    session: NewSession
    choose: Choose | None = None
    intent: Intent | None = None
    meter: Meter | None = None


class Chargeable:
    """What the chain lets us charge to a wallet, asked once every two seconds at most. What is remembered can be wrong
    for so long, and costs no more than the limit up to which requests are netted."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._asked: dict[str, tuple[float, asyncio.Task[int]]] = {}

    async def of(self, wallet: str) -> int:
        """Units: the deposit, but not more than the spending allowance.

        Raises:
            ChainUnavailable: the chain does not answer.
        """
        until, task = self._asked.get(wallet, (0.0, None))
        if task is None or time.monotonic() > until or _has_failed(task):
            self._forget_the_old()
            task = asyncio.create_task(self._ask(wallet))
            self._asked[wallet] = (time.monotonic() + CHARGEABLE_SECONDS, task)
        return await asyncio.shield(task)  # others wait for it too

    async def _ask(self, wallet: str) -> int:
        deposit, allowance = await asyncio.gather(
            self._chain.deposit_of(wallet), self._chain.spending_allowance(wallet)
        )
        return min(deposit, allowance)

    def _forget_the_old(self) -> None:
        if len(self._asked) >= MOST_WALLETS:
            at = time.monotonic()
            self._asked = {wallet: kept for wallet, kept in self._asked.items() if kept[0] > at}


def _has_failed(task: asyncio.Task[int]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


class Cashier(Protocol):
    """Who says how a request is paid."""

    async def pay(self, session: NewSession, wanted: Wanted, max_tokens: int) -> Paid:
        """The request with its way of payment. Nothing is held or counted yet."""

    def intent(self, wallet: str, request_id: str, units: int, valid_until: datetime) -> dict[str, Any]:
        """Typed data of an escrow intent that would pay for a request."""


class BooksTill:
    """Where there is no escrow: every request is charged to what the books say of the user."""

    async def pay(self, session: NewSession, wanted: Wanted, max_tokens: int) -> Paid:
        """See :class:`Cashier`.

        Raises:
            UnsupportedParameter: it is to be paid otherwise.
        """
        if wanted.way not in (Way.AUTO, Way.BALANCE):
            raise _no_escrow()
        return Paid(replace(session, payment=Payment.NETTED))

    def intent(self, wallet: str, request_id: str, units: int, valid_until: datetime) -> dict[str, Any]:
        """Refuses."""
        raise _no_escrow()


def _no_escrow() -> UnsupportedParameter:
    return UnsupportedParameter("there is no escrow here: requests are charged to the balance", param=PARAM)


class Till:
    """Finds the way in which a request is paid."""

    def __init__(
        self, database: Database, chain: Chain, channels: ChannelService, fees: FeeWatch, credit: Credit
    ) -> None:
        self._database = database
        self._chain = chain
        self._channels = channels
        self._fees = fees
        self._credit = credit
        self._chargeable = Chargeable(chain)

    async def pay(self, session: NewSession, wanted: Wanted, max_tokens: int) -> Paid:
        """The request, and what else its payment needs. Nothing is held or counted yet.

        Raises:
            FeeMismatch: the escrow takes another fee than the one that was frozen.
            IntentRefused: the signed intent does not pay for this request.
            ChannelUnknown, ChannelClosing, InsufficientBalance: the channel cannot pay for it.
            ChainUnavailable: the chain has to be asked, and does not answer.
        """
        self._fees.require(session.fee_bps)
        if wanted.way is Way.CHANNEL:
            return await self._by_channel(session, wanted.channel_id, max_tokens)
        if wanted.intent is not None:
            await self._check(wanted.intent, session)
            return Paid(session, intent=wanted.intent)
        if wanted.way is Way.ESCROW or (wanted.way is Way.AUTO and not self._credit.limit_units):
            return Paid(session)
        means = Means(await self._chargeable.of(session.user_wallet), self._credit.limit_units)
        return Paid(session, choose=partial(choose, wanted.way, means, session.held_units))

    def intent(self, wallet: str, request_id: str, units: int, valid_until: datetime) -> dict[str, Any]:
        """Typed data of an intent that would pay for a request."""
        intent = Intent(
            user=wallet,
            request_key="0x" + request_key(request_id).hex(),
            max_units=units,
            lock_seconds=self._credit.lock_seconds,
            max_fee_bps=self._fees.fee_bps,
            nonce=secrets.randbits(256),
            valid_until=int(valid_until.timestamp()) + self._credit.lock_seconds,
        )
        return intents.typed_data(self._channels.domain, intent)

    async def _by_channel(self, session: NewSession, channel_id: str | None, max_tokens: int) -> Paid:
        channel = await self._channels.payer(session.user_wallet, channel_id, session.held_units)
        session = replace(session, payment=Payment.CHANNEL, channel_id=channel.channel_id)
        meter = Meter(self._database, self._channels, session, max_tokens, self._credit.voucher_seconds)
        return Paid(session, meter=meter)

    async def _check(self, intent: Intent, session: NewSession) -> None:
        intents.check(
            intent,
            user=session.user_wallet,
            request_key="0x" + request_key(session.request_id).hex(),
            held_units=session.held_units,
            lock_seconds=self._credit.lock_seconds,
            fee_bps=session.fee_bps,
            at=int(time.time()),
        )
        signed = intents.is_signed_by_key(self._channels.domain, intent)
        if not signed and not await self._chain.has_code(
            intent.user
        ):  # a contract's signature only the chain can judge
            raise IntentRefused(
                "the intent is not signed by its user for this chain and this escrow", param=intents.PARAM
            )
        if await self._chain.is_nonce_used(intent.user, intent.nonce):
            raise IntentRefused("an intent with this nonce was used or cancelled before", param=intents.PARAM)
