"""Quotes: prices signed by us, so that any gateway with the same secret keeps what another has promised.

HS256 with a key of its own, which is derived from the secret of the bearer tokens: neither can be taken for the other.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import Any

import jwt

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import QuoteInvalid
from far_mesh.marketplace.ledger.split import Prices
from far_mesh.marketplace.pricing.schemas import Quote

ALGORITHM = "HS256"
PURPOSE = b"far-mesh/quote/v1"
_CLAIMS = ("wallet", "model", "tier", "prompt", "completion", "cached", "fee_bps", "exp")


class Quotes:
    """Makes and reads quotes."""

    def __init__(self, secret: str, seconds: int) -> None:
        self._key = hmac.digest(secret.encode(), PURPOSE, hashlib.sha256)
        self._lifetime = timedelta(seconds=seconds)

    def __repr__(self) -> str:
        return "Quotes()"

    def give(self, wallet: str, model_id: str, tier: str, prices: Prices) -> Quote:
        """Promise ``prices``."""
        expires = (now() + self._lifetime).replace(microsecond=0)
        claims = {
            "wallet": wallet,
            "model": model_id,
            "tier": tier,
            "prompt": prices.prompt,
            "completion": prices.completion,
            "cached": prices.cached,
            "fee_bps": prices.fee_bps,
            "exp": expires,
        }
        return Quote(jwt.encode(claims, self._key, ALGORITHM), expires)

    def kept(self, text: str, wallet: str, model_id: str, tier: str) -> Prices:
        """What was promised.

        Raises:
            QuoteInvalid: it is not ours, not any more, or not about this.
        """
        claims = self._read(text)
        if (claims["wallet"], claims["model"], claims["tier"]) != (wallet, model_id, tier):
            raise QuoteInvalid("the quote is about another wallet, model or tier", param="quote_id")
        return Prices(claims["prompt"], claims["completion"], claims["cached"], claims["fee_bps"])

    def _read(self, text: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                text, self._key, algorithms=[ALGORITHM], options={"require": list(_CLAIMS)}
            )
        except jwt.ExpiredSignatureError:
            raise QuoteInvalid("the quote has expired: ask for another", param="quote_id") from None
        except jwt.InvalidTokenError:
            raise QuoteInvalid("quote_id is not one of our quotes", param="quote_id") from None
        return claims
