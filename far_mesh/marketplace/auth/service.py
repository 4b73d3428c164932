"""Sign-in: a nonce is offered once, signed by a wallet once, and becomes a bearer token once. And who is behind a token
or an API key."""

from __future__ import annotations

import secrets
from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from eth_account.messages import defunct_hash_message

from discovery.protocol.ids import Wallet, check_wallet
from discovery.web.wallets import recover
from far_mesh.marketplace.auth import repository
from far_mesh.marketplace.auth.contract_wallets import ContractWallets
from far_mesh.marketplace.auth.principal import KeyProof, Principal, TokenProof, roles_of, scopes_of
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.auth.repository import Standing
from far_mesh.marketplace.auth.siwe import SignIn, parse
from far_mesh.marketplace.auth.tokens import Claims, Token, Tokens
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import (
    BadSignature,
    NonceExpired,
    NonceUnknown,
    NonceUsed,
    SignInMismatch,
    Unauthorized,
)
from far_mesh.marketplace.keys import repository as api_keys
from far_mesh.marketplace.keys.service import KeyService
from far_mesh.marketplace.keys.text import PREFIX as KEY_PREFIX


@dataclass(frozen=True)
class Audience:
    """Where one signs in: what a message must name. ``nonce_seconds`` is how long an offer stands."""

    domain: str
    uri: str
    chain_id: int
    nonce_seconds: int


class AuthService:
    """Who is asking? ``contracts`` None: wallets that are contracts cannot sign in. That somebody signed out of a token
    at another gateway may be known here ``recall_seconds`` later."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        audience: Audience,
        keys: KeyService,
        *,
        operators: Set[Wallet] = frozenset(),
        contracts: ContractWallets | None = None,
        recall_seconds: float = 0.0,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._audience = audience
        self._keys = keys
        self._operators = operators
        self._contracts = contracts
        self._recall: Recall[str, Standing] = Recall(recall_seconds)

    # ---- signing in and out

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
            ChainUnavailable: the wallet may be a contract, and the chain does not answer.
        """
        wallet, signed = check_wallet(wallet_address), parse(message)
        await self._check_offer(wallet, signed)
        await self.check_signature(wallet, message, signature)
        # Last, so that a stranger who knows a nonce cannot use it up; and as compare-and-set, so that it is used once.
        async with self._database.writing() as connection:
            if not await repository.use(connection, signed.nonce, now()):
                raise NonceUsed("this sign-in message was used already; ask for a new one")
            generation = await repository.generation(connection, wallet)
        return wallet, self._tokens.issue(wallet, generation)

    async def logout(self, wallet: Wallet, token: TokenProof) -> None:
        """A token counts no more, at any gateway that shares the database."""
        async with self._database.writing() as connection:
            await repository.forget_expired(connection, now())
            await repository.sign_out(connection, wallet, token.token_id, token.expires_at)
        self._recall.forget()

    async def logout_everywhere(self, wallet: Wallet, *, revoke_keys: bool) -> None:
        """None of the tokens that ``wallet`` has counts any more, and with ``revoke_keys`` none of its API keys."""
        async with self._database.writing() as connection:
            await repository.sign_out_everywhere(connection, wallet, now())
            if revoke_keys:
                await api_keys.revoke_all(connection, wallet, now())
        self._recall.forget()
        self._keys.forget()

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

    async def check_signature(self, wallet: Wallet, message: str, signature: str) -> None:
        """Whether ``wallet`` has signed ``message`` (EIP-191). Raises as :meth:`check_digest`."""
        await self.check_digest(wallet, defunct_hash_message(text=message), signature)

    async def check_digest(self, wallet: Wallet, digest: bytes, signature: str) -> None:
        """Whether ``wallet``, a key's or a contract, has signed the message or the typed data with this hash.

        Raises:
            BadSignature: it has not.
            ChainUnavailable: the wallet may be a contract, and the chain does not answer.
        """
        try:
            if recover(digest, signature) == wallet:
                return
            problem = BadSignature(f"the message was not signed by {wallet}")
        except BadSignature as error:
            problem = error
        if self._contracts is None:
            raise BadSignature(
                f"{problem.message} (wallets that are contracts cannot sign in here: there is no chain to ask)"
            ) from None
        if not await self._contracts.is_contract(wallet):
            raise problem
        await self._contracts.check(wallet, digest, signature)

    # ---- who is behind it

    async def principal_of(self, bearer: str) -> Principal:
        """Who a bearer token or an API key stands for.

        Raises:
            Unauthorized: not one of ours, or not any more.
        """
        if bearer.startswith(KEY_PREFIX):
            return await self._of_key(bearer)
        claims = self._tokens.read(bearer)
        standing = await self._recall.get(claims.token_id, lambda: self._look(claims))
        if standing.signed_out or standing.generation != claims.generation:
            raise Unauthorized("somebody signed out of this bearer token: sign in again")
        roles = roles_of(serves=standing.serves, operates=claims.wallet in self._operators)
        return Principal(claims.wallet, roles, scopes_of(roles), TokenProof(claims.token_id, claims.expires_at))

    async def _of_key(self, text: str) -> Principal:
        found = await self._keys.find(text)
        key = found.key
        roles = roles_of(serves=found.serves, operates=key.wallet in self._operators)
        return Principal(key.wallet, roles, scopes_of(roles, key.scopes), KeyProof(key.id, key.units_per_day))

    async def _look(self, claims: Claims) -> Standing:
        async with self._database.reading() as connection:
            return await repository.standing(connection, claims)


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
