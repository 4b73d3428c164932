"""Shapes of health."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class Reconciliation(BaseModel):
    """When the books were compared with the chain the last time, until which block, and how many things of each kind
    disagreed. Whose money it is about is for the operator's logs alone."""

    at: datetime
    block: int
    findings: dict[str, int]


class Payments(BaseModel):
    """How money comes in: by which provider, and whether into an escrow. ``held``: where providers are paid by
    transfer, how many cannot be paid what is due to them, by the reason; None where all can. ``chain_id`` is what
    sign-in messages name, ``chain`` a CAIP-2 name."""

    provider: str
    escrow: bool
    chain_id: int
    chain: str | None = None
    token_address: str | None = None
    escrow_address: str | None = None
    deposit_address: str | None = None
    held: dict[str, int] | None = None


class Alive(BaseModel):
    """The process answers. ``reconciliation`` is None until the books were compared with the chain."""

    status: str = "alive"
    payments: Payments
    reconciliation: Reconciliation | None = None


class PartState(BaseModel):
    """One thing that serving needs. ``reason`` says in words why it is not there."""

    ok: bool
    reason: str | None = None


class ModelReadiness(PartState):
    """A model and the nodes that serve it. ``uncovered`` are block ranges ``[first, end)`` that nobody serves."""

    active_nodes: int
    uncovered: list[tuple[int, int]]


class RefusedRow(BaseModel):
    """Something that the chain refuses, and why."""

    kind: str
    request_id: str
    reason: str | None


class SettlementReadiness(BaseModel):
    """The outbox: how many rows are in each state. ``settler`` is the gateway that settles now, ``oldest_seconds`` for
    how long the row that waits longest has waited, ``at_fee_cap`` how many wait because ``FAR_MAX_FEE_GWEI`` allows
    no more. ``failures`` were refused for good, and a person has to look at them; ``waiting`` are refused for now, by a
    pause or the cap of a day."""

    pending: int
    sent: int
    confirmed: int
    failed: int
    settler: str | None
    oldest_seconds: float | None
    at_fee_cap: int
    failures: list[RefusedRow]
    waiting: list[RefusedRow]


class Readiness(BaseModel):
    """Whether requests can be served now, and if not, why."""

    status: str
    reasons: list[str]
    database: PartState
    chain: PartState
    models: dict[str, ModelReadiness]
    settlement: SettlementReadiness | None
