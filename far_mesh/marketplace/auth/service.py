"""Sign-in: a nonce is offered once, signed by a wallet once, and becomes a bearer token once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from discovery.protocol.ids import Wallet, check_wallet
from far_mesh.marketplace.auth import repository
from far_mesh.marketplace.auth.siwe import SignIn, parse, signer_of
from far_mesh.marketplace.auth.tokens import Token, Tokens
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import BadSignature, NonceExpired, NonceUnknown, NonceUsed, SignInMismatch


@dataclass(frozen=True)
class Audience:
    """Where one signs in: what a message must name. ``nonce_seconds`` is how long an offer stands."""

    domain: str
    uri: str
    chain_id: int
    nonce_seconds: int


class AuthService:
    """Who is asking?"""

    def __init__(self, database: Database, tokens: Tokens, audience: Audience) -> None:
        self._database = database
        self._tokens = tokens
        self._audience = audience

    async def offer(self, wallet_address: str) -> SignIn:
        """A fresh sign-in message for a wallet.

        Raises:
            InvalidWallet: not an address.
        """
        here, issued = self._audience, _milliseconds(now())
        expires = issued + timedelta(seconds=here.nonce_seconds)
        nonce = secrets.token_hex(16)
        offer = SignIn(here.domain, check_wallet(wallet_address), here.uri, here.chain_id, nonce, issued, expires)
        async with self._database.writing() as connection:
            await repository.add(connection, offer)
        return offer

    async def login(self, wallet_address: str, message: str, signature: str) -> tuple[Wallet, Token]:
        """A bearer token for whoever signed ``message``.

        Raises:
            InvalidWallet: not an address.
            SignInMismatch: another domain, URI, chain, wallet or time than was offered.
            BadSignature: somebody else signed.
            NonceUnknown, NonceUsed, NonceExpired: the nonce.
        """
        wallet, signed = check_wallet(wallet_address), parse(message)
        await self._check_offer(wallet, signed)
        if signer_of(message, signature) != wallet:
            raise BadSignature(f"the message was not signed by {wallet}")
        # Last, so that a stranger who knows a nonce cannot use it up; and as compare-and-set, so that it is used once.
        async with self._database.writing() as connection:
            if not await repository.use(connection, signed.nonce, now()):
                raise NonceUsed("this sign-in message was used already; ask for a new one")
        return wallet, self._tokens.issue(wallet)

    def who(self, bearer: str) -> Wallet:
        """The wallet behind a bearer token.

        Raises:
            Unauthorized: not one of ours, or not any more.
        """
        return self._tokens.wallet_of(bearer)

    async def _check_offer(self, wallet: Wallet, signed: SignIn) -> None:
        async with self._database.reading() as connection:
            found = await repository.find(connection, signed.nonce)
        if found is None:
            raise NonceUnknown("this nonce was not given out here; ask /api/auth/nonce for one")
        offer, used = found
        if difference := _first_difference(offer, signed, wallet):
            raise SignInMismatch(f"the sign-in message has another {difference} than was offered")
        if used:
            raise NonceUsed("this sign-in message was used already; ask for a new one")
        if now() >= offer.expiration_time:
            raise NonceExpired("this sign-in message has expired; ask for a new one")


def _first_difference(offer: SignIn, signed: SignIn, wallet: Wallet) -> str | None:
    """What the signed message says differently from the offer, in words."""
    checks = {
        "domain": signed.domain == offer.domain,
        "wallet": signed.address == offer.address == wallet,
        "URI": signed.uri == offer.uri,
        "chain id": signed.chain_id == offer.chain_id,
        "issue time": signed.issued_at == offer.issued_at,
        "expiration time": signed.expiration_time == offer.expiration_time,
        "beginning": signed.not_before is None or signed.not_before <= now(),
    }
    return next((name for name, same in checks.items() if not same), None)


def _milliseconds(time: datetime) -> datetime:
    """To the precision that the message shows, so that what comes back equals what went out."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
