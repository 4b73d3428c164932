"""Sign-in against those who replay, delay, redirect or borrow a message."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from eth_account import Account

from discovery.protocol.errors import FarError, InvalidWallet
from far_mesh.marketplace.auth import service as auth
from far_mesh.marketplace.auth.service import Audience, AuthService
from far_mesh.marketplace.auth.siwe import SignIn
from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import BadSignature, NonceExpired, NonceUnknown, NonceUsed, SignInMismatch
from far_mesh.marketplace.keys.service import KeyService
from tests.far_mesh.marketplace.house import signed

KEY, OTHER_KEY = "0x" + "42" * 32, "0x" + "43" * 32
WALLET = Account.from_key(KEY).address
HERE = Audience("far.test", "https://far.test", 31337, 300)
TOKENS = Tokens("a secret that is long enough for HS256", HERE.uri, 3600)


@pytest.fixture
def service(database: Database) -> AuthService:
    return AuthService(database, TOKENS, HERE, KeyService(database, 0))


async def login(service: AuthService, message: str, key: str = KEY, **changes: str) -> str:
    wallet, _token = await service.login(**(signed(message, key) | changes))
    return wallet


async def test_a_signed_offer_is_a_token(service: AuthService) -> None:
    offer = await service.offer(WALLET.lower())
    wallet, token = await service.login(**signed(offer.text(), KEY))
    assert wallet == (await service.principal_of(token.text)).wallet == WALLET


async def test_a_message_signs_in_once(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    await login(service, offer.text())
    with pytest.raises(NonceUsed):
        await login(service, offer.text())


async def test_of_a_hundred_uses_at_once_one_succeeds(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    done = await asyncio.gather(*(login(service, offer.text()) for _ in range(100)), return_exceptions=True)
    assert sum(one == WALLET for one in done) == 1
    assert sum(isinstance(one, NonceUsed) for one in done) == 99


async def test_a_message_that_comes_too_late_is_refused(service: AuthService, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = await service.offer(WALLET)
    later = now() + timedelta(seconds=301)
    monkeypatch.setattr(auth, "now", lambda: later)
    with pytest.raises(NonceExpired):
        await login(service, offer.text())


def changed(offer: SignIn, field: str) -> SignIn:
    changes: dict[str, object] = {
        "domain": "evil.test",
        "uri": "https://evil.test",
        "chain_id": 1,
        "address": Account.from_key(OTHER_KEY).address,
        "issued_at": offer.issued_at + timedelta(seconds=1),
        "expiration_time": offer.expiration_time + timedelta(days=365),
        "not_before": now() + timedelta(hours=1),
    }
    return replace(offer, **{field: changes[field]})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "field", ["domain", "uri", "chain_id", "address", "issued_at", "expiration_time", "not_before"]
)
async def test_a_message_that_says_something_else_than_was_offered_is_refused(service: AuthService, field: str) -> None:
    offer = await service.offer(WALLET)
    with pytest.raises(SignInMismatch):
        await login(service, changed(offer, field).text())
    assert await login(service, offer.text()) == WALLET  # and a failed attempt does not use the nonce up


async def test_an_offer_to_one_wallet_does_not_sign_another_in(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    thief = Account.from_key(OTHER_KEY).address
    mine = replace(offer, address=thief)
    for message, wallet in ((offer.text(), thief), (mine.text(), thief), (mine.text(), WALLET)):
        with pytest.raises(SignInMismatch):
            await login(service, message, OTHER_KEY, wallet_address=wallet)


async def test_somebody_elses_signature_is_refused(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    with pytest.raises(BadSignature):
        await login(service, offer.text(), OTHER_KEY, wallet_address=WALLET)


async def test_a_nonce_of_ones_own_making_is_refused(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    with pytest.raises(NonceUnknown):
        await login(service, replace(offer, nonce="0" * 32).text())


async def test_offers_differ(service: AuthService) -> None:
    assert len({(await service.offer(WALLET)).nonce for _ in range(20)}) == 20


@pytest.mark.parametrize("wallet", ["", "0x", "me", "0x" + "1" * 39, WALLET[:-1] + ("0" if WALLET[-1] != "0" else "1")])
async def test_what_is_no_wallet_gets_no_offer(service: AuthService, wallet: str) -> None:
    with pytest.raises(InvalidWallet):
        await service.offer(wallet)


async def test_every_refusal_is_one_of_ours(service: AuthService) -> None:
    with pytest.raises(FarError):
        await service.login(WALLET, "hello", "0x")
