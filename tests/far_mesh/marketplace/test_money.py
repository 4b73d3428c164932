"""A marketplace without an escrow: by transfer, or without payments."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from far_mesh.cli import app
from far_mesh.marketplace.app import create_app
from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.errors import InvalidSetting, MissingSetting
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.money import check_settings
from far_mesh.marketplace.settlement import payer as payer_module
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import NODES
from tests.far_mesh.marketplace.house import DEPLOYER, SETTLER, House, LiveChain, Loop, User
from tests.far_mesh.marketplace.payments.solana_node import FINAL_AFTER
from tests.far_mesh.marketplace.payments.street import TILL
from tests.far_mesh.marketplace.payments.test_solana import Square

BY_TRANSFER: dict[str, Any] = {"escrow_address": "", "deposit_address": TILL}
NONE: dict[str, Any] = {
    "payment_provider": "none",
    "escrow_address": "",
    "token_address": "",
    "settler_private_key": None,
}
FAR = 10**9


async def pay(live: LiveChain, to: str, units: int, key: str = DEPLOYER) -> str:
    """A plain transfer of tokens."""
    chain = live.connect()
    try:
        return await ChainWallet(chain, key).transfer(to, units)
    finally:
        await chain.close()


def settle(user: User) -> dict[str, Any]:
    """An answer, and the report about it."""
    answer = user.generate()
    assert answer.status_code == 200, answer.text
    return user.request(answer.json()["request_id"])


def is_sound(house: House) -> bool:
    async def recompute() -> bool:
        async with house.rooms.database.snapshot() as connection:
            return (await verify(connection)).findings == ()

    return house.loop.do(recompute())


def test_deposits_by_transfer_are_credited_when_they_are_named_and_requests_are_charged_to_them(
    open_house: OpenHouse, live_chain: LiveChain
) -> None:
    house = open_house(**BY_TRANSFER)
    payer = User(house, DEPLOYER)
    before = payer.balance()
    assert (before["escrow_address"], before["deposit_address"]) == (None, TILL)
    assert (before["payment_provider"], before["chain"]) == ("evm", f"eip155:{CHAIN_ID}")
    tx_hash = house.loop.do(pay(live_chain, TILL, FAR))
    answers = [payer.http.post("/api/account/deposit", json={"tx_hash": tx_hash}) for _ in range(2)]
    assert [answer.json()["was_booked"] for answer in answers] == [False, True]
    assert payer.balance()["available_units"] == FAR
    report = settle(payer)
    cost = report["cost_units"]
    assert cost > 0
    assert payer.balance()["available_units"] == FAR - cost
    earned = [units for account, units in house.books().items() if account.kind is Book.PROVIDER_EARNED]
    fee = house.books()[Account(Book.PLATFORM_FEE, "platform")]
    assert sum(earned) + fee == cost
    assert is_sound(house)


def test_what_a_user_pays_arrives_at_the_providers(
    open_house: OpenHouse, live_chain: LiveChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payer_module, "LOOK_SECONDS", 0.02)
    house = open_house(**BY_TRANSFER, settle_seconds=1e-3)
    payer, chain = User(house, DEPLOYER), live_chain.connect()
    before = {node.wallet: house.loop.do(chain.token_balance_wei(node.wallet)) for node in NODES}
    house.loop.do(pay(live_chain, address_of(SETTLER), FAR))
    tx_hash = house.loop.do(pay(live_chain, TILL, FAR))
    assert payer.http.post("/api/account/deposit", json={"tx_hash": tx_hash}).status_code == 200
    request_id = payer.generate().json()["request_id"]
    payer.wait_for(lambda: payer.request(request_id)["settlement"]["status"] == "paid", 30)
    books = house.books()
    for wallet, wei in before.items():
        units = books[Account(Book.PROVIDER_PAID, wallet)]
        assert units > 0
        assert house.loop.do(chain.token_balance_wei(wallet)) - wei == units * 10**9
        assert not books[Account(Book.PROVIDER_EARNED, wallet)]
    assert is_sound(house)
    house.loop.do(chain.close())


def test_what_needs_an_escrow_is_refused_where_there_is_none(open_house: OpenHouse) -> None:
    house = open_house(**BY_TRANSFER)
    user = User(house, DEPLOYER)
    for way in ("escrow", "channel"):
        answer = user.generate(payment=way)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter"), answer.text
    assert user.generate(payment="balance").json()["error"]["code"] == "insufficient_balance"
    assert user.http.get("/api/channels").status_code == 404
    assert "accepts" not in user.generate().json()


def test_it_says_what_it_is_paid_with(open_house: OpenHouse) -> None:
    house = open_house(**BY_TRANSFER)
    told = httpx.get(house.url + "/health").json()
    assert (told["payments"]["provider"], told["payments"]["escrow"]) == ("evm", False)
    assert told["payments"]["deposit_address"] == house.rooms.pay_in.deposit_address
    assert httpx.get(house.url + "/ready").status_code == 200


def test_without_payments_balances_are_granted(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    house = open_house(**NONE)
    user = User(house, DEPLOYER)
    told = httpx.get(house.url + "/health").json()["payments"]
    assert told == {"provider": "none", "escrow": False, "chain_id": house.rooms.pay_in.chain_id}
    assert httpx.get(house.url + "/ready").status_code == 200
    refused = user.http.post("/api/account/deposit", json={"tx_hash": "0x" + "1" * 64})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "payments_off")
    assert user.generate().status_code == 402
    monkeypatch.setenv("FAR_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("FAR_PAYMENT_PROVIDER", "none")
    words = ["ledger", "grant", user.wallet, str(FAR), "--name", "spring", "--reason", "a member since May"]
    for told in (f"{FAR} units for {user.wallet}", "spring was granted before"):
        result = CliRunner().invoke(app, words)
        assert (result.exit_code, told in result.stdout) == (0, True), result.output
    assert user.balance()["available_units"] == FAR
    cost = settle(user)["cost_units"]
    assert user.balance()["available_units"] == FAR - cost
    assert is_sound(house)


def test_a_payer_on_solana_claims_with_the_key_that_paid(open_house: OpenHouse, loop_thread: Loop) -> None:
    square = Square()
    loop_thread.do(square.node.start())
    try:
        settings = {
            "solana_rpc_url": square.node.url,
            "solana_mint": str(square.mint),
            "deposit_address": str(square.till),
        }
        house = open_house(**NONE | settings | {"payment_provider": "solana", "solana_private_key": str(square.payer)})
        user = User(house, DEPLOYER)
        assert user.balance()["deposit_address"] == str(square.till)
        tx_id = square.pay(FAR)
        young = user.http.post("/api/account/deposit", json={"tx_hash": tx_id})
        assert (young.status_code, young.json()["needed"]) == (202, "finalized")
        square.node.advance(FINAL_AFTER)
        refused = user.http.post("/api/account/deposit", json={"tx_hash": tx_id})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "deposit_not_yours")
        text = f"far.test: credit the deposit {tx_id} to the account {user.wallet}"
        assert text in refused.json()["error"]["message"]
        body = {"tx_hash": tx_id, "payer_signature": str(square.ann.sign_message(text.encode()))}
        assert user.http.post("/api/account/deposit", json=body).json()["deposits"][0]["units"] == FAR
        cost = settle(user)["cost_units"]
        assert user.balance()["available_units"] == FAR - cost
        assert httpx.get(house.url + "/ready").status_code == 200
        assert is_sound(house)
    finally:
        loop_thread.do(square.close())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0x12", "5", "--name", "a", "--reason", "b"], "0x12"),
        ([address_of(DEPLOYER), "5", "--name", "a", "--reason", " "], "reason"),
    ],
)
def test_a_grant_that_means_nothing_is_refused(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    monkeypatch.setenv("FAR_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("FAR_PAYMENT_PROVIDER", "none")
    result = CliRunner().invoke(app, ["ledger", "grant", *words])
    assert result.exit_code != 0
    assert said in result.output


def test_nothing_is_granted_where_there_are_payments(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    monkeypatch.setenv("FAR_DATABASE_URL", sqlite_url)
    words = ["ledger", "grant", address_of(DEPLOYER), "5", "--name", "a", "--reason", "b"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert "deposits alone" in result.output


def test_who_wants_transfers_says_where_to(live_chain: LiveChain) -> None:
    with pytest.raises(MissingSetting, match="FAR_ESCROW_ADDRESS"):
        create_app(live_chain.settings(escrow_address=""))
    check_settings(live_chain.settings(**BY_TRANSFER))


def test_an_escrow_that_the_provider_does_not_know_is_refused(live_chain: LiveChain) -> None:
    with pytest.raises(InvalidSetting, match="FAR_ESCROW_ADDRESS"):
        create_app(live_chain.settings(payment_provider="none"))
