"""Providers where there is no escrow: paid by transfer, told what for, and paid where they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from eth_account import Account
from solders.keypair import Keypair
from typer.testing import CliRunner

from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.settlement import payer
from far_mesh.marketplace.settlement.merkle import detail_leaves, is_proven
from far_node.cli import app
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.house import DEPLOYER, SETTLER, House, LiveChain, Loop, User, sign_in
from tests.far_mesh.marketplace.payments.solana_node import FINAL_AFTER
from tests.far_mesh.marketplace.payments.street import TILL
from tests.far_mesh.marketplace.payments.test_solana import Square
from tests.far_mesh.marketplace.provider.works import PAID, USER, give_money, share, work

FAR = 10**9
ADDRESS = "/api/provider/payout-address"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rests."""
    monkeypatch.setattr(payer, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(payer, "PATIENCE_SECONDS", 0.02)


class Provider:
    """Somebody who lends a machine, signed in."""

    def __init__(self, house: House) -> None:
        self.house, self.key = house, str(Account.create().key.to_0x_hex())
        self.wallet = address_of(self.key)
        self.http = httpx.Client(base_url=house.url, timeout=20)
        self.http.headers["authorization"] = f"Bearer {sign_in(self.http, self.key)['token']}"

    def works(self, name: str) -> None:
        """Alone, for one request."""
        database = self.house.rooms.database
        self.house.loop.do(give_money(database, 1_000, f"{USER[:-8]}{name:0>8}"))
        done = [share(name, self.wallet, 240)]
        self.house.loop.do(work(database, name, done, user=f"{USER[:-8]}{name:0>8}"))

    def asked(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rewards(self) -> Any:
        return self.asked("/api/provider/rewards?days=1")

    def says(self, address: str) -> httpx.Response:
        return self.http.put(ADDRESS, json={"address": address})

    def wait_for_payment(self, units: int) -> None:
        User.wait_for(lambda: self.rewards()["paid_units"] == units)


@pytest.fixture
def square(loop_thread: Loop) -> Iterator[Square]:
    opened = Square()
    opened.give(opened.payer.pubkey(), 10**12)
    loop_thread.do(opened.node.start())
    yield opened
    loop_thread.do(opened.close())


def open_on_solana(open_house: OpenHouse, square: Square, **changes: Any) -> House:
    settings = {
        "payment_provider": "solana",
        "escrow_address": "",
        "token_address": "",
        "settler_private_key": None,
        "solana_rpc_url": square.node.url,
        "solana_mint": str(square.mint),
        "deposit_address": str(square.till),
        "solana_private_key": str(square.payer),
        "settle_seconds": 1e-3,
    }
    return open_house(**(settings | changes))


def test_a_provider_is_paid_at_its_wallet_and_can_check_for_what(open_house: OpenHouse, live_chain: LiveChain) -> None:
    house = open_house(escrow_address="", deposit_address=TILL, settle_seconds=1e-3)
    chain = live_chain.connect()
    house.loop.do(ChainWallet(chain, DEPLOYER).transfer(address_of(SETTLER), FAR))
    ann = Provider(house)
    assert ann.rewards()["transfer"] == {
        "chain": "eip155:31337",
        "address": ann.wallet,
        "next_address": None,
        "next_from": None,
        "held_code": None,
        "held_reason": None,
    }
    ann.works("1")
    ann.wait_for_payment(PAID)
    assert house.loop.do(chain.token_balance_wei(ann.wallet)) == units_to_wei(PAID)
    found = ann.rewards()
    assert (found["withdrawn_units"], found["credit_units"], found["escrow_address"]) == (PAID, 0, None)
    (line,) = ann.asked("/api/provider/history")["lines"]
    assert (line["state"], line["batch_number"]) == ("paid", 1)
    batch = ann.asked("/api/provider/batches/1")
    assert (batch["kind"], batch["status"], batch["tx_hash"]) == ("transfer", "confirmed", line["tx_hash"])
    (proven,) = batch["lines"]
    (leaf,) = detail_leaves(proven["request_id"], {ann.wallet: proven["units"]}, 0)
    assert is_proven(_bytes(batch["detail_root"]), leaf, map(_bytes, proven["proof"]))
    assert ann.asked("/api/provider/claims")["claims"] == []
    refused = ann.says(ann.wallet)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_argument")
    house.loop.do(chain.close())


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def test_with_an_escrow_nobody_says_where_to(open_house: OpenHouse) -> None:
    ann = Provider(open_house())
    assert ann.says(ann.wallet).status_code == ann.http.get(ADDRESS).status_code == 404
    assert ann.rewards()["transfer"] is None


def test_on_solana_a_provider_is_paid_where_it_says_once_that_counts(open_house: OpenHouse, square: Square) -> None:
    house = open_on_solana(open_house, square, payout_address_delay_seconds=0)
    ann, person = Provider(house), square.node.wallet(0).pubkey()
    ann.works("1")
    User.wait_for(lambda: ann.rewards()["transfer"]["held_code"] == "no_payout_address")
    assert ann.rewards()["waiting_units"] == PAID
    assert httpx.get(house.url + "/health").json()["payments"]["held"] == {"no_payout_address": 1}
    assert ann.says(str(person)).json()["address"] == str(person)
    User.wait_for(lambda: ann.rewards()["in_flight_units"] == PAID)
    square.node.advance(FINAL_AFTER)
    ann.wait_for_payment(PAID)
    assert square.held(person) == PAID
    assert ann.rewards()["transfer"]["held_code"] is None
    assert "held" not in httpx.get(house.url + "/health").json()["payments"]


def test_a_change_counts_after_a_while_and_can_be_taken_back(open_house: OpenHouse, square: Square) -> None:
    ann = Provider(open_on_solana(open_house, square))
    mine, thief = str(Keypair().pubkey()), str(Keypair().pubkey())
    said = ann.says(mine).json()
    assert (said["address"], said["next_address"]) == (None, mine)
    assert ann.says(mine).json()["next_from"] == said["next_from"]  # saying it again does not put it off
    assert ann.says(thief).json()["next_address"] == thief
    assert ann.says(mine).json()["next_address"] == mine
    assert ann.asked(ADDRESS) == ann.rewards()["transfer"]


def test_what_cannot_be_paid_is_refused(open_house: OpenHouse, square: Square) -> None:
    ann = Provider(open_on_solana(open_house, square))
    for address, why in {
        "0x12": "not an address of Solana",
        str(square.mint): "the mint itself",
        str(square.till): "deposits go to",
        ann.wallet: "not an address of Solana",
    }.items():
        refused = ann.says(address)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "payout_invalid"), refused.text
        assert why in refused.json()["error"]["message"]
    assert ann.says("").status_code == ann.http.put(ADDRESS, json={"to": "x"}).status_code == 400
    assert ann.asked(ADDRESS)["next_address"] is None


def test_an_api_key_cannot_redirect_money(open_house: OpenHouse, square: Square) -> None:
    ann = Provider(open_on_solana(open_house, square))
    key = ann.http.post("/api/account/keys", json={"name": "looks", "scopes": ["provider"]}).json()["key"]
    looks = {"authorization": f"Bearer {key}"}
    assert ann.http.get(ADDRESS, headers=looks).status_code == 200
    refused = ann.http.put(ADDRESS, json={"address": str(Keypair().pubkey())}, headers=looks)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


def test_the_command_says_where_and_shows_it(
    open_house: OpenHouse, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_on_solana(open_house, square)
    ann, mine = Provider(house), str(square.node.wallet(0).pubkey())
    monkeypatch.setenv("FAR_WALLET_KEY", ann.key)
    monkeypatch.setenv("FAR_GATEWAY_URL", house.url)
    asked = ["--domain", "far.test"]
    said = CliRunner().invoke(app, ["rewards", "address", "set", mine, *asked, "--json"])
    assert (said.exit_code, json.loads(said.stdout)["next_address"]) == (0, mine), said.output
    shown = CliRunner().invoke(app, ["rewards", "address", "show", *asked])
    assert (shown.exit_code, f"on to {mine}" in shown.stdout) == (0, True), shown.output
    ann.works("1")
    balance = CliRunner().invoke(app, ["rewards", "balance", *asked])
    assert (balance.exit_code, "no address is known yet" in balance.stdout) == (0, True), balance.output
    for words in (["withdraw"], ["claim"], ["history", "--check"]):
        refused = CliRunner().invoke(app, ["rewards", *words, *asked])
        assert (refused.exit_code, "comes by transfer" in refused.output) == (1, True), refused.output
