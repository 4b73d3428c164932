"""A user's payment channels: which there are, and vouchers for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import InsufficientBalance
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.errors import ChannelClosing, ChannelUnknown, VoucherForged, VoucherStale
from far_mesh.marketplace.payments.vouchers import Channel, Domain, next_promise, parse
from far_mesh.marketplace.settlement.bell import Bell

LOOKS = 10


class ChannelService:
    """Takes vouchers; ``accepted`` rings when this process has taken one."""

    def __init__(
        self, database: Database, domain: Domain, look: Callable[[], Awaitable[bool]], step_units: int
    ) -> None:
        self._database = database
        self._look = look
        self.domain = domain
        self.step_units = step_units
        self.accepted = Bell()

    async def mine(self, wallet: str) -> list[Channel]:
        """The channels of ``wallet``, those with the most left first."""
        async with self._database.reading() as connection:
            return await channels.of_user(connection, self.domain, wallet)

    async def one(self, wallet: str, channel_id: str) -> Channel:
        """A channel of ``wallet``.

        Raises:
            ChannelUnknown: there is none, or it is somebody else's.
        """
        async with self._database.reading() as connection:
            channel = await channels.find(connection, self.domain, channel_id)
        if channel.user != wallet:
            raise ChannelUnknown("you have no such payment channel")
        return channel

    async def look(self, wallet: str, channel_id: str) -> Channel:
        """The same, after reading what the chain has told until now.

        Raises:
            ChannelUnknown: it has not told of such a channel, or not with enough blocks on top.
            ChainUnavailable: it does not answer.
        """
        for _ in range(LOOKS):
            if not await self._look():
                break
        return await self.one(wallet, channel_id)

    async def accept(self, wallet: str, channel_id: str, document: Mapping[str, object]) -> Channel:
        """Take a voucher for a channel of ``wallet``. The one that was taken last may come again. The channel after it.

        Raises:
            VoucherMalformed, ChannelUnknown, ChannelClosing, VoucherStale, VoucherTooHigh, VoucherForged: see
                :func:`~far_mesh.marketplace.payments.vouchers.check`.
        """
        voucher = parse(document)
        if voucher.channel_id != channel_id:
            raise VoucherForged("the voucher is for another channel")
        await self.one(wallet, channel_id)
        try:
            async with self._database.writing() as connection:
                await channels.accept(connection, self.domain, voucher)
        except VoucherStale:
            known = await self.one(wallet, channel_id)
            if (known.promised_units, known.signature) != (voucher.units, voucher.signature):
                raise
            return known
        self.accepted.ring()
        return await self.one(wallet, channel_id)

    async def payer(self, wallet: str, channel_id: str | None, held_units: int) -> Channel:
        """The channel that is to pay for a request which may cost ``held_units``: this one, or the caller's fullest.

        Raises:
            ChannelUnknown, ChannelClosing: there is none, or not any more.
            InsufficientBalance: too little is left in it.
        """
        if channel_id is None:
            still_open = [channel for channel in await self.mine(wallet) if channel.closes_at is None]
            if not still_open:
                raise ChannelUnknown("you have no open payment channel")
            channel = still_open[0]
        else:
            channel = await self.one(wallet, channel_id)
        if channel.closes_at is not None:
            raise ChannelClosing("this channel is being closed: nothing more is served over it")
        left = channel.deposit_units - channel.earned_units
        if left < held_units:
            raise InsufficientBalance(
                f"this request may cost up to {held_units} units (1e-9 FAR) and {left} are left in the channel: top it "
                "up, or lower max_tokens",
                needed_units=held_units,
                available_units=left,
            )
        return channel

    def due(self, channel: Channel) -> int | None:
        """What the user should sign for next, who has received what was served; None while the last voucher will do."""
        if channel.closes_at is not None:
            return None
        return next_promise(
            received_units=channel.earned_units,
            promised_units=channel.promised_units,
            deposit_units=channel.deposit_units,
            step_units=self.step_units,
        )
