"""``/metrics``, for the operator's Prometheus.

Who may read it: with ``FAR_METRICS_TOKEN`` who has it, without one whoever asks from this machine; and operators.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from discovery.web.address import caller_of
from far_mesh.marketplace.auth.door import Needs, Service
from far_mesh.marketplace.auth.principal import Role, Scope
from far_mesh.marketplace.errors import Unauthorized
from far_mesh.marketplace.limits import door as limits_door
from far_mesh.marketplace.telemetry.exposition import Exposition

router = APIRouter(tags=["health"])

_BEARER = "bearer "
_OPERATOR = Needs(Scope.OPERATOR, Role.OPERATOR)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


async def may_look(request: Request, service: Service, limits: limits_door.Service) -> None:
    """Refuse whoever may not see how the gateway does.

    Raises:
        RateLimited: too many have tried from this address.
        Unauthorized, Forbidden: neither an operator, nor one with the token, nor on this machine.
    """
    token: str | None = request.app.state.metrics_token
    said = request.headers.get("authorization")
    if said is None:
        if token is None and _is_on_this_machine(request):
            return
        raise Unauthorized("metrics are for those who have FAR_METRICS_TOKEN, and for operators")
    credential = said[len(_BEARER) :].strip() if said.lower().startswith(_BEARER) else ""
    if token is None or not hmac.compare_digest(credential.encode(), token.encode()):
        await _OPERATOR.principal(service, limits, credential, caller_of(request).address)


@router.get("/metrics", include_in_schema=False, response_class=Response)
async def metrics(request: Request, _: Annotated[None, Depends(may_look)]) -> Response:
    """Everything that is counted, as Prometheus reads it."""
    exposition: Exposition = request.app.state.rooms.exposition
    return Response(await exposition.text(), headers={"content-type": CONTENT_TYPE_LATEST})


def _is_on_this_machine(request: Request) -> bool:
    """Not by way of a proxy on this machine that nobody has told us of: what it passes on looks as if it were local."""
    caller = caller_of(request)
    if caller.address is None or caller.hidden or not caller.address.is_loopback:
        return False
    peer = request.client.host if request.client is not None else None
    return str(caller.address) != peer or not any(name in request.headers for name in _FORWARDED)
