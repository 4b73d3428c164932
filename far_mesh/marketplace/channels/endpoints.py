"""``/api/channels``: the caller's payment channels, and vouchers for them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request

from far_mesh.marketplace.auth.door import InferenceCaller
from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.channels.schemas import ChannelList, ChannelState, LookRequest
from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.payments.vouchers import Channel

router = APIRouter(prefix="/api/channels", tags=["channels"])


async def channel_service(request: Request) -> ChannelService:
    """The room's service, made by the app."""
    service: ChannelService = request.app.state.rooms.channels
    return service


Service = Annotated[ChannelService, Depends(channel_service)]


@router.get("")
async def channels(service: Service, wallet: InferenceCaller) -> ChannelList:
    """All channels of the caller."""
    return ChannelList(channels=[_state(service, channel) for channel in await service.mine(wallet)])


@router.post("", responses=errors(404))
async def look(service: Service, wallet: InferenceCaller, body: LookRequest) -> ChannelState:
    """Look now whether the chain tells of a channel that was just opened or topped up."""
    return _state(service, await service.look(wallet, body.channel_id))


@router.get("/{channel_id}")
async def channel(service: Service, wallet: InferenceCaller, channel_id: str) -> ChannelState:
    """One channel of the caller."""
    return _state(service, await service.one(wallet, channel_id))


@router.post("/{channel_id}/vouchers", responses=errors(402))
async def voucher(
    service: Service, wallet: InferenceCaller, channel_id: str, body: Annotated[dict[str, Any], Body()]
) -> ChannelState:
    """Take a voucher: ``{"channelId", "maxClaimableAmount", "signature"}``. What waits for it goes on."""
    return _state(service, await service.accept(wallet, channel_id, body))


def _state(service: ChannelService, channel: Channel) -> ChannelState:
    due = service.due(channel)
    return ChannelState(
        channel_id=channel.channel_id,
        signer=channel.signer,
        deposit_units=channel.deposit_units,
        promised_units=channel.promised_units,
        earned_units=channel.earned_units,
        captured_units=channel.captured_units,
        redeemed_units=channel.redeemed_units,
        step_units=service.step_units,
        next_promise_units=due,
        next_promise_wei=None if due is None else str(units_to_wei(due)),
        closes_at=channel.closes_at,
    )
