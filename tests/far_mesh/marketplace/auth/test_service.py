"""Sign-in against those who replay, delay, redirect, bend or borrow a message; and signing out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from eth_account import Account
from sqlalchemy import event, func, insert, select

from discovery.protocol.errors import FarError, InvalidWallet
from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth import service as auth
from far_mesh.marketplace.auth.principal import Role, Scope, TokenProof
from far_mesh.marketplace.auth.service import Audience, AuthService
from far_mesh.marketplace.auth.siwe import SignIn
from far_mesh.marketplace.auth.tokens import Tokens
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
from far_mesh.marketplace.keys.schemas import NewKey
from far_mesh.marketplace.keys.service import KeyService
from far_mesh.marketplace.tables import node_registry, revoked_tokens
from tests.far_mesh.marketplace.house import signed

KEY, OTHER_KEY = "0x" + "42" * 32, "0x" + "43" * 32
WALLET, OTHER = Wallet(Account.from_key(KEY).address), Account.from_key(OTHER_KEY).address
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
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


# ---- signatures that are bent


def bent(name: str, good: str) -> str:
    raw = bytes.fromhex(good[2:])
    r, s, v = raw[:32], int.from_bytes(raw[32:64]), raw[64]
    twin = (ORDER - s).to_bytes(32)
    return (
        "0x"
        + {
            "high s": r + twin + bytes([55 - v]),
            "high s, same v": r + twin + bytes([v]),
            "other v": raw[:64] + bytes([55 - v]),
            "v of a chain id (EIP-155)": raw[:64] + bytes([35 + 2 * 56 + v - 27]),
            "v of nothing": raw[:64] + b"\x1d",
            "s of zero": r + bytes(32) + bytes([v]),
            "r of zero": bytes(32) + raw[32:],
            "truncated": raw[:64],
            "with more behind it": raw + b"\x00",
            "compact (EIP-2098)": r + (s | (v - 27) << 255).to_bytes(32),
            "nothing": b"",
        }[name].hex()
    )


BENT = (
    *("high s", "high s, same v", "other v", "v of a chain id (EIP-155)", "v of nothing", "s of zero", "r of zero"),
    *("truncated", "with more behind it", "compact (EIP-2098)", "nothing"),
)


@pytest.mark.parametrize("name", BENT)
async def test_a_bent_signature_is_refused_and_uses_nothing_up(service: AuthService, name: str) -> None:
    offer = await service.offer(WALLET)
    good = signed(offer.text(), KEY)
    with pytest.raises(BadSignature):
        await service.login(**(good | {"signature": bent(name, good["signature"])}))
    assert (await service.login(**good))[0] == WALLET


async def test_a_signature_of_another_text_is_refused(service: AuthService) -> None:
    offer, other = await service.offer(WALLET), await service.offer(WALLET)
    with pytest.raises(BadSignature):
        await login(service, offer.text(), signature=signed(other.text(), KEY)["signature"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Version: 1", "Version: 2"),
        ("Version: 1", "Version: 1\nVersion: 1"),
        ("Sign in to Far Mesh.", "Sign in to Far Mesh.\n\nURI: https://evil.test"),
        ("Sign in to Far Mesh.", "Sign in.\nevil.test wants you to sign in with your Ethereum account:"),
        ("Sign in to Far Mesh.", "Sign in.\r\nURI: https://evil.test"),
        ("Sign in to Far Mesh.", "Sign in.\u2028URI: https://evil.test"),
        ("URI: https://far.test", "URI: https://far.test\nURI: https://far.test"),
        ("URI: https://far.test", "URI: https://far.test@evil.test"),
        ("far.test wants", "far.test.evil.test wants"),
        ("far.test wants", "FAR.test wants"),
        ("Chain ID: 31337", "Chain ID: 1"),
        ("Chain ID: 31337", "Chain ID: 031337"),
    ],
)
async def test_a_message_that_was_worked_on_is_refused(service: AuthService, before: str, after: str) -> None:
    text = (await service.offer(WALLET)).text()
    assert before in text
    with pytest.raises(SignInMismatch):
        await login(service, text.replace(before, after))


async def test_a_statement_of_ones_own_signs_in_for_what_was_offered_and_nothing_else(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    assert await login(service, replace(offer, statement="URI: https://evil.test").text()) == WALLET


async def test_a_message_that_was_issued_in_the_future_is_refused(service: AuthService) -> None:
    offer = await service.offer(WALLET)
    with pytest.raises(SignInMismatch, match="issue time"):
        await login(service, replace(offer, issued_at=now() + timedelta(hours=1)).text())


# ---- signing out


async def signed_in(service: AuthService) -> str:
    _, token = await service.login(**signed((await service.offer(WALLET)).text(), KEY))
    return token.text


async def sign_out(service: AuthService, token: str) -> None:
    who = await service.principal_of(token)
    assert isinstance(who.proof, TokenProof)
    await service.logout(who.wallet, who.proof)


async def is_refused(service: AuthService, token: str) -> bool:
    try:
        await service.principal_of(token)
    except Unauthorized:
        return True
    return False


def gateway(database: Database, recall_seconds: float) -> AuthService:
    return AuthService(database, TOKENS, HERE, KeyService(database, recall_seconds), recall_seconds=recall_seconds)


async def test_who_signs_out_of_a_token_is_out_of_that_one_at_every_gateway(database: Database) -> None:
    here, there = gateway(database, 60), gateway(database, 0)
    one, other = await signed_in(here), await signed_in(here)
    assert not await is_refused(here, one)
    await sign_out(here, one)
    await sign_out(here, other)
    other = await signed_in(there)
    for service in (here, there):
        assert await is_refused(service, one)
        assert not await is_refused(service, other)


async def test_signing_out_twice_is_signing_out(database: Database, service: AuthService) -> None:
    token = await signed_in(service)
    who = await service.principal_of(token)
    assert isinstance(who.proof, TokenProof)
    for _ in range(2):
        await service.logout(who.wallet, who.proof)
    assert await is_refused(service, token)


async def test_a_gateway_may_remember_that_a_token_counts_for_as_long_as_it_is_told(database: Database) -> None:
    here, there = gateway(database, 60), gateway(database, 60)
    token = await signed_in(here)
    await there.principal_of(token)
    await sign_out(here, token)
    assert await is_refused(here, token)
    assert not await is_refused(there, token)
    there._recall.forget()
    assert await is_refused(there, token)


async def test_a_token_that_is_remembered_costs_no_statement(database: Database) -> None:
    service = gateway(database, 60)
    token = await signed_in(service)
    await service.principal_of(token)
    statements: list[str] = []
    event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    for _ in range(20):
        await service.principal_of(token)
    assert statements == []


async def test_signing_out_everywhere_ends_all_tokens_and_no_later_one(database: Database) -> None:
    here, there = gateway(database, 60), gateway(database, 0)
    tokens = [await signed_in(service) for service in (here, there, here)]
    stranger = (await here.login(**signed((await here.offer(OTHER)).text(), OTHER_KEY)))[1].text
    for token in tokens:
        await here.principal_of(token)
    await here.logout_everywhere(WALLET, revoke_keys=False)
    later = await signed_in(there)
    for service in (here, there):
        assert [await is_refused(service, token) for token in (*tokens, later, stranger)] == [True] * 3 + [False] * 2
    await there.logout_everywhere(WALLET, revoke_keys=False)
    assert await is_refused(there, later)


async def test_signing_out_everywhere_takes_keys_along_when_told_to(database: Database) -> None:
    keys = KeyService(database, 60)
    service = AuthService(database, TOKENS, HERE, keys)
    who = await service.principal_of(await signed_in(service))
    _, key = await keys.make(who, NewKey("k", frozenset({Scope.INFERENCE}), None, None))
    await service.logout_everywhere(WALLET, revoke_keys=False)
    assert (await service.principal_of(key)).wallet == WALLET
    await service.logout_everywhere(WALLET, revoke_keys=True)
    assert await is_refused(service, key)


async def test_tokens_that_have_expired_need_not_be_remembered(
    service: AuthService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_out(service, await signed_in(service))
    later = now() + timedelta(hours=2, seconds=5)
    token = await signed_in(service)
    who = await service.principal_of(token)
    assert isinstance(who.proof, TokenProof)
    monkeypatch.setattr(auth, "now", lambda: later)
    await service.logout(who.wallet, replace(who.proof, expires_at=later))
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(revoked_tokens))).scalar_one() == 1
    assert await is_refused(service, token)


# ---- what a wallet is here


async def test_a_wallet_that_nodes_name_is_a_provider(service: AuthService, database: Database) -> None:
    token = await signed_in(service)
    assert (await service.principal_of(token)).roles == {Role.USER}
    node = {"node_id": "n", "wallet_address": WALLET, "model_id": "tiny", "registered_at": now(), "is_active": True}
    async with database.writing() as connection:
        await connection.execute(insert(node_registry).values(**node, total_tokens_served=0, total_earned_units=0))
    assert (await service.principal_of(token)).roles == {Role.USER, Role.PROVIDER}


async def test_operators_are_who_the_settings_say_and_nobody_longer(database: Database) -> None:
    keys = KeyService(database, 0)
    with_operator = AuthService(database, TOKENS, HERE, keys, operators=frozenset({WALLET}))
    without = AuthService(database, TOKENS, HERE, keys)
    who = await with_operator.principal_of(await signed_in(with_operator))
    assert who.roles == {Role.USER, Role.OPERATOR}
    assert who.scopes == set(Scope)
    _, key = await keys.make(who, NewKey("k", frozenset({Scope.OPERATOR, Scope.INFERENCE}), None, None))
    assert (await with_operator.principal_of(key)).scopes == {Scope.OPERATOR, Scope.INFERENCE}
    assert (await without.principal_of(key)).scopes == {Scope.INFERENCE}
    assert (await without.principal_of(await signed_in(without))).scopes == set(Scope) - {Scope.OPERATOR}
