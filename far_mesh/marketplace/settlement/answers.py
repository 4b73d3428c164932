"""Shapes of ``/api/operator/settlement``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from far_mesh.marketplace.settlement.schemas import RowStatus


class WaitingRequests(BaseModel):
    """Requests that ended and that nobody was asked to pay yet: how many, what providers earned by them, and since when
    the oldest waits. They are settled when that is ``settle_seconds`` ago, or one provider is owed ``threshold_units``.
    ``ordered``: somebody asked for it to be done at once."""

    requests: int
    units: int
    oldest_at: datetime | None
    settle_seconds: float
    threshold_units: int
    ordered: bool


class BatchEntry(BaseModel):
    """A batch, a payout root or a transfer, and how far its transaction is. ``failed``: the chain refused it, and what
    was in it waits for another one. ``reason`` is what the chain said to it last."""

    number: int
    kind: Literal["batch", "root", "transfer"]
    requests: int
    users: int
    providers: int
    total_units: int
    fee_units: int
    created_at: datetime
    status: RowStatus | None
    attempts: int
    tx_hash: str | None
    block_number: int | None
    reason: str | None


class FindingEntry(BaseModel):
    """Something in which the books and the chain disagree, and what to do about it. ``about`` is a request, a batch, a
    wallet, a channel or a transaction."""

    kind: str
    about: str
    message: str
    advice: str


class ReconciliationEntry(BaseModel):
    """When the books were compared with the chain the last time, until which block, and what was found."""

    at: datetime
    block: int
    findings: list[FindingEntry]


class SettlementOverview(BaseModel):
    """How settling goes. ``batches`` are the newest first; ``next_before``: for the next page, if there may be one.
    ``reconciliation`` is null until the books were compared, and where there is no escrow."""

    waiting: WaitingRequests
    batches: list[BatchEntry]
    next_before: int | None
    reconciliation: ReconciliationEntry | None
