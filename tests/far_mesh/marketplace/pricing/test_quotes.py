"""A quote is a promise of ours, to one wallet, about one model, for a while."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import QuoteInvalid, Unauthorized
from far_mesh.marketplace.ledger.split import Prices
from far_mesh.marketplace.pricing.quotes import Quotes
from tests.support.documents import wallet_of

SECRET = "a secret that is long enough for HS256"
ANN, BOB = wallet_of("ann"), wallet_of("bob")
PRICES = Prices(prompt=10, completion=84, cached=5, fee_bps=2_000)


@pytest.fixture
def quotes() -> Quotes:
    return Quotes(SECRET, 60)


def test_a_quote_is_kept_by_every_gateway_with_the_same_secret(quotes: Quotes) -> None:
    quote = quotes.give(ANN, "tiny", "standard", PRICES)
    assert Quotes(SECRET, 1).kept(quote.id, ANN, "tiny", "standard") == PRICES
    assert timedelta(seconds=55) < quote.expires_at - now() <= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("wallet", "model", "tier"), [(BOB, "tiny", "standard"), (ANN, "big", "standard"), (ANN, "tiny", "premium")]
)
def test_a_quote_is_not_about_anything_else(quotes: Quotes, wallet: str, model: str, tier: str) -> None:
    quote = quotes.give(ANN, "tiny", "standard", PRICES)
    with pytest.raises(QuoteInvalid, match="another"):
        quotes.kept(quote.id, wallet, model, tier)


def test_an_old_quote_is_not_kept() -> None:
    late = Quotes(SECRET, -1)
    with pytest.raises(QuoteInvalid, match="expired"):
        late.kept(late.give(ANN, "tiny", "standard", PRICES).id, ANN, "tiny", "standard")


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", "\x00", "é" * 40, "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_quote_is_refused(quotes: Quotes, text: str) -> None:
    with pytest.raises(QuoteInvalid):
        quotes.kept(text, ANN, "tiny", "standard")


def test_what_somebody_else_signed_is_refused(quotes: Quotes) -> None:
    theirs = Quotes("another secret that is long enough", 60).give(ANN, "tiny", "standard", PRICES)
    with pytest.raises(QuoteInvalid):
        quotes.kept(theirs.id, ANN, "tiny", "standard")


def test_a_bearer_token_is_no_quote_and_a_quote_no_bearer_token(quotes: Quotes) -> None:
    tokens = Tokens(SECRET, "https://far.test", 60)
    with pytest.raises(QuoteInvalid):
        quotes.kept(tokens.issue(ANN, 0).text, ANN, "tiny", "standard")
    with pytest.raises(Unauthorized):
        tokens.read(quotes.give(ANN, "tiny", "standard", PRICES).id)
    claims = {"wallet": ANN, "model": "tiny", "tier": "standard", "prompt": 0, "completion": 0, "cached": 0}
    forged = jwt.encode({**claims, "fee_bps": 0, "exp": now() + timedelta(hours=1)}, SECRET, "HS256")
    with pytest.raises(QuoteInvalid):
        quotes.kept(forged, ANN, "tiny", "standard")


def test_the_secret_is_not_shown(quotes: Quotes) -> None:
    assert repr(quotes) == "Quotes()"
