"""``/api/auth``: sign-in, and the dependency that tells other rooms who asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.schemas import LoginAnswer, LoginRequest, NonceAnswer, NonceRequest
from far_mesh.marketplace.auth.service import AuthService
from far_mesh.marketplace.errors import Unauthorized

router = APIRouter(prefix="/api/auth", tags=["auth"])


def auth_service(request: Request) -> AuthService:
    """The room's service, made by the app."""
    service: AuthService = request.app.state.rooms.auth
    return service


Service = Annotated[AuthService, Depends(auth_service)]


def caller(request: Request, service: Service) -> Wallet:
    """The wallet that asks, by its bearer token.

    Raises:
        Unauthorized: no token, or not a valid one.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("a bearer token is needed: sign in through /api/auth/nonce and /api/auth/login")
    return service.who(token.strip())


Caller = Annotated[Wallet, Depends(caller)]


@router.get("/nonce")
async def nonce(service: Service, wallet_address: Annotated[str, Query(max_length=64)]) -> NonceAnswer:
    """A sign-in message for a wallet, good once and for a few minutes."""
    offer = await service.offer(wallet_address)
    return NonceAnswer(
        nonce=offer.nonce,
        domain=offer.domain,
        uri=offer.uri,
        chain_id=offer.chain_id,
        issued_at=offer.issued_at,
        expiration_time=offer.expiration_time,
        message=offer.text(),
    )


@router.post("/nonce")
async def post_nonce(service: Service, body: NonceRequest) -> NonceAnswer:
    """The same, for callers that keep the wallet out of the URL."""
    return await nonce(service, body.wallet_address)


@router.post("/login")
async def login(service: Service, body: LoginRequest) -> LoginAnswer:
    """A bearer token for a signed sign-in message."""
    wallet, token = await service.login(body.wallet_address, body.message, body.signature)
    return LoginAnswer(token=token.text, expires_at=token.expires_at, wallet_address=wallet)
