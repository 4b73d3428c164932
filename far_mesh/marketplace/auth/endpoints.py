"""``/api/auth``: sign-in and sign-out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from far_mesh.marketplace.auth.door import Caller as Caller
from far_mesh.marketplace.auth.door import Service, SignedIn
from far_mesh.marketplace.auth.principal import TokenProof
from far_mesh.marketplace.auth.schemas import EverywhereRequest, LoginAnswer, LoginRequest, NonceAnswer, NonceRequest
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.limits.door import CallerAddress, PerSignIn
from far_mesh.marketplace.limits.door import Service as Limits

router = APIRouter(prefix="/api/auth", tags=["auth"])


@router.get("/nonce", dependencies=[PerSignIn])
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


@router.post("/nonce", dependencies=[PerSignIn])
async def post_nonce(service: Service, body: NonceRequest) -> NonceAnswer:
    """The same, for callers that keep the wallet out of the URL."""
    return await nonce(service, body.wallet_address)


@router.post("/login", responses=errors(401), dependencies=[PerSignIn])
async def login(service: Service, limits: Limits, address: CallerAddress, body: LoginRequest) -> LoginAnswer:
    """A bearer token for a signed sign-in message."""
    async with limits.attempt(address):
        wallet, token = await service.login(body.wallet_address, body.message, body.signature)
    return LoginAnswer(token=token.text, expires_at=token.expires_at, wallet_address=wallet)


@router.post("/logout", status_code=204)
async def logout(service: Service, who: SignedIn) -> None:
    """The bearer token of this request counts no more."""
    assert isinstance(who.proof, TokenProof)
    await service.logout(who.wallet, who.proof)


@router.post("/logout/everywhere", status_code=204)
async def logout_everywhere(service: Service, wallet: Caller, body: EverywhereRequest | None = None) -> None:
    """No bearer token of the caller counts any more; with ``revoke_keys`` no API key either."""
    await service.logout_everywhere(wallet, revoke_keys=body is not None and body.revoke_keys)
