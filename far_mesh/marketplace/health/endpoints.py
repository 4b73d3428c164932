"""``/health`` and ``/ready``."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Request, Response

from far_mesh.marketplace.health.schemas import Alive, Payments, Readiness, Reconciliation

router = APIRouter(tags=["health"])


@router.get("/health", response_model_exclude_none=True)
async def health(request: Request) -> Alive:
    """The process answers, whatever it needs is there or not; and whether the books agreed with the chain."""
    rooms = request.app.state.rooms
    held = await rooms.health.held() if rooms.payouts is not None else {}
    place = rooms.pay_in
    payments = Payments(
        provider=place.payment_provider,
        escrow=place.escrow_address is not None,
        chain_id=place.chain_id,
        chain=place.chain,
        token_address=place.token_address,
        escrow_address=place.escrow_address,
        deposit_address=place.deposit_address,
        held=held or None,
    )
    last = rooms.reconciler and rooms.reconciler.last
    if last is None:
        return Alive(payments=payments)
    kinds = Counter(finding["kind"] for finding in last.findings)
    return Alive(payments=payments, reconciliation=Reconciliation(at=last.at, block=last.block, findings=dict(kinds)))


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(request: Request, response: Response) -> Readiness:
    """Whether requests can be served now; 503 with the reasons when they cannot."""
    found: Readiness = await request.app.state.rooms.health.readiness()
    response.status_code = 503 if found.reasons else 200
    return found
