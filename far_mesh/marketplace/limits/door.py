"""Limits as dependencies of routes, and as calls of gRPC ask for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Response

from discovery.web.address import Address, caller_of
from far_mesh.marketplace.limits.schemas import headers_of
from far_mesh.marketplace.limits.service import RateLimits


async def rate_limits(request: Request) -> RateLimits:
    """The room's service, made by the app."""
    service: RateLimits = request.app.state.rooms.limits
    return service


Service = Annotated[RateLimits, Depends(rate_limits)]


async def address_of(request: Request) -> Address | None:
    """The address that counts."""
    return caller_of(request).address


CallerAddress = Annotated[Address | None, Depends(address_of)]


async def per_address(service: Service, address: CallerAddress, response: Response) -> None:
    """What anybody may ask, so many times a minute."""
    response.headers.update(headers_of("requests", await service.public(address)))


async def per_sign_in(service: Service, address: CallerAddress, response: Response) -> None:
    """The way to sign in, so many times a minute."""
    response.headers.update(headers_of("requests", await service.sign_in(address)))


PerAddress = Depends(per_address)
"""What routes that need no credential depend on."""

PerSignIn = Depends(per_sign_in)
"""What the routes of sign-in depend on."""
