"""Who may come in: what routes depend on, to learn who asks and to refuse those who may not.

A route takes one of the values at the end of this file. What it takes is what it needs: a route that takes ``Caller``
can be used by a wallet that has signed in and by no API key, until it says which scope a key needs for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from discovery.protocol.ids import Wallet
from discovery.web.address import Address
from far_mesh.marketplace.auth.principal import Principal, Role, Scope, TokenProof
from far_mesh.marketplace.auth.service import AuthService
from far_mesh.marketplace.errors import Forbidden, Unauthorized
from far_mesh.marketplace.limits import door as limits_door
from far_mesh.marketplace.limits.schemas import headers_of
from far_mesh.marketplace.limits.service import RateLimits
from far_mesh.marketplace.logs import CREDENTIAL

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="A bearer token from /api/auth/login, or an API key from /api/account/keys.",
)
_CREDENTIAL_NAMES = frozenset({"access_token", "api_key", "api-key", "apikey", "x-api-key"})


async def auth_service(request: Request) -> AuthService:
    """The room's service, made by the app."""
    service: AuthService = request.app.state.rooms.auth
    return service


Service = Annotated[AuthService, Depends(auth_service)]


@dataclass(frozen=True)
class Needs:
    """What a route needs of whoever asks. ``scope`` None: that the wallet itself has signed in, which no key has."""

    scope: Scope | None = None
    role: Role = Role.USER

    async def __call__(
        self,
        request: Request,
        service: Service,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
        limits: limits_door.Service,
        address: limits_door.CallerAddress,
        response: Response,
    ) -> Principal:
        """Who asks. It counts for the limit of the account, but for inference, which has a limit of its own.

        Raises:
            Unauthorized: nobody we know, or a credential in the URL.
            Forbidden: the credential or the wallet may not do this.
            RateLimited: too many credentials of this address were none, or the account asks too often.
        """
        _refuse_credentials_in_the_url(request)
        principal = await self.principal(service, limits, None if bearer is None else bearer.credentials, address)
        if self.scope is not Scope.INFERENCE:
            response.headers.update(headers_of("requests", await limits.call(principal.wallet)))
        return principal

    async def principal(
        self, service: AuthService, limits: RateLimits, bearer: str | None, address: Address | None
    ) -> Principal:
        """Whose credential ``bearer`` is, whichever way it came from ``address``.

        Raises:
            Unauthorized: nobody we know.
            Forbidden: the credential or the wallet may not do this.
            RateLimited: nobody we know, and too many credentials of this address were none.
        """
        if bearer is None:
            raise Unauthorized(
                "a bearer token or an API key is needed: sign in through /api/auth/nonce and /api/auth/login"
            )
        try:
            principal = await service.principal_of(bearer.strip())
        except Unauthorized:
            await limits.failed(address)
            raise
        self._check(principal)
        return principal

    def _check(self, principal: Principal) -> None:
        if self.scope is None and not isinstance(principal.proof, TokenProof):
            raise Forbidden("an API key cannot do this: sign in with the wallet")
        if self.role not in principal.roles:
            raise Forbidden(f"this is for wallets with the role {self.role}")
        if self.scope is not None and self.scope not in principal.scopes:
            raise Forbidden(f"the API key does not have the scope {self.scope}")


def _refuse_credentials_in_the_url(request: Request) -> None:
    for name, value in request.query_params.multi_items():
        if name.lower() in _CREDENTIAL_NAMES or CREDENTIAL.search(value):
            raise Unauthorized(
                "tokens and keys go into the header Authorization, never into the URL, which proxies and browsers "
                "keep: what was in this one should be revoked"
            )


@cache
def needs(scope: Scope | None = None, role: Role = Role.USER) -> Callable[..., Awaitable[Wallet]]:
    """A dependency: the wallet that asks, once it was found to have what is needed."""

    async def wallet(principal: Principal = Depends(Needs(scope, role))) -> Wallet:  # noqa: B008  # how FastAPI is told
        return principal.wallet

    return wallet


SignedIn = Annotated[Principal, Depends(Needs())]
"""Who asks, signed in with the wallet itself."""

MayInfer = Annotated[Principal, Depends(Needs(Scope.INFERENCE))]
"""Who asks, with a credential that may spend on requests."""


async def api_key_id(principal: MayInfer) -> str | None:
    """The id of the API key that asks; None for a wallet that has signed in itself."""
    return principal.api_key_id


ApiKeyId = Annotated[str | None, Depends(api_key_id)]
"""What a request has to name, so that it counts for the limits and the usage of the API key that it was asked for
with."""

Caller = Annotated[Wallet, Depends(needs())]
"""The wallet that asks, signed in with itself."""

InferenceCaller = Annotated[Wallet, Depends(needs(Scope.INFERENCE))]
AccountReader = Annotated[Wallet, Depends(needs(Scope.ACCOUNT_READ))]
AccountWriter = Annotated[Wallet, Depends(needs(Scope.ACCOUNT_WRITE))]
ProviderCaller = Annotated[Wallet, Depends(needs(Scope.PROVIDER))]
"""The wallet that asks, with a credential for what concerns providers; whether nodes name it or not."""

Operator = Annotated[Wallet, Depends(needs(Scope.OPERATOR, Role.OPERATOR))]
"""The wallet that asks, which is an operator's."""
