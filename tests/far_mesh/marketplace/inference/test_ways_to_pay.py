"""Requests that are charged afterwards, and requests whose user signs for one escrow, against a real chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from far_mesh.marketplace.chain.client import request_key
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.http import id_of_call
from far_mesh.marketplace.ledger.schemas import PLATFORM, Book
from far_mesh.marketplace.ledger.schemas import Account as BookAccount
from far_mesh.marketplace.payments import intents
from far_mesh.marketplace.payments.intents import Intent
from far_mesh.marketplace.payments.vouchers import Domain
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import House, User
from tests.far_mesh.marketplace.inference.test_endpoints import DEPOSIT, PRICE, credits_of, error_of, quote

LENT = {"unsettled_limit_units": 10**8, "settle_seconds": 3_600.0}
SOON = {"unsettled_limit_units": 10**8, "settle_seconds": 0.05}


def settlement(user: User, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = user.request(answer["request_id"])["settlement"]
    return found


# ---- netted


def test_a_request_that_is_charged_afterwards_asks_the_chain_for_nothing(open_house: OpenHouse) -> None:
    user = open_house(**LENT).user()
    answer = user.generate().json()
    report = user.request(answer["request_id"])
    assert (report["payment"], report["status"], report["channel_id"]) == ("netted", "completed", None)
    assert report["settlement"] == {
        "status": "waiting",
        "lock_tx": None,
        "release_tx": None,
        "cancel_tx": None,
        "batch": None,
        "batch_tx": None,
        "error": None,
    }
    assert user.balance()["available_units"] == DEPOSIT - answer["cost_units"]
    assert user.house.loop.do(user.house.rooms.chain.deposit_of(user.wallet)) == DEPOSIT


def test_a_batch_charges_it_and_pays_the_nodes_to_the_unit(open_house: OpenHouse) -> None:
    user = open_house(**SOON).user()
    before, house = credits_of(user.house), user.house
    answers = [user.generate().json() for _ in range(3)]
    for answer in answers:
        user.wait_for(lambda answer=answer: settlement(user, answer)["status"] == "paid")
    told = [settlement(user, answer) for answer in answers]
    assert all(one["batch"] >= 1 and one["batch_tx"].startswith("0x") for one in told)
    assert all(one["lock_tx"] is None for one in told)
    cost = sum(answer["cost_units"] for answer in answers)
    assert house.loop.do(house.rooms.chain.deposit_of(user.wallet)) == DEPOSIT - cost
    paid = sum(node["paid_units"] for answer in answers for node in answer["nodes_used"])
    assert sum(credits_of(house).values()) - sum(before.values()) == paid * 10**9
    books = house.books()
    assert sum(books.values()) == 0
    assert books.get(BookAccount(Book.IN_FLIGHT, PLATFORM), 0) == books[BookAccount(Book.PLATFORM_FEE, PLATFORM)] == 0


def test_an_answer_that_costs_nothing_waits_for_no_batch(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(unproven=("ann", "bob", "cid")), **LENT).user()
    answer = user.generate().json()
    assert (answer["cost_units"], settlement(user, answer)["status"]) == (0, "none")
    assert user.balance()["available_units"] == DEPOSIT


def test_above_the_limit_each_request_gets_an_escrow_of_its_own(open_house: OpenHouse) -> None:
    gate = asyncio.Event()
    house = open_house(MeshDouble(gate=gate), **(LENT | {"unsettled_limit_units": 2 * PRICE}))
    user = house.user()
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "stream": False}

    def one(key: str) -> httpx.Response:
        return user.http.post("/api/inference/distributed/generate", json=body, headers={"idempotency-key": key})

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(one, key) for key in "abcd"]
        user.wait_for(lambda: len(house.mesh.generations) == 4)  # type: ignore[attr-defined]
        house.loop.loop.call_soon_threadsafe(gate.set)
        assert [answer.result().status_code for answer in asked] == [200] * 4
    payments = [user.request(id_of_call(user.wallet, key))["payment"] for key in "abcd"]
    assert sorted(payments) == ["escrow", "escrow", "netted", "netted"]


def test_a_user_without_allowance_is_not_lent_anything(open_house: OpenHouse) -> None:
    user = open_house(**LENT).user(allowance=PRICE - 1)
    error = error_of(user.generate(payment="balance"), 402)
    assert error["code"] == "allowance_too_low"
    assert user.balance()["held_units"] == 0
    assert error_of(user.generate(), 402)["code"] == "allowance_too_low"  # nor can an escrow be made
    user.wait_for(lambda: user.balance()["available_units"] == DEPOSIT)


def test_who_insists_on_the_balance_is_told_when_too_much_is_owed(open_house: OpenHouse) -> None:
    user = open_house(unsettled_limit_units=PRICE - 1).user()
    answer = user.generate(payment="balance")
    assert error_of(answer, 402)["code"] == "unsettled_limit"
    assert [offer["scheme"] for offer in answer.json()["accepts"]] == [
        "far-balance",
        "far-escrow-intent",
        "batch-settlement",
    ]
    assert answer.json()["accepts"][0]["amount"] == str(PRICE * 10**9)
    assert user.balance()["available_units"] == DEPOSIT


@pytest.mark.parametrize("payment", ["cash", "", "channel:", 5, ["auto"], "x" * 81])
def test_a_way_that_there_is_not_is_refused(lending: User, payment: Any) -> None:
    assert error_of(lending.generate(payment=payment), 400)["param"] == "payment"
    if isinstance(payment, str):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        answer = lending.http.post("/v1/chat/completions", json=body, headers={"x-far-payment": payment})
        assert error_of(answer, 400)["code"] == "invalid_argument"


def test_the_doors_of_other_servers_take_the_way_in_a_header(lending: User) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    for payment in ("balance", "escrow"):
        answer = lending.http.post("/v1/chat/completions", json=body, headers={"x-far-payment": payment})
        assert answer.status_code == 200, answer.text
        request_id = answer.json()["far"]["request_id"]
        assert lending.request(request_id)["payment"] == {"balance": "netted", "escrow": "escrow"}[payment]


@pytest.fixture(scope="module")
def lending(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A user who can pay in every way, for tests that leave little behind. The allowance is there."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('lending') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url, **LENT), MeshDouble()) as house:
        yield house.user(DEPOSIT)


@pytest.fixture(scope="module")
def signing(lending: User) -> User:
    """A user who has deposited and allowed nothing, and signs for each request."""
    return lending.house.user(DEPOSIT, allowance=0)


# ---- signed intents


def intent_for(user: User, key: str, changes: Mapping[str, Any] | None = None) -> Intent:
    """The intent that a quote offers for the request with this key, signed, after some changes."""
    quoted = quote(user, idempotency_key=key).json()
    assert quoted["request_id"] == id_of_call(user.wallet, key)
    typed = quoted["escrow_intent"]
    signed = Account.sign_message(encode_typed_data(full_message=typed), user.key).signature.to_0x_hex()
    intent = intents.parse(typed["message"] | {"signature": signed})
    assert intents.is_signed_by_key(domain(user), intent)
    return intents.sign(domain(user), replace(intent, **changes), user.key) if changes else intent


def domain(user: User) -> Domain:
    chain = user.house.rooms.chain
    return Domain(chain.chain_id, chain.escrow_address)


def ask(user: User, key: str, intent: Intent, **changes: Any) -> httpx.Response:
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "stream": False}
    body |= {"escrow_intent": intent.document()} | changes
    return user.http.post("/api/inference/distributed/generate", json=body, headers={"idempotency-key": key})


def test_a_user_without_allowance_signs_for_one_request(signing: User) -> None:
    assert error_of(signing.generate(), 402)["code"] == "allowance_too_low"
    before = signing.balance()["available_units"]
    answer = ask(signing, "one", intent_for(signing, "one"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == "".join(STORY)
    report = signing.settled(answer.json()["request_id"])
    assert (report["payment"], report["settlement"]["status"]) == ("escrow", "released")
    spent = answer.json()["cost_units"]
    assert signing.balance()["available_units"] == before - spent > 0
    chain = signing.house.rooms.chain
    assert signing.house.loop.do(chain.deposit_of(signing.wallet)) == before - spent


def test_an_intent_for_more_than_the_request_can_cost_gives_the_rest_back(signing: User) -> None:
    before = signing.balance()["available_units"]
    answer = ask(signing, "more", intent_for(signing, "more", {"max_units": 3 * PRICE}))
    assert answer.status_code == 200, answer.text
    signing.settled(answer.json()["request_id"])
    chain = signing.house.rooms.chain
    assert signing.house.loop.do(chain.deposit_of(signing.wallet)) == before - answer.json()["cost_units"]


def test_an_intent_travels_in_a_header_too(signing: User) -> None:
    intent = intent_for(signing, "header")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": 12}
    headers = {"idempotency-key": "header", "x-far-escrow-intent": intents.to_header(intent)}
    answer = signing.http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    headers["x-far-escrow-intent"] = "nonsense"
    assert error_of(signing.http.post("/v1/chat/completions", json=body, headers=headers), 400)["param"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_units": PRICE - 1}, "may cost"),
        ({"lock_seconds": 60}, "lockSeconds"),
        ({"max_fee_bps": 1}, "fee"),
        ({"valid_until": 1}, "expired"),
        ({"request_key": "0x" + request_key("another").hex()}, "another request"),
        ({"user": "0x" + "11" * 20}, "another user's"),
    ],
)
def test_an_intent_that_does_not_pay_for_it_is_refused_before_money_moves(
    signing: User, changes: dict[str, Any], words: str
) -> None:
    before = signing.balance()
    error = error_of(ask(signing, "refused", intent_for(signing, "refused", changes)), 402)
    assert (error["code"], error["param"]) == ("intent_refused", "escrow_intent")
    assert words in error["message"]
    assert signing.balance() == before


def test_a_forged_intent_and_one_that_was_used_are_refused(signing: User) -> None:
    stranger = str(Account.create().key.to_0x_hex())
    forged = intents.sign(domain(signing), intent_for(signing, "forged"), stranger)
    assert "not signed" in error_of(ask(signing, "forged", forged), 402)["message"]
    used = intent_for(signing, "used")
    assert ask(signing, "used", used).status_code == 200
    again = intent_for(signing, "again", {"nonce": used.nonce})
    assert "nonce" in error_of(ask(signing, "again", again), 402)["message"]


def test_the_same_intent_pays_once(signing: User) -> None:
    intent = intent_for(signing, "twice")
    assert ask(signing, "twice", intent).status_code == 200
    assert error_of(ask(signing, "twice", intent), 402)["code"] == "intent_refused"


def test_an_intent_that_the_deposit_does_not_cover_is_told_so_by_the_chain(signing: User) -> None:
    before = signing.balance()
    error = error_of(ask(signing, "rich", intent_for(signing, "rich", {"max_units": 10**12})), 402)
    assert error["code"] == "insufficient_balance"
    signing.wait_for(lambda: signing.balance() == before)


@pytest.mark.parametrize("broken", [{}, {"user": 1}, 5, "x", [], {"signature": "0x"}])
def test_what_is_no_intent_is_refused(signing: User, broken: Any) -> None:
    body = {"model_id": MODEL, "prompt": "hi", "max_tokens": 3, "escrow_intent": broken}
    answer = signing.http.post("/api/inference/distributed/generate", json=body)
    assert error_of(answer, 400)["param"].startswith("escrow_intent")


def test_the_typed_data_of_a_quote_is_for_wallets_and_names_the_request(signing: User) -> None:
    quoted = quote(signing, idempotency_key="typed").json()
    typed = quoted["escrow_intent"]
    assert typed["primaryType"] == "EscrowIntent"
    assert typed["message"]["maxAmount"] == str(quoted["max_cost_units"] * 10**9)
    assert typed["message"]["requestId"] == "0x" + request_key(quoted["request_id"]).hex()
    assert json.loads(json.dumps(typed)) == typed
    assert quote(signing).json()["escrow_intent"] is None
    assert error_of(quote(signing, idempotency_key=""), 400)["param"] == "idempotency_key"


# ---- what to do about a 402


def test_an_empty_wallet_is_told_where_to_pay_in(lending: User) -> None:
    poor = lending.house.user(deposit=0)
    answer = poor.generate()
    assert error_of(answer, 402)["type"] == "insufficient_quota"
    (offer,) = answer.json()["accepts"]
    chain = lending.house.rooms.chain
    assert (offer["scheme"], offer["network"]) == ("far-balance", f"eip155:{chain.chain_id}")
    assert (offer["asset"], offer["payTo"]) == (chain.token_address, chain.escrow_address)
    assert offer["amount"] == str(PRICE * 10**9)


def test_the_deposit_can_be_withdrawn_and_then_the_books_say_so(open_house: OpenHouse) -> None:
    user = open_house(**LENT).user()
    cost = user.generate().json()["cost_units"]
    wallet = ChainWallet(user.house.rooms.chain, user.key)
    user.house.loop.do(wallet.withdraw_deposit(DEPOSIT))  # before the batch could charge it
    user.wait_for(lambda: user.balance()["available_units"] == -cost)
    assert error_of(user.generate(), 402)["code"] == "insufficient_balance"
