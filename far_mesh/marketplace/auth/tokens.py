"""Bearer tokens: JWT (RFC 7519), HS256 and nothing else, for one issuer and one audience.

The first secret signs, all of them verify, so that a secret can be replaced without signing anybody out. A token's
header says by ``kid`` which secret it was; the name is derived from the secret, so gateways agree on it by themselves.
A header that is not letter for letter one of ours is refused before anything in it is read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from discovery.protocol.errors import InvalidWallet
from discovery.protocol.ids import Wallet, check_wallet
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Unauthorized

ALGORITHM = "HS256"
ISSUER = "far-mesh"
PURPOSE = b"far-mesh/kid/v1"
_KID_HEX_DIGITS = 16
_CLAIMS = ("iss", "aud", "sub", "iat", "exp", "jti", "gen")


@dataclass(frozen=True)
class Token:
    """A bearer token and when it stops to count."""

    text: str
    expires_at: datetime


@dataclass(frozen=True)
class Claims:
    """What a valid token says. ``generation``: how often its wallet had been signed out everywhere when it was made."""

    wallet: Wallet
    token_id: str
    generation: int
    expires_at: datetime


class Tokens:
    """Makes bearer tokens with ``secret``, and reads those that were made with it or with one of ``other_secrets``."""

    def __init__(self, secret: str, audience: str, seconds: int, other_secrets: Sequence[str] = ()) -> None:
        self._secret = secret
        self._audience = audience
        self._lifetime = timedelta(seconds=seconds)
        self._by_header = {_header_of(one): one for one in (secret, *other_secrets)}

    def __repr__(self) -> str:
        return "Tokens()"

    def issue(self, wallet: Wallet, generation: int) -> Token:
        """A token for ``wallet``."""
        issued, expires = now(), (now() + self._lifetime).replace(microsecond=0)
        claims = {
            "iss": ISSUER,
            "aud": self._audience,
            "sub": wallet,
            "iat": issued,
            "exp": expires,
            "jti": secrets.token_hex(16),
            "gen": generation,
        }
        return Token(jwt.encode(claims, self._secret, ALGORITHM, {"kid": kid_of(self._secret)}), expires)

    def read(self, text: str) -> Claims:
        """What a token of ours says. Whether somebody signed out of it is not asked here.

        Raises:
            Unauthorized: it is not one of ours, or not any more.
        """
        try:
            claims = jwt.decode(
                text,
                self._by_header[text.partition(".")[0]],
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=ISSUER,
                options={"require": list(_CLAIMS)},
            )
            return Claims(
                wallet=check_wallet(claims["sub"]),
                token_id=claims["jti"],
                generation=int(claims["gen"]),
                expires_at=datetime.fromtimestamp(claims["exp"], UTC),
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the bearer token has expired: sign in again") from None
        except (jwt.InvalidTokenError, InvalidWallet, KeyError, ValueError, TypeError):
            raise Unauthorized(
                "the bearer token is not valid: sign in through /api/auth/nonce and /api/auth/login"
            ) from None


def kid_of(secret: str) -> str:
    """The public name of a secret."""
    return hmac.digest(secret.encode(), PURPOSE, hashlib.sha256).hex()[:_KID_HEX_DIGITS]


def _header_of(secret: str) -> str:
    return jwt.encode({}, secret, ALGORITHM, {"kid": kid_of(secret)}).partition(".")[0]
