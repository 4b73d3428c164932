"""Wallets that sign in, and tokens that end, with both clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import farlabs
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from farlabs import FarLabsError, Session
from farlabs.signing import check_sign_in

from tests.sdk.python.doors import WALLET_KEY, EventLoop, Threads
from tests.sdk.python.test_exchange import TIER, refused
from tests.sdk.python.test_generation import PATH, STORY
from tests.support.scripted_server import Asked, Scene, ScriptedServer, refuses, says, streams

WALLET = Account.from_key(WALLET_KEY).address
OTHER = Account.from_key("0x" + "6f" * 32).address
EXPIRED = refuses(401, "token_expired", "sign in again")


def message_for(domain: str, wallet: str = WALLET) -> str:
    """As the gateway writes it."""
    return (
        f"{domain} wants you to sign in with your Ethereum account:\n{wallet}\n\nSign in to Far Mesh.\n\n"
        f"URI: http://{domain}\nVersion: 1\nChain ID: 31337\nNonce: abcdefgh12\n"
        "Issued At: 2026-02-01T00:00:00.000Z\nExpiration Time: 2026-02-01T00:05:00.000Z"
    )


class Desk:
    """Signs people in: each token is another, and those in ``ended`` count no more."""

    def __init__(self, server: ScriptedServer, lasts: float = 3600.0) -> None:
        self.server, self.lasts = server, lasts
        self.given: list[str] = []
        self.ended: set[str] = set()
        self.domain = server.url.removeprefix("http://")
        server.plays("/api/auth/nonce", self.nonce)
        server.plays("/api/auth/login", self.login)
        server.plays("/api/account/tier", self.tier)

    def nonce(self, asked: Asked) -> Scene:
        wallet = asked.json()["wallet_address"]
        now = datetime.now(UTC).isoformat()
        facts = {"nonce": "abcdefgh12", "domain": self.domain, "uri": "http://x", "chain_id": 31337}
        return says({**facts, "issued_at": now, "expiration_time": now, "message": message_for(self.domain, wallet)})

    def login(self, asked: Asked) -> Scene:
        said = asked.json()
        signer = Account.recover_message(encode_defunct(text=said["message"]), signature=said["signature"])
        if signer != said["wallet_address"]:
            return refuses(401, "bad_signature", "the signature is another's")
        self.given.append(f"token-{len(self.given) + 1}")
        end = datetime.now(UTC) + timedelta(seconds=self.lasts)
        return says({"token": self.given[-1], "expires_at": end.isoformat(), "wallet_address": signer})

    def tier(self, asked: Asked) -> Scene:
        return EXPIRED if asked.token in self.ended or asked.token not in self.given else says(TIER)


@pytest.fixture
def desk(server: ScriptedServer) -> Desk:
    """Tokens that last an hour."""
    return Desk(server)


def test_a_wallet_signs_in_once_and_by_itself(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    told: list[Session | None] = []
    client = door.client(server.url, private_key=WALLET_KEY, on_session=told.append)
    assert (client.wallet_address, client.session) == (WALLET, None)
    door.do(client.account_tier())
    door.do(client.account_tier())
    assert [asked.token for asked in server.at("/api/account/tier")] == ["token-1", "token-1"]
    assert told == [client.session]
    assert client.session.wallet_address == WALLET
    assert "token-1" not in repr(client.session)


def test_many_requests_at_once_ask_the_wallet_once(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    client = door.client(server.url, private_key=WALLET_KEY)
    door.at_once(*[client.account_tier] * 8)
    assert (desk.given, len(server.at("/api/auth/nonce"))) == (["token-1"], 1)
    desk.ended.add("token-1")
    door.at_once(*[client.account_tier] * 8)  # all of them are refused, and one signs in again
    assert desk.given == ["token-1", "token-2"]


def test_a_token_that_is_about_to_end_is_renewed_before(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    desk.lasts = 59
    client = door.client(server.url, private_key=WALLET_KEY)
    door.do(client.account_tier())
    desk.lasts = 3600
    door.do(client.account_tier())
    door.do(client.account_tier())
    assert [asked.token for asked in server.at("/api/account/tier")] == ["token-1", "token-2", "token-2"]


def test_a_token_that_ends_in_the_middle_is_renewed_and_the_request_goes_on(
    door: Threads, server: ScriptedServer, desk: Desk
) -> None:
    client = door.client(server.url, private_key=WALLET_KEY)
    door.do(client.account_tier())
    server.plays(PATH, EXPIRED, streams(*STORY))
    assert door.do(client.generate("tiny", "x").result()).text == "Once upon 🐇"
    first, second = server.at(PATH)
    assert (first.token, second.token) == ("token-1", "token-2")


def test_a_fresh_token_that_is_refused_stays_refused(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    server.plays("/api/account/tier", EXPIRED)
    client = door.client(server.url, private_key=WALLET_KEY)
    error = refused(door, client.account_tier)
    assert (type(error), error.code) == (farlabs.AuthenticationError, "token_expired")
    assert (len(desk.given), client.session) == (2, None)


def test_without_a_wallet_a_token_counts_until_the_gateway_says_no(
    door: Threads, server: ScriptedServer, desk: Desk
) -> None:
    desk.given.append("token-1")
    told: list[Session | None] = []
    old = Session("token-1", datetime.now(UTC) - timedelta(hours=1), WALLET)
    client = door.client(server.url, session=old, on_session=told.append)
    door.do(client.account_tier())
    desk.ended.add("token-1")
    assert refused(door, client.account_tier).code == "token_expired"
    assert (client.session, told) == (None, [None])
    assert refused(door, client.account_tier).code == "no_credential"


def test_an_api_key_goes_before_the_wallet(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    client = door.client(server.url, private_key=WALLET_KEY, api_key="sk-far-1")
    assert refused(door, client.account_tier).code == "token_expired"
    assert (desk.given, len(server.asked)) == ([], 1)


def test_a_session_of_another_wallet_is_not_used(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    others = Session("token-0", datetime.now(UTC) + timedelta(hours=1), OTHER)
    client = door.client(server.url, private_key=WALLET_KEY, session=others)
    door.do(client.account_tier())
    assert client.session.token == "token-1"
    mine = door.client(server.url, private_key=WALLET_KEY, session=client.session)
    door.do(mine.account_tier())
    assert desk.given == ["token-1"]


def test_options_share_the_token(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    client = door.client(server.url, private_key=WALLET_KEY)
    patient = client.with_options(timeout=20, max_retries=5)
    door.do(patient.account_tier())
    door.do(client.account_tier())
    assert desk.given == ["token-1"]


# ---- wallets


class Wallet:
    """One of somebody's own, which takes its time."""

    address = WALLET

    def __init__(self, key: str = WALLET_KEY) -> None:
        self.key = key

    def sign_message(self, message: str) -> str:
        return str(Account.sign_message(encode_defunct(text=message), self.key).signature.to_0x_hex())


