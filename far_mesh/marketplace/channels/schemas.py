"""Shapes of ``/api/channels``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class LookRequest(BaseModel):
    """A channel that was just opened or topped up."""

    model_config = ConfigDict(extra="forbid")

    channel_id: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]


class ChannelState(BaseModel):
    """A channel of the caller. Amounts are cumulative, in units of 1e-9 FAR: what was put in, promised by vouchers,
    served, charged for answers that have ended, and taken out on chain. ``next_promise_units`` is what to sign now if
    no more than what was served was received, null while the last voucher will do; ``next_promise_wei`` is the same for
    ``maxClaimableAmount``."""

    channel_id: str
    signer: str
    deposit_units: int
    promised_units: int
    earned_units: int
    captured_units: int
    redeemed_units: int
    step_units: int
    next_promise_units: int | None
    next_promise_wei: str | None
    closes_at: datetime | None


class ChannelList(BaseModel):
    """All channels of the caller, those with the most left first."""

    channels: list[ChannelState]
