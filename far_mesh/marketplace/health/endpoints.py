"""``/health`` and ``/ready``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from far_mesh.marketplace.health.schemas import Alive, Readiness

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> Alive:
    """The process answers. Says nothing about what it needs."""
    return Alive()


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(request: Request, response: Response) -> Readiness:
    """Whether requests can be served now; 503 with the reasons when they cannot."""
    found: Readiness = await request.app.state.rooms.health.readiness()
    response.status_code = 503 if found.reasons else 200
    return found
