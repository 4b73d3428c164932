"""``/api/operator/settlement``: what waits, what was settled, what disagrees."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from far_mesh.marketplace.auth.door import Operator
from far_mesh.marketplace.settlement.answers import (
    BatchEntry,
    FindingEntry,
    ReconciliationEntry,
    SettlementOverview,
    WaitingRequests,
)
from far_mesh.marketplace.settlement.batch_repository import Entry
from far_mesh.marketplace.settlement.overview import Overview
from far_mesh.marketplace.settlement.reconcile_books import Result

MAX_PAGE = 200
MAX_NUMBER = 2**53 - 1

router = APIRouter(tags=["operators"])


async def settlement_overview(request: Request) -> Overview:
    """The room's service, made by the app."""
    service: Overview = request.app.state.rooms.settled
    return service


Service = Annotated[Overview, Depends(settlement_overview)]


@router.get("/api/operator/settlement")
async def settlement(
    service: Service,
    _: Operator,
    before: Annotated[int | None, Query(ge=1, le=MAX_NUMBER)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
) -> SettlementOverview:
    """What waits to be settled, the newest batches with their transactions, and what the last comparison of the books
    with the chain has found."""
    seen = await service.look(before, limit)
    return SettlementOverview(
        waiting=WaitingRequests(
            requests=seen.unpaid.requests,
            units=seen.unpaid.units,
            oldest_at=seen.unpaid.oldest,
            settle_seconds=service.seconds,
            threshold_units=service.threshold_units,
            ordered=seen.is_ordered,
        ),
        batches=[_batch(one) for one in seen.batches],
        next_before=seen.batches[-1].number if len(seen.batches) == limit else None,
        reconciliation=None if seen.compared is None else _reconciliation(seen.compared),
    )


def _batch(one: Entry) -> BatchEntry:
    act = one.act
    return BatchEntry(
        number=one.number,
        kind=one.kind,
        requests=one.requests,
        users=one.users,
        providers=one.providers,
        total_units=one.total_units,
        fee_units=one.fee_units,
        created_at=one.created_at,
        status=None if act is None else act.status,
        attempts=0 if act is None else act.attempts,
        tx_hash=None if act is None else act.tx_hash,
        block_number=None if act is None else act.block_number,
        reason=None if act is None else act.error,
    )


def _reconciliation(result: Result) -> ReconciliationEntry:
    return ReconciliationEntry(
        at=result.at, block=result.block, findings=[FindingEntry.model_validate(one) for one in result.findings]
    )