class SlowWallet(Wallet):
    """One that asks its owner."""

    async def sign_message(self, message: str) -> str:  # type: ignore[override]
        return super().sign_message(message)


def test_any_wallet_will_do(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    door.do(door.client(server.url, signer=Wallet()).sign_in())
    slow = door.client(server.url, signer=SlowWallet())
    if type(door) is EventLoop:
        assert door.do(slow.sign_in()).token == "token-2"
    else:
        assert refused(door, slow.sign_in).code == "needs_async"


def test_the_wrong_wallet_is_refused_by_the_gateway(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    client = door.client(server.url, signer=Wallet("0x" + "6f" * 32))
    error = refused(door, client.account_tier)
    assert (type(error), error.code) == (farlabs.AuthenticationError, "bad_signature")
    assert (client.session, server.at("/api/account/tier")) == (None, [])


def test_a_refusal_of_the_wallets_owner_comes_through(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    class Unwilling(Wallet):
        def sign_message(self, message: str) -> str:
            raise PermissionError("no")

    client = door.client(server.url, signer=Unwilling())
    for _ in range(2):
        with pytest.raises(PermissionError):
            door.do(client.account_tier())


def test_the_address_has_to_be_that_of_the_key(door: Threads) -> None:
    for given in ({"wallet_address": OTHER}, {"signer": Wallet()}):
        with pytest.raises(FarLabsError) as wrong:
            door.client("https://far.test", private_key=WALLET_KEY, **given)
        assert wrong.value.code in ("wrong_wallet", "invalid_argument")
    assert (
        door.client("https://far.test", wallet_address=WALLET.lower(), private_key=WALLET_KEY).wallet_address == WALLET
    )


def test_signing_in_takes_a_wallet(door: Threads, server: ScriptedServer) -> None:
    assert refused(door, door.client(server.url).sign_in).code == "no_signer"


# ---- signing out


def test_signing_out_ends_the_token(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    server.plays("/api/auth/logout", Scene(204))
    client = door.client(server.url, private_key=WALLET_KEY)
    door.do(client.sign_in())
    door.do(client.sign_out())
    assert (server.at("/api/auth/logout")[0].token, client.session) == ("token-1", None)
    door.do(client.sign_out())
    assert len(server.at("/api/auth/logout")) == 1


def test_a_token_that_counts_no_more_is_forgotten_and_not_renewed(
    door: Threads, server: ScriptedServer, desk: Desk
) -> None:
    server.plays("/api/auth/logout", EXPIRED)
    server.plays("/api/auth/logout/everywhere", EXPIRED)
    client = door.client(server.url, private_key=WALLET_KEY)
    door.do(client.sign_in())
    assert refused(door, lambda: client.sign_out(everywhere=True, revoke_keys=True)).code == "token_expired"
    assert server.at("/api/auth/logout/everywhere")[0].json() == {"revoke_keys": True}
    door.do(client.sign_out())
    assert (client.session, desk.given) == (None, ["token-1"])


# ---- what is signed


def test_the_message_of_another_gateway_is_not_signed(door: Threads, server: ScriptedServer, desk: Desk) -> None:
    desk.domain = "bank.test"
    client = door.client(server.url, private_key=WALLET_KEY, sign_in_domain="far.test")
    assert refused(door, client.sign_in).code == "wrong_domain"
    assert server.at("/api/auth/login") == []
    door.do(door.client(server.url, private_key=WALLET_KEY, sign_in_domain="bank.test").sign_in())


@pytest.mark.parametrize(
    ("message", "url", "domain", "code"),
    [
        (message_for("far.test"), "https://far.test", None, None),
        (message_for("far.test:8443"), "https://FAR.test:8443/x", None, None),
        (message_for("far.test"), "http://127.0.0.1:8000", None, None),
        (message_for("far.test"), "http://[::1]:8000", None, None),
        (message_for("far.test"), "http://localhost:8000", "bank.test", "wrong_domain"),
        (message_for("bank.test"), "https://far.test", None, "wrong_domain"),
        (message_for("far.test.bank.test"), "https://far.test", None, "wrong_domain"),
        (message_for("bank.test"), "https://far.test", "bank.test", None),
        (message_for("far.test", OTHER), "https://far.test", None, "wrong_wallet"),
        ("I owe you 1,000 FAR", "https://far.test", None, "wrong_message"),
        ("\n" + message_for("far.test"), "https://far.test", None, "wrong_message"),
        ("", "https://far.test", None, "wrong_message"),
    ],
)
def test_what_is_signed_signs_in_here_and_does_nothing_else(
    message: str, url: str, domain: str | None, code: str | None
) -> None:
    if code is None:
        assert check_sign_in(message, WALLET, url, domain) == message
    else:
        with pytest.raises(farlabs.AuthenticationError) as wrong:
            check_sign_in(message, WALLET, url, domain)
        assert wrong.value.code == code


def test_who_gives_up_leaves_signing_in_to_the_others(server: ScriptedServer, desk: Desk) -> None:
    import asyncio

    async def ask() -> None:
        async with farlabs.AsyncFarLabsClient(server.url, private_key=WALLET_KEY) as client:
            first = asyncio.create_task(client.account_tier())
            second = asyncio.create_task(client.account_tier())
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).tier == "standard"
            with pytest.raises(asyncio.CancelledError):
                await first

    asyncio.run(ask())
    assert desk.given == ["token-1"]


def _a_client(**options: Any) -> Any:
    return farlabs.FarLabsClient("https://far.test", **options)


def test_keys_are_not_shown() -> None:
    client = _a_client(private_key=WALLET_KEY, api_key="sk-far-secret")
    for thing in (client, farlabs.PrivateKeySigner(WALLET_KEY), vars(client)):
        assert "5f5f" not in repr(thing)
        assert "sk-far-secret" not in repr(thing)
