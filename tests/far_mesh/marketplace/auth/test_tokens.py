"""Only our own tokens, of our own kind, for as long as they say."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from far_mesh.marketplace.auth.tokens import Tokens, kid_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Unauthorized
from tests.support.documents import wallet_of

SECRET = "a secret that is long enough for HS256"
NEXT_SECRET = "the secret that takes its place, as long"
WALLET = wallet_of("user")
TOKENS = Tokens(SECRET, "https://far.test", 3600)
RSA_KEY = rsa.generate_private_key(65537, 2048)
NO_HEADERS: Mapping[str, Any] = {}


def forged(
    secret: str = SECRET, algorithm: str = "HS256", headers: Mapping[str, Any] = NO_HEADERS, **changes: Any
) -> str:
    claims = {
        "iss": "far-mesh",
        "aud": "https://far.test",
        "sub": WALLET,
        "iat": now(),
        "exp": now() + timedelta(hours=1),
        "jti": "1",
        "gen": 0,
    }
    whole = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(whole, secret, algorithm, {"kid": kid_of(SECRET), **headers})


def without(name: str) -> str:
    nothing: dict[str, Any] = {name: None}
    return forged(**nothing)


def with_header(header: object, token: str | None = None) -> str:
    text = header if isinstance(header, str) else json.dumps(header)
    segment = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return ".".join([segment, *(token or forged()).split(".")[1:]])


def signed_by_a_key_of_its_own(algorithm: str) -> str:
    """RS256 with a key pair that the header brings along; or HS256 with the public half as its secret, as where a
    server takes the algorithm from the token (RFC 8725 §2.1)."""
    public = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key()))
    header = {"alg": algorithm, "kid": kid_of(SECRET), "jwk": jwk}
    payload = forged().split(".")[1]
    text = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=") + "." + payload
    if algorithm == "RS256":
        signature = RSA_KEY.sign(text.encode(), PKCS1v15(), SHA256())
    else:
        signature = hmac.digest(public, text.encode(), "sha256")
    return text + "." + base64.urlsafe_b64encode(signature).decode().rstrip("=")


def test_a_token_names_its_wallet() -> None:
    token = TOKENS.issue(WALLET, 7)
    claims = TOKENS.read(token.text)
    assert (claims.wallet, claims.generation, claims.expires_at) == (WALLET, 7, token.expires_at)
    assert timedelta(minutes=59) < token.expires_at - now() <= timedelta(hours=1)
    assert TOKENS.read(forged()).wallet == WALLET
    assert TOKENS.read(TOKENS.issue(WALLET, 7).text).token_id != claims.token_id


REFUSED = (
    "",
    WALLET,
    "a.b.c",
    "\u00e9.b.c",
    forged(secret="another secret that is long enough too"),
    forged(algorithm="HS512"),
    forged(algorithm="HS384"),
    forged(iss="else"),
    forged(aud="https://elsewhere.test"),
    forged(aud=["https://far.test.evil.test"]),
    forged(sub="0x12"),
    forged(sub=7),
    forged(exp=now() - timedelta(seconds=1)),
    forged(iat=now() + timedelta(hours=1)),
    forged(nbf=now() + timedelta(hours=1)),
    forged(gen="x"),
    *(without(name) for name in ("iss", "aud", "sub", "iat", "exp", "jti", "gen")),
    jwt.encode(jwt.decode(forged(), options={"verify_signature": False}), None, "none"),  # type: ignore[arg-type]
    with_header({"alg": "none", "kid": kid_of(SECRET), "typ": "JWT"}),
    with_header({"alg": "none", "kid": kid_of(SECRET), "typ": "JWT"}, forged().rpartition(".")[0] + "."),
    with_header({"alg": "RS256", "kid": kid_of(SECRET), "typ": "JWT"}),
    with_header({"alg": "ES256", "kid": kid_of(SECRET), "typ": "JWT"}),
    with_header({"alg": "hs256", "kid": kid_of(SECRET), "typ": "JWT"}),
    signed_by_a_key_of_its_own("RS256"),
    signed_by_a_key_of_its_own("HS256"),
    with_header({"alg": "HS256", "typ": "JWT"}),
    with_header({"alg": "HS256", "kid": "", "typ": "JWT"}),
    with_header({"alg": "HS256", "kid": kid_of(NEXT_SECRET), "typ": "JWT"}),
    with_header({"alg": "HS256", "kid": "../../dev/null", "typ": "JWT"}),
    with_header("[" * 50_000),
    forged(headers={"kid": kid_of(SECRET), "crit": ["b64"], "b64": False}),
    forged(headers={"jwk": {"kty": "oct", "k": "AAAA"}}),
    forged() + ".",
    forged()[:-1],
    " " + forged(),
)


@pytest.mark.parametrize("token", REFUSED, ids=map(str, range(len(REFUSED))))  # by number: they are new each time
def test_anything_else_is_nobodys(token: str) -> None:
    with pytest.raises(Unauthorized):
        TOKENS.read(token)


def test_a_secret_is_replaced_without_signing_anybody_out() -> None:
    first = Tokens(SECRET, "https://far.test", 3600)
    learning = Tokens(SECRET, "https://far.test", 3600, [NEXT_SECRET])
    replaced = Tokens(NEXT_SECRET, "https://far.test", 3600, [SECRET])
    done = Tokens(NEXT_SECRET, "https://far.test", 3600)
    old, new = first.issue(WALLET, 0).text, replaced.issue(WALLET, 0).text
    for tokens in (first, learning, replaced):
        assert tokens.read(old).wallet == WALLET
    for tokens in (learning, replaced, done):
        assert tokens.read(new).wallet == WALLET
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]
    for tokens, token in ((done, old), (first, new)):
        with pytest.raises(Unauthorized):
            tokens.read(token)


def test_a_token_that_names_one_secret_and_was_signed_with_another_is_refused() -> None:
    both = Tokens(NEXT_SECRET, "https://far.test", 3600, [SECRET])
    with pytest.raises(Unauthorized):
        both.read(forged(secret=NEXT_SECRET))
    assert both.read(forged(secret=NEXT_SECRET, headers={"kid": kid_of(NEXT_SECRET)})).wallet == WALLET


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def watched(left: bytes, right: bytes) -> bool:
        compared.extend((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    token = forged()
    TOKENS.read(token)
    signature = token.rpartition(".")[2]
    assert compared.count(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))) == 2


def test_no_secret_in_its_description_or_its_name() -> None:
    assert SECRET not in repr(TOKENS)
    assert SECRET not in kid_of(SECRET)
