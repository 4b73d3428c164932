"""Bearer tokens: JWT, HS256 and nothing else, for one issuer and one audience."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt

from discovery.protocol.errors import InvalidWallet
from discovery.protocol.ids import Wallet, check_wallet
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Unauthorized

ALGORITHM = "HS256"
ISSUER = "far-mesh"


@dataclass(frozen=True)
class Token:
    """A bearer token and when it stops to count."""

    text: str
    expires_at: datetime


class Tokens:
    """Makes and reads bearer tokens with one secret."""

    def __init__(self, secret: str, audience: str, seconds: int) -> None:
        self._secret = secret
        self._audience = audience
        self._lifetime = timedelta(seconds=seconds)

    def __repr__(self) -> str:
        return "Tokens()"

    def issue(self, wallet: Wallet) -> Token:
        """A token for ``wallet``."""
        issued, expires = now(), now() + self._lifetime
        claims = {
            "iss": ISSUER,
            "aud": self._audience,
            "sub": wallet,
            "iat": issued,
            "exp": expires,
            "jti": secrets.token_hex(16),
        }
        return Token(jwt.encode(claims, self._secret, ALGORITHM), expires)

    def wallet_of(self, text: str) -> Wallet:
        """Whose token this is.

        Raises:
            Unauthorized: it is not one of ours, or not any more.
        """
        try:
            claims = jwt.decode(
                text,
                self._secret,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=ISSUER,
                options={"require": ["iss", "aud", "sub", "iat", "exp", "jti"]},
            )
            return check_wallet(claims["sub"])
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the bearer token has expired: sign in again") from None
        except (jwt.InvalidTokenError, InvalidWallet):
            raise Unauthorized(
                "the bearer token is not valid: sign in through /api/auth/nonce and /api/auth/login"
            ) from None
