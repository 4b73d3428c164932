"""Only our own tokens, of our own kind, for as long as they say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest

from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Unauthorized
from tests.support.documents import wallet_of

SECRET = "a secret that is long enough for HS256"
WALLET = wallet_of("user")
TOKENS = Tokens(SECRET, "https://far.test", 3600)


def forged(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {
        "iss": "far-mesh",
        "aud": "https://far.test",
        "sub": WALLET,
        "iat": now(),
        "exp": now() + timedelta(hours=1),
        "jti": "1",
    }
    whole = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(whole, secret, algorithm)


def without(name: str) -> str:
    nothing: dict[str, Any] = {name: None}
    return forged(**nothing)


def test_a_token_names_its_wallet() -> None:
    token = TOKENS.issue(WALLET)
    assert TOKENS.wallet_of(token.text) == WALLET
    assert timedelta(minutes=59) < token.expires_at - now() <= timedelta(hours=1)
    assert TOKENS.wallet_of(forged()) == WALLET


@pytest.mark.parametrize(
    "token",
    [
        "",
        WALLET,
        "a.b.c",
        forged(secret="another secret that is long enough too"),
        forged(algorithm="HS512"),
        forged(iss="else"),
        forged(aud="https://elsewhere.test"),
        forged(sub="0x12"),
        forged(exp=now() - timedelta(seconds=1)),
        *(without(name) for name in ("iss", "aud", "sub", "iat", "exp", "jti")),
        jwt.encode(jwt.decode(forged(), options={"verify_signature": False}), None, "none"),  # type: ignore[arg-type]
    ],
)
def test_anything_else_is_nobodys(token: str) -> None:
    with pytest.raises(Unauthorized):
        TOKENS.wallet_of(token)


def test_no_secret_in_its_description() -> None:
    assert SECRET not in repr(TOKENS)
