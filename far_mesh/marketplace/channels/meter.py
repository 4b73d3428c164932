"""Counting what a request is served over a payment channel, before it is served.

Nobody works for nothing here: the prompt is counted before a route is opened, and each token before it is generated.
Where the vouchers do not cover the next one, the generation is not driven on until one comes, whichever gateway takes
it. What was counted and not served after all is uncounted when the request ends (:mod:`..settlement.requests`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.errors import ChannelClosing, VoucherNeeded
from far_mesh.marketplace.payments.vouchers import Channel, may_serve
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import NewSession
from far_mesh.marketplace.settlement.bell import either

LOT_TOKENS = 8
"""Tokens that are counted in one transaction, where the vouchers cover them."""
LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class VoucherNotice:
    """The answer waits: sign for ``promise_units`` at least. It travels among the tokens and has no text."""

    channel_id: str
    promise_units: int
    deposit_units: int
    step_units: int
    seconds: float
    text: str = ""


Tell = Callable[[VoucherNotice], Awaitable[None]]


class Meter:
    """Counts for one request. A step is what the operator lends, and at least two tokens."""

    def __init__(
        self, database: Database, service: ChannelService, session: NewSession, max_tokens: int, patience_seconds: float
    ) -> None:
        assert session.channel_id is not None
        self._database = database
        self._service = service
        self._session = session
        self._channel_id = session.channel_id
        self._patience = patience_seconds
        self._step = max(service.step_units, 2 * session.completion_price_units)
        self._uncounted = max_tokens
        self._ahead = 0

    async def begin(self, connection: AsyncConnection) -> None:
        """Count the prompt, in the transaction that opens the request. One that is dearer than half a step is not lent.

        Raises:
            VoucherNeeded: the vouchers do not cover it; ``promise_units`` says how much would.
            ChannelUnknown, ChannelClosing: nothing is served over this channel.
        """
        units = self._session.prompt_tokens * self._session.prompt_price_units
        await self._count(connection, units, self._step if 2 * units <= self._step else 0)

    async def token(self, tell: Tell, is_stopped: Callable[[], bool]) -> str | None:
        """Count the next token, when it is covered. None, or why the answer ends here instead: ``voucher_needed`` when
        no voucher came in time after ``tell``, ``channel_closing``, or ``stopped``."""
        try:
            await self._next()
        except ChannelClosing:
            return "channel_closing"
        except VoucherNeeded:
            return await self._wait(self._try_next, self._for_next, tell, is_stopped)
        return None

    async def paid(self, cost_units: int, tell: Tell, is_stopped: Callable[[], bool]) -> None:
        """The answer is complete and costs this much: give the user time to sign for the last step of it. Who does not
        sign is not charged for it."""

        async def is_covered(channel: Channel) -> bool:
            return channel.promised_units - channel.captured_units >= cost_units

        await self._wait(is_covered, lambda channel: channel.captured_units + cost_units, tell, is_stopped)

    async def _wait(
        self,
        is_covered: Callable[[Channel], Awaitable[bool]],
        needed: Callable[[Channel], int],
        tell: Tell,
        is_stopped: Callable[[], bool],
    ) -> str | None:
        told, give_up = 0, 0.0
        while not is_stopped():
            rung = self._service.accepted.listen()
            channel = await self._channel()
            if channel.closes_at is not None:
                return "channel_closing"
            if await is_covered(channel):
                return None
            if not told or channel.promised_units >= told:
                # At first, or when the voucher came and another answer over this channel was quicker.
                told, give_up = needed(channel), time.monotonic() + self._patience
                await tell(VoucherNotice(self._channel_id, told, channel.deposit_units, self._step, self._patience))
            left = give_up - time.monotonic()
            if left <= 0:
                return "voucher_needed"
            await either(rung, min(LOOK_SECONDS, left))
        return "stopped"

    def _for_next(self, channel: Channel) -> int:
        return channel.earned_units + self._session.completion_price_units

    async def _try_next(self, channel: Channel) -> bool:
        """Looking is cheaper than counting in vain."""
        if not may_serve(
            self._session.completion_price_units,
            earned_units=channel.earned_units,
            promised_units=channel.promised_units,
            deposit_units=channel.deposit_units,
            step_units=self._step,
        ):
            return False
        try:
            await self._next()
        except (VoucherNeeded, ChannelClosing):
            return False
        return True

    async def _channel(self) -> Channel:
        async with self._database.reading() as connection:
            return await channels.find(connection, self._service.domain, self._channel_id)

    async def _next(self) -> None:
        if self._ahead == 0 and self._uncounted:
            lot = min(LOT_TOKENS, self._uncounted)
            try:
                await self._count_tokens(lot)
            except VoucherNeeded:
                if lot == 1:
                    raise
                await self._count_tokens(lot := 1)
            self._uncounted -= lot
            self._ahead = lot
        self._ahead = max(0, self._ahead - 1)

    async def _count_tokens(self, tokens: int) -> None:
        async with self._database.writing() as connection:
            await self._count(connection, tokens * self._session.completion_price_units, self._step)

    async def _count(self, connection: AsyncConnection, units: int, step: int) -> None:
        # The request's row first, as where it ends, so that the two cannot block each other.
        if not await sessions.count(connection, self._session.request_id, units):
            raise Conflict(f"{self._session.request_id} has ended already", request_id=self._session.request_id)
        await channels.earn(connection, self._service.domain, self._channel_id, units, step_units=step)
