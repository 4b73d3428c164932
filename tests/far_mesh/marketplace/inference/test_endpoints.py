"""The whole walk through the front door, against a real chain."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.receipt import read_receipt
from far_mesh.errors import NoRoute
from far_mesh.marketplace.errors import FeeMismatch
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.ledger.split import Prices
from far_mesh.marketplace.pricing import repository as prices
from far_mesh.marketplace.pricing.quotes import Quotes
from far_mesh.marketplace.pricing.schemas import ListPrice
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import CONTEXT, MODEL, NODES, STORY, MeshDouble, Node
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, User

PROMPT_TOKENS = 5
PRICE = PROMPT_TOKENS * PROMPT_PRICE + len(STORY) * COMPLETION_PRICE
DEPOSIT = 10**9


def credits_of(house: House, nodes: tuple[Node, ...] = NODES) -> dict[str, int]:
    """What the chain has credited to each wallet, in wei."""
    return {node.wallet: house.loop.do(house.rooms.chain.credit_of_wei(node.wallet)) for node in nodes}


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error, after its shape was checked."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    offers = {"x402Version", "accepts"} if body.get("accepts") else set()
    assert set(body) == {"error"} | offers
    assert not offers or status == 402
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")
    found: dict[str, Any] = body["error"]
    return found


def nothing_moved(user: User) -> bool:
    """Whether the user has all of the deposit, in the books and on chain."""
    balance, house = user.balance(), user.house
    on_chain = house.loop.do(house.rooms.chain.deposit_of(user.wallet))
    return (balance["available_units"], balance["held_units"], on_chain) == (DEPOSIT, 0, DEPOSIT)


def check_paid_to_the_unit(user: User, answer: dict[str, Any], credits_before: dict[str, int]) -> None:
    """Answer, request, books and chain say the same."""
    house = user.house
    paid = sum(node["paid_units"] for node in answer["nodes_used"])
    assert paid + answer["fee_units"] + answer["refund_units"] == answer["held_units"]
    assert answer["cost_units"] == paid + answer["fee_units"]
    report = user.settled(answer["request_id"])
    assert report["settlement"]["status"] == "released"
    assert report["settlement"]["lock_tx"].startswith("0x")
    assert report["settlement"]["release_tx"].startswith("0x")
    for name in ("held_units", "cost_units", "fee_units", "refund_units", "nodes_used", "completion_tokens"):
        assert report[name] == answer[name], name
    for node in answer["nodes_used"]:
        wallet = node["wallet_address"]
        assert credits_of(house)[wallet] - credits_before[wallet] == node["paid_units"] * 10**9
    available = user.balance()["available_units"]
    assert available == DEPOSIT - answer["cost_units"]
    assert house.loop.do(house.rooms.chain.deposit_of(user.wallet)) == available
    assert sum(house.books().values()) == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_plain_answer_is_paid_to_the_unit_on_chain(
    open_house: OpenHouse, kind: str, request: pytest.FixtureRequest
) -> None:
    user = open_house(database_url=request.getfixturevalue(f"{kind}_url")).user()
    before = credits_of(user.house)
    answer = user.generate().json()
    assert answer["text"] == "".join(STORY)
    assert (answer["tokens_generated"], answer["prompt_tokens"]) == (len(STORY), PROMPT_TOKENS)
    assert answer["held_units"] == PRICE
    assert 0 <= PRICE - answer["cost_units"] <= 1
    assert answer["cost_far"] == answer["cost_units"] / 10**9
    assert [node["layers"] for node in answer["nodes_used"]] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [node["token_layers"] for node in answer["nodes_used"]] == [48, 48, 32]
    assert answer["nodes_used"][1]["quantization"] == "int8"
    check_paid_to_the_unit(user, answer, before)


def test_a_stream_tells_tokens_and_last_the_bill(open_house: OpenHouse) -> None:
    user = open_house().user()
    before = credits_of(user.house)
    events = user.events()
    *tokens, done = events
    assert [one["token"] for one in tokens] == list(STORY)
    assert {one["request_id"] for one in events} == {done["request_id"]}
    assert all(set(one) == {"token", "request_id"} for one in tokens)
    assert done["done"] is True
    assert (done["total_tokens"], done["completion_tokens"], done["finish_reason"]) == (12, 12, "stop")
    assert 0 <= done["time_to_first_token_ms"] <= done["latency_ms"]
    check_paid_to_the_unit(user, done, before)


def test_how_often_other_nodes_went_on_is_told(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    user = open_house(mesh).user()
    assert user.events()[-1]["mended"] == 0
    mesh.mended = ("a node in the middle", "and its replacement")
    assert user.events()[-1]["mended"] == 2
    assert user.generate(n=2).json()["mended"] == 4


def test_a_short_answer_costs_less_than_was_held_and_the_rest_comes_back(open_house: OpenHouse) -> None:
    user = open_house().user()
    before = credits_of(user.house)
    done = user.events(max_tokens=40)[-1]
    assert done["held_units"] == PROMPT_TOKENS * PROMPT_PRICE + 40 * COMPLETION_PRICE
    assert done["refund_units"] >= 28 * COMPLETION_PRICE
    check_paid_to_the_unit(user, done, before)


def test_work_that_nobody_proved_is_refunded(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(unproven=("bob",))).user()
    before = credits_of(user.house)
    answer = user.generate().json()
    assert [node["wallet_address"] for node in answer["nodes_used"]] == [NODES[0].wallet, NODES[2].wallet]
    assert abs(answer["cost_units"] - PRICE * 5 // 8) <= 2
    check_paid_to_the_unit(user, answer, before)


def test_when_nobody_proved_anything_nothing_is_charged(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(unproven=("ann", "bob", "cid"))).user()
    answer = user.generate().json()
    assert (answer["cost_units"], answer["refund_units"], answer["nodes_used"]) == (0, PRICE, [])
    assert user.settled(answer["request_id"])["settlement"]["status"] == "cancelled"
    assert nothing_moved(user)


def test_a_node_that_names_a_wallet_nobody_can_be_paid_at_does_not_rob_the_others(open_house: OpenHouse) -> None:
    class Zero(Node):
        wallet = "0x" + "00" * 20

    user = open_house(MeshDouble(serving=(NODES[0], Zero("zero", (3, 6)), NODES[2]))).user()
    before = credits_of(user.house)
    answer = user.generate().json()
    assert [node["wallet_address"] for node in answer["nodes_used"]] == [NODES[0].wallet, NODES[2].wallet]
    check_paid_to_the_unit(user, answer, before)


def test_parameters_reach_the_mesh(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    user = open_house(mesh).user()
    user.generate("one two", max_tokens=3, temperature=0.7, top_p=0.9, seed=7, stop=["x", "y"], raw=True)
    user.generate("one two", stop="x", raw=False)
    (ids, options), (templated, other) = mesh.asked
    assert (len(ids), len(templated)) == (2, 3)
    assert (options.max_tokens, options.temperature, options.top_p, options.seed) == (3, 0.7, 0.9, 7)
    assert (options.stop, other.stop) == (("x", "y"), ("x",))


def test_nodes_recognise_the_prompts_of_one_user_and_not_of_another(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    user = open_house(mesh).user()
    other = user.house.user()
    for who in (user, user, other):
        who.generate("one two")
    mine, again, theirs = (treatment.prefix_scope for treatment in mesh.treatments)
    assert mine == again != theirs
    assert len(mine) == len(theirs) == 32
    assert not any(treatment.share_prefix for treatment in mesh.treatments)
    assert user.wallet.encode() not in mine


# ---- refused before any money moves


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model_id": "gpt-9"}, 404, "model_not_found", "model"),
        ({"max_tokens": 0}, 400, "invalid_argument", "max_tokens"),
        ({"max_tokens": -5}, 400, "invalid_argument", "max_tokens"),
        ({"max_tokens": 10**9}, 400, "invalid_argument", "max_tokens"),
        ({"max_tokens": 10**30}, 400, "invalid_argument", "max_tokens"),
        ({"max_tokens": "many"}, 400, "invalid_argument", "max_tokens"),
        ({"max_tokens": CONTEXT - 4}, 400, "context_length_exceeded", "max_tokens"),
        ({"prompt": "word " * CONTEXT}, 400, "context_length_exceeded", "prompt"),
        ({"prompt": ""}, 400, "invalid_argument", "prompt"),
        ({"prompt": ["a"]}, 400, "invalid_argument", "prompt"),
        ({"temperature": 3}, 400, "invalid_argument", "temperature"),
        ({"top_p": 0}, 400, "invalid_argument", "top_p"),
        ({"stop": ["x"] * 17}, 400, "invalid_argument", "stop"),
        ({"seed": 2**64}, 400, "invalid_argument", "seed"),
        ({"tier": "premium"}, 403, "tier_forbidden", "tier"),
        ({"tier": "imperial"}, 400, "unsupported_parameter", "tier"),
        ({"beams": 4}, 400, "unsupported_parameter", "beams"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_cannot_be_served_is_refused_and_no_money_moves(
    refusing: User, changes: dict[str, Any], status: int, code: str, param: str, stream: bool
) -> None:
    error = error_of(refusing.generate(**({"stream": stream} | changes)), status)
    assert error["code"] == code
    assert (error["param"] or "").split(".")[0] == param
    assert nothing_moved(refusing)


@pytest.fixture(scope="module")
def refusing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One user for all requests that never become one."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('refusing') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), MeshDouble()) as house:
        yield house.user(DEPOSIT)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nonsense", "Basic abc"])
def test_without_a_token_nobody_is_served(refusing: User, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    for method, path in (
        ("POST", "/api/inference/distributed/generate"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/api/account/balance"),
        ("GET", "/api/inference/requests/req_1"),
    ):
        answer = httpx.request(method, refusing.house.url + path, headers=headers)
        assert error_of(answer, 401)["code"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wallet_address_is_not_a_token(refusing: User) -> None:
    headers = {"authorization": f"Bearer {refusing.wallet}"}
    assert error_of(httpx.get(refusing.house.url + "/api/account/balance", headers=headers), 401)


def test_an_empty_wallet_is_told_what_it_needs(open_house: OpenHouse) -> None:
    user = open_house().user(deposit=0)
    error = error_of(user.generate(), 402)
    assert error["code"] == "insufficient_balance"
    assert str(PRICE) in error["message"]
    assert user.house.books().get(Account(Book.USER_HOLD, user.wallet), 0) == 0


def test_a_user_who_has_not_consented_on_chain_is_told_how(open_house: OpenHouse) -> None:
    user = open_house().user(allowance=PRICE - 1)
    error = error_of(user.generate(), 402)
    assert error["code"] == "allowance_too_low"
    assert "setSpendingAllowance" in error["message"]
    assert nothing_moved(user)


def test_no_node_for_a_range_is_named_and_no_money_moves(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(serving=(NODES[0], NODES[2]))).user()
    answer = user.generate()
    error = error_of(answer, 503)
    assert error["code"] == "no_route"
    assert "3:6" in error["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert nothing_moved(user)


def test_a_range_whose_only_node_sleeps_is_served(open_house: OpenHouse) -> None:
    mesh = MeshDouble(serving=(NODES[0], NODES[2]), sleeping=(NODES[1],))
    answer = open_house(mesh).user().generate()
    assert answer.status_code == 200, answer.text
    assert not mesh.sleeping


def test_too_few_nodes_are_counted(open_house: OpenHouse) -> None:
    offer = {"model": MODEL, "completion_price_units": 5, "min_nodes": 4}
    user = open_house(models=[offer]).user()
    assert error_of(user.generate(), 503)["code"] == "not_enough_nodes"
    assert nothing_moved(user)


# ---- failures after the money was locked


def test_a_route_that_falls_at_the_last_moment_is_a_full_refund(open_house: OpenHouse) -> None:
    mesh = MeshDouble(refuse_to_open=NoRoute("no node serves blocks 3:6", uncovered=[(3, 6)], retry_after=3))
    user = open_house(mesh).user()
    answer = user.generate()
    assert error_of(answer, 503)["code"] == "no_route"
    report = user.settled(answer.headers["x-request-id"])
    assert (report["status"], report["error_code"], report["refund_units"]) == ("failed", "no_route", PRICE)
    assert report["settlement"]["status"] == "cancelled"
    assert nothing_moved(user)


def test_an_answer_that_breaks_off_costs_nothing(open_house: OpenHouse) -> None:
    mesh = MeshDouble(break_at=5, breaks_with=PeerUnavailable("node bob is gone"))
    user = open_house(mesh).user()
    events = user.events()
    assert [one["token"] for one in events[:-1]] == list(STORY[:5])
    assert events[-1]["error"]["code"] == "generation_failed"
    assert "nothing is charged" in events[-1]["error"]["message"]
    assert mesh.generations[0].finished
    assert user.settled(events[0]["request_id"])["settlement"]["status"] == "cancelled"
    assert nothing_moved(user)
    assert error_of(user.generate(), 502)["code"] == "generation_failed"


def test_a_bug_in_the_middle_is_a_refund_and_tells_nobody_its_details(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(break_at=5, breaks_with=ValueError("secret details"))).user()
    events = user.events()
    assert events[-1]["error"]["code"] == "internal_error"
    assert "secret" not in str(events)
    user.settled(events[0]["request_id"])
    assert nothing_moved(user)


def test_a_reader_who_goes_away_pays_for_what_was_delivered(open_house: OpenHouse) -> None:
    gate = asyncio.Event()
    mesh = MeshDouble(story=[f" {index}" for index in range(50)], gate=gate)
    user = open_house(mesh).user()
    before = credits_of(user.house)
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 50}
    with user.http.stream("POST", "/api/inference/distributed/generate", json=body) as answer:
        request_id = answer.headers["x-request-id"]
        user.house.loop.loop.call_soon_threadsafe(gate.set)
        lines = answer.iter_lines()
        next(lines)
        user.house.loop.loop.call_soon_threadsafe(gate.clear)
    user.house.loop.loop.call_soon_threadsafe(gate.set)
    report = user.settled(request_id)
    assert report["status"] == "completed"
    assert 1 <= report["completion_tokens"] <= 50
    assert mesh.generations[0].finished
    check_paid_to_the_unit(user, report, before)


def test_a_reader_who_never_reads_a_token_pays_nothing(open_house: OpenHouse) -> None:
    gate = asyncio.Event()
    mesh = MeshDouble(gate=gate)
    user = open_house(mesh).user()
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12}
    with user.http.stream("POST", "/api/inference/distributed/generate", json=body) as answer:
        request_id = answer.headers["x-request-id"]
    time.sleep(0.5)  # for the server to hear of it, which nobody is told
    user.house.loop.loop.call_soon_threadsafe(gate.set)
    user.settled(request_id)
    assert nothing_moved(user)


def test_a_generation_does_not_run_far_ahead_of_its_reader(open_house: OpenHouse) -> None:
    mesh = MeshDouble(story=["x" * 200_000] * 50)
    user = open_house(mesh).user()
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 50}
    with user.http.stream("POST", "/api/inference/distributed/generate", json=body):
        time.sleep(0.5)
        assert mesh.generations[0]._done < 50


def test_a_generation_that_takes_too_long_is_stopped_and_paid_for_what_it_did(open_house: OpenHouse) -> None:
    gate = asyncio.Event()
    house = open_house(MeshDouble(gate=gate), generation_seconds=1)
    user = house.user()
    answer = user.generate()
    assert answer.json()["finish_reason"] == "stopped"
    assert answer.json()["cost_units"] == 0
    user.settled(answer.json()["request_id"])
    assert nothing_moved(user)


def test_closing_the_house_settles_what_was_delivered(open_house: OpenHouse) -> None:
    gate = asyncio.Event()
    house = open_house(MeshDouble(gate=gate))
    user = house.user()
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.append(user.generate().json()))
    reader.start()
    user.wait_for(lambda: house.mesh.generations)  # type: ignore[attr-defined]
    closing = asyncio.run_coroutine_threadsafe(house.rooms.inference.close(), house.loop.loop)
    house.loop.loop.call_soon_threadsafe(gate.set)
    closing.result(10)
    reader.join(10)
    assert found[0]["completion_tokens"] <= 1
    user.settled(found[0]["request_id"])
    assert sum(house.books().values()) == 0
    assert user.balance()["held_units"] == 0


# ---- many at once


def test_many_requests_at_once_are_each_paid_once(open_house: OpenHouse) -> None:
    user = open_house().user()
    before = credits_of(user.house)
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(user.events()[-1])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["request_id"] for answer in answers}) == 12
    for answer in answers:
        assert user.settled(answer["request_id"])["settlement"]["status"] == "released"
    paid = sum(node["paid_units"] for answer in answers for node in answer["nodes_used"])
    after = credits_of(user.house)
    assert sum(after.values()) - sum(before.values()) == paid * 10**9
    spent = sum(answer["cost_units"] for answer in answers)
    assert user.balance()["available_units"] == DEPOSIT - spent
    assert user.house.loop.do(user.house.rooms.chain.deposit_of(user.wallet)) == DEPOSIT - spent


# ---- looking


def test_models_are_listed_without_inventing_numbers(open_house: OpenHouse) -> None:
    house = open_house()
    entry = httpx.get(house.url + "/api/inference/models").json()["models"][0]
    assert (entry["id"], entry["active_nodes"], entry["avg_latency_ms"], entry["min_vram_gb"]) == (MODEL, 3, None, None)
    assert entry["price_per_token_far"] == COMPLETION_PRICE / 10**9
    assert (entry["available"], entry["reason"]) == (True, None)
    assert entry["coverage"] == [{"first_block": 0, "end_block": 8, "replicas": 1}]
    assert entry["prices"].keys() == {"standard", "premium"}
    assert entry["prices"]["standard"]["completion_price_units"] == entry["completion_price_units"]
    assert entry["prices"]["premium"]["completion_price_units"] == 10 * COMPLETION_PRICE
    user = house.user()
    user.generate()
    measured = httpx.get(house.url + "/api/inference/models").json()["models"][0]["avg_latency_ms"]
    assert isinstance(measured, int)


def test_a_model_that_cannot_be_had_now_says_why(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble(serving=NODES[:2]))
    entry = httpx.get(house.url + "/api/inference/models").json()["models"][0]
    assert (entry["available"], entry["reason"]) == (False, f"no node serves blocks 6:8 of {MODEL}")
    assert entry["coverage"][-1] == {"first_block": 6, "end_block": 8, "replicas": 0}


def test_a_node_that_broke_off_is_not_shown_but_asked_where_there_is_no_other(open_house: OpenHouse) -> None:
    spare = replace(NODES[2], name="spare")
    mesh = MeshDouble(serving=(*NODES, spare), broken_off=("spare",))
    house = open_house(mesh)
    assert [node["layers_served"] for node in active(house)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    (entry,) = httpx.get(house.url + "/api/inference/models").json()["models"]
    assert (entry["active_nodes"], entry["available"]) == (3, True)
    mesh.broken_off = ("spare", "cid")
    (entry,) = httpx.get(house.url + "/api/inference/models").json()["models"]
    assert (entry["available"], entry["coverage"][-1]["replicas"]) == (False, 0)
    assert house.user().generate().status_code == 200


def active(house: House) -> list[dict[str, Any]]:
    """Who serves, by their blocks."""
    nodes = httpx.get(f"{house.url}/api/nodes/active/{MODEL}").json()["nodes"]
    return sorted(nodes, key=lambda node: list(node["layers_served"]))


def test_a_request_is_nobody_elses_business(open_house: OpenHouse) -> None:
    house = open_house()
    owner, stranger = house.user(), house.user(deposit=0)
    request_id = owner.generate().json()["request_id"]
    assert owner.request(request_id)["status"] == "completed"
    for request in (request_id, "req_unknown"):
        assert error_of(stranger.http.get(f"/api/inference/requests/{request}"), 404)["code"] == "request_not_found"


def test_what_nodes_have_signed_for_a_request_is_had_by_its_owner(open_house: OpenHouse) -> None:
    user = open_house().user()
    answer = user.generate().json()
    told = user.http.get(f"/api/inference/requests/{answer['request_id']}/receipts").json()
    assert (told["request_id"], told["model_id"]) == (answer["request_id"], MODEL)
    assert [{**one, "receipt": None} for one in told["receipts"]] == [
        {**one, "receipt": None} for one in answer["nodes_used"]
    ]
    for one in told["receipts"]:
        signed = read_receipt(one["receipt"].encode())
        assert (signed.peer_id, signed.receipt.token_layers) == (one["node_id"], one["token_layers"])
        assert signed.receipt.blocks == (one["layers"][0], one["layers"][-1] + 1)


# ---- prices


def quote(user: User, **changes: Any) -> httpx.Response:
    """Ask what a request would cost."""
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12}
    body = {name: value for name, value in (body | changes).items() if value is not None}
    return user.http.post("/api/inference/quote", json=body)


def set_price(house: House, prompt: int, completion: int) -> None:
    async def put() -> None:
        async with house.rooms.database.writing() as connection:
            await prices.put(connection, MODEL, "standard", ListPrice(prompt, completion))

    house.loop.do(put())


def test_a_quote_tells_the_most_that_a_request_can_cost_and_is_kept(open_house: OpenHouse) -> None:
    user = open_house().user()
    quoted = quote(user).json()
    assert (quoted["prompt_tokens"], quoted["max_tokens"]) == (PROMPT_TOKENS, 12)
    assert (quoted["prompt_price_units"], quoted["completion_price_units"]) == (PROMPT_PRICE, COMPLETION_PRICE)
    assert quoted["max_cost_units"] == PRICE
    assert (quoted["fee_bps"], quoted["price_multiplier"], quoted["utilisation"]) == (2_000, 1.0, 0.0)
    assert quote(user, prompt=None, prompt_tokens=5).json()["max_cost_units"] == PRICE
    set_price(user.house, 2 * PROMPT_PRICE, 2 * COMPLETION_PRICE)
    assert user.generate(quote_id=quoted["quote_id"]).json()["held_units"] == PRICE
    assert user.generate().json()["held_units"] == 2 * PRICE
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": 12}
    answer = user.http.post("/v1/chat/completions", json=body | {"quote_id": quoted["quote_id"]})
    assert answer.json()["far"]["held_units"] == PRICE


def test_a_quote_is_for_one_wallet(open_house: OpenHouse) -> None:
    user = open_house().user()
    other = user.house.user()
    assert error_of(other.generate(quote_id=quote(user).json()["quote_id"]), 400)["code"] == "quote_invalid"
    assert nothing_moved(other)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model_id": "gpt-9"}, 404, "model_not_found"),
        ({"tier": "premium"}, 403, "tier_forbidden"),
        ({"prompt_tokens": 5}, 400, "invalid_argument"),
        ({"prompt": None}, 400, "invalid_argument"),
        ({"prompt": None, "prompt_tokens": 0}, 400, "invalid_argument"),
        ({"prompt": None, "prompt_tokens": 10**30}, 400, "context_length_exceeded"),
        ({"max_tokens": 0}, 400, "invalid_argument"),
        ({"max_tokens": -1}, 400, "invalid_argument"),
        ({"max_tokens": 10**30}, 400, "invalid_argument"),
        ({"wallet": "0x"}, 400, "unsupported_parameter"),
    ],
)
def test_what_cannot_be_quoted_is_refused(refusing: User, changes: dict[str, Any], status: int, code: str) -> None:
    assert error_of(quote(refusing, **changes), status)["code"] == code


def test_without_a_token_there_is_no_quote(refusing: User) -> None:
    answer = httpx.post(refusing.house.url + "/api/inference/quote", json={"model_id": MODEL, "prompt": "x"})
    assert error_of(answer, 401)["code"] == "unauthorized"


@pytest.mark.parametrize("quote_id", ["", "nonsense", "a.b.c", "x" * 2049])
def test_an_invented_quote_moves_no_money(refusing: User, quote_id: str) -> None:
    assert refusing.generate(quote_id=quote_id).status_code == 400
    assert nothing_moved(refusing)


def test_tokens_that_all_nodes_knew_from_before_cost_less(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(cached=(3, 4, 3))).user()
    before = credits_of(user.house)
    answer = user.generate().json()
    assert answer["cached_tokens"] == 3
    assert answer["held_units"] == PRICE
    assert 0 <= PRICE - 3 * PROMPT_PRICE // 2 - answer["cost_units"] <= 1
    check_paid_to_the_unit(user, answer, before)
    assert user.request(answer["request_id"])["cached_tokens"] == 3


def test_a_gateway_with_another_fee_than_the_escrow_does_not_open(open_house: OpenHouse) -> None:
    with pytest.raises(FeeMismatch, match="1000"):
        open_house(fee_bps=1_000)


def test_a_fee_that_the_escrow_does_not_take_is_never_charged(open_house: OpenHouse) -> None:
    user = open_house().user()
    kept = Quotes(user.house.settings.jwt_key(), 60)
    prices = Prices(PROMPT_PRICE, COMPLETION_PRICE, PROMPT_PRICE, 1_000)
    quoted = kept.give(user.wallet, MODEL, "standard", prices).id  # when the fee was another one
    assert error_of(user.generate(quote_id=quoted), 503)["code"] == "fee_mismatch"
    assert nothing_moved(user)


# ---- once


def test_many_requests_with_one_idempotency_key_are_charged_once(open_house: OpenHouse) -> None:
    user = open_house().user()
    before = credits_of(user.house)
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "stream": False}

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=user.house.url, headers=user.http.headers, timeout=60) as http:
            headers = {"idempotency-key": "my order 17"}
            asked = [http.post("/api/inference/distributed/generate", json=body, headers=headers) for _ in range(40)]
            return await asyncio.gather(*asked)

    answers = asyncio.run(ask())
    served = [answer for answer in answers if answer.status_code == 200]
    assert len(served) == 1
    assert {error_of(answer, 409)["code"] for answer in answers if answer is not served[0]} == {"conflict"}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 1
    check_paid_to_the_unit(user, served[0].json(), before)
    assert user.house.user().http.post(
        "/api/inference/distributed/generate", json=body, headers={"idempotency-key": "my order 17"}
    ).status_code == 200  # another user's key is another request  # fmt: skip
    assert error_of(user.http.post("/v1/chat/completions", headers={"idempotency-key": "x" * 256}, json={}), 400)
