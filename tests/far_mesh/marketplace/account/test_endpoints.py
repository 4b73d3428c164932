"""The doors through which deposits are named and looked at."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.house import DEPLOYER, House, User, mined, new_user, rpc

DOOR = "/api/account/deposit"
SLOW = {"deposit_poll_seconds": 1_000.0}
"""A watcher that has looked once, before anybody has deposited."""


def paid_in(user: User, units: int = 500) -> str:
    """A deposit of which nobody has said anything yet."""
    house = user.house
    chain = house.rooms.chain
    house.loop.do(rpc(chain.rpc_url, "anvil_setBalance", user.wallet, hex(10**18)))
    house.loop.do(ChainWallet(chain, DEPLOYER).transfer(user.wallet, units))
    return house.loop.do(ChainWallet(chain, user.key).deposit(units))


def newcomer(house: House) -> User:
    return User(house, house.loop.do(new_user(house.rooms.chain)))


def name(user: User, tx_hash: str, **more: Any) -> httpx.Response:
    return user.http.post(DOOR, json={"tx_hash": tx_hash} | more)


def test_a_deposit_that_is_named_counts_at_once_and_once(open_house: OpenHouse) -> None:
    user = newcomer(open_house(**SLOW))
    tx_hash = paid_in(user)
    first, second = name(user, tx_hash), name(user, tx_hash)
    assert [first.status_code, second.status_code] == [200, 200]
    (deposit,) = first.json()["deposits"]
    assert (deposit["kind"], deposit["wallet_address"], deposit["units"]) == ("Deposited", user.wallet, 500)
    assert deposit["tx_hash"] == tx_hash
    assert deposit["vanished_at"] is None
    assert first.json() | {"was_booked": True} == second.json()
    assert (first.json()["status"], first.json()["was_booked"]) == ("credited", False)
    assert user.balance()["available_units"] == 500


def test_somebody_else_who_names_it_does_not_get_it(open_house: OpenHouse) -> None:
    house = open_house(**SLOW)
    user, thief = newcomer(house), newcomer(house)
    answer = name(thief, paid_in(user))
    assert [one["wallet_address"] for one in answer.json()["deposits"]] == [user.wallet]
    assert [user.balance()["available_units"], thief.balance()["available_units"]] == [500, 0]


def test_a_deposit_can_be_named_without_signing_in(open_house: OpenHouse) -> None:
    user = newcomer(open_house(**SLOW))
    body = {"tx_sig": paid_in(user), "user_pubkey": user.wallet}
    answers = [httpx.post(f"{user.house.url}/deposit", json=body, timeout=20) for _ in range(2)]
    assert [answer.json()["was_booked"] for answer in answers] == [False, True]
    assert user.balance()["available_units"] == 500


def test_a_young_deposit_is_pending_and_says_when_to_ask_again(open_house: OpenHouse) -> None:
    user = newcomer(open_house(confirmations=2, **SLOW))
    tx_hash = paid_in(user)
    answer = name(user, tx_hash)
    assert answer.status_code == 202
    assert int(answer.headers["retry-after"]) >= 1
    assert {key: answer.json()[key] for key in ("status", "confirmations", "needed")} == {
        "status": "pending",
        "confirmations": 0,
        "needed": 2,
    }
    assert user.balance()["available_units"] == 0
    user.house.loop.do(rpc(user.house.live.rpc_url, "anvil_mine", "0x2"))
    assert name(user, tx_hash).status_code == 200


def test_what_is_no_deposit_is_refused_by_name(open_house: OpenHouse) -> None:
    house = open_house(**SLOW)
    user, chain = newcomer(house), house.rooms.chain
    foreign = house.loop.do(ChainWallet(chain, DEPLOYER).transfer(user.wallet, 5))
    reverted = house.loop.do(_reverted(house))
    for body, status, code in (
        ({"tx_hash": "0x12"}, 400, "invalid_argument"),
        ({"tx_hash": "0x" + "é" * 64}, 400, "invalid_argument"),
        ({"tx_hash": ""}, 400, "invalid_argument"),
        ({"tx_hash": "0x" + "1" * 4096}, 400, "invalid_argument"),
        ({"tx_hash": 7}, 400, "invalid_argument"),
        ({"tx_hash": None}, 400, "invalid_argument"),
        ({}, 400, "invalid_argument"),
        ({"tx_hash": foreign, "units": 10**18}, 400, "unsupported_parameter"),
        ({"tx_hash": "0x" + "1" * 64}, 404, "deposit_unknown"),
        ({"tx_hash": foreign}, 400, "deposit_refused"),
        ({"tx_hash": reverted}, 400, "deposit_refused"),
    ):
        answer = user.http.post(DOOR, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), body
    stranger = httpx.post(house.url + DOOR, json={"tx_hash": foreign}, timeout=20)
    assert stranger.status_code == 401
    bad_wallet = {"tx_sig": foreign, "user_pubkey": "0x12"}
    assert httpx.post(f"{house.url}/deposit", json=bad_wallet, timeout=20).json()["error"]["code"] == "invalid_wallet"
    assert user.balance()["deposited_units"] == 0


async def _reverted(house: House) -> str:
    """A deposit of more than there is, sent all the same."""
    chain = house.rooms.chain
    data = str(chain.escrow.encode_abi("deposit", args=[units_to_wei(10**18)]))
    transaction = {"from": address_of(DEPLOYER), "to": chain.escrow_address, "data": data, "gas": hex(200_000)}
    return str((await mined(chain.rpc_url, transaction))["transactionHash"])


def test_what_the_chain_told_is_listed_newest_first_page_by_page(open_house: OpenHouse) -> None:
    house = open_house(**SLOW)
    user, other = newcomer(house), newcomer(house)
    hashes = [paid_in(user, units) for units in (100, 200, 300)]
    for tx_hash in [*hashes, paid_in(other)]:
        assert name(user, tx_hash).status_code == 200
    first = user.http.get("/api/account/deposits", params={"limit": 2}).json()
    rest = user.http.get("/api/account/deposits", params={"limit": 2, "before": first["next_before"]}).json()
    assert [one["units"] for one in first["deposits"] + rest["deposits"]] == [300, 200, 100]
    assert rest["next_before"] is None


@pytest.mark.parametrize("question", ["limit=0", "limit=201", "limit=x", "before=0", "before=99999999999999999999"])
def test_a_page_that_there_is_not_is_refused(open_house: OpenHouse, question: str) -> None:
    user = newcomer(open_house(**SLOW))
    answer = user.http.get(f"/api/account/deposits?{question}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument")
