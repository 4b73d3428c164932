"""Answers over payment channels, through the front door and against a real chain."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery.protocol.errors import PeerUnavailable
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.payments.vouchers import channel_id_of
from tests.far_mesh.marketplace.channels.payer import PROMPT_UNITS, Payer
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, House, User
from tests.far_mesh.marketplace.inference.test_endpoints import credits_of, error_of

STEP = 200_000
COST = PROMPT_UNITS + len(STORY) * COMPLETION_PRICE
DEPOSIT = 5_000_000
TERMS = {"voucher_step_units": STEP, "voucher_seconds": 10.0, "unsettled_limit_units": 10**8}


def payer_of(house: House, deposit: int = DEPOSIT) -> Payer:
    payer = Payer(house.user(), deposit)
    assert payer.look().status_code == 200
    return payer


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["token"] for event in events if "token" in event)


def nothing_is_open(payer: Payer) -> bool:
    """Whether everything that was counted was captured, and nothing is held."""
    state = payer.state()
    held = payer.user.balance()["held_units"]
    return bool(held == 0 and state["earned_units"] <= state["promised_units"])


# ---- an answer


def test_an_answer_is_paid_while_it_is_read_and_then_on_chain(open_house: OpenHouse) -> None:
    house = open_house(**TERMS, settle_seconds=0.05)
    payer = payer_of(house)
    before = credits_of(house)
    *events, done = payer.read_and_pay(STEP)
    assert text_of(events) == "".join(STORY)
    assert done["finish_reason"] == "stop"
    assert 0 <= COST - done["cost_units"] <= 1
    state = payer.state()
    assert state["earned_units"] == done["cost_units"] <= state["promised_units"] <= COST + STEP
    report = payer.user.request(done["request_id"])
    assert (report["payment"], report["channel_id"]) == ("channel", payer.channel_id)
    payer.user.wait_for(lambda: payer.user.request(done["request_id"])["settlement"]["status"] == "paid")
    paid = sum(node["paid_units"] for node in done["nodes_used"])
    assert sum(credits_of(house).values()) - sum(before.values()) == paid * 10**9
    payer.user.wait_for(lambda: payer.state()["redeemed_units"] == done["cost_units"])
    books = house.books()
    assert sum(books.values()) == 0
    assert books[Account(Book.USER_CHANNEL, payer.user.wallet)] == DEPOSIT - done["cost_units"]


def test_one_answer_after_the_other_over_any_of_the_callers_channels(open_house: OpenHouse) -> None:
    house = open_house(**TERMS)
    payer = payer_of(house)
    for _ in range(2):
        assert text_of(payer.read_and_pay(STEP, payment="channel")) == "".join(STORY)
    assert nothing_is_open(payer)
    assert payer.state()["earned_units"] == pytest.approx(2 * COST, abs=2)


def test_a_token_without_a_text_of_its_own_is_told_because_it_is_counted(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(MeshDouble(story=["", "x"] * 10), **TERMS))
    *events, done = payer.read_and_pay(STEP, max_tokens=20)
    assert (text_of(events), done["finish_reason"], done["completion_tokens"]) == ("x" * 10, "stop", 20)
    assert sum("token" in event for event in events) == 20
    assert 0 <= PROMPT_UNITS + 20 * COMPLETION_PRICE - done["cost_units"] <= 1


def test_a_plain_answer_is_served_as_far_as_vouchers_reach(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(**(TERMS | {"voucher_seconds": 0.2})))
    payer.promise(COST)
    answer = payer.user.generate(payment=f"channel:{payer.channel_id}")
    assert answer.json()["text"] == "".join(STORY)
    cut = payer.user.generate(payment=f"channel:{payer.channel_id}").json()
    assert cut["finish_reason"] == "voucher_needed"
    assert 0 < cut["completion_tokens"] <= STEP // COMPLETION_PRICE
    assert cut["cost_units"] <= 1  # it was lent, and nobody signed for it
    assert nothing_is_open(payer)


# ---- without a voucher


def test_the_answer_waits_for_a_voucher_and_nobody_works_meanwhile(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    payer = payer_of(open_house(mesh, **TERMS))
    done_at_pause: list[int] = []

    def pay(event: dict[str, Any]) -> None:
        if event.get("type") == "voucher_needed":
            time.sleep(0.6)  # longer than it looks for vouchers
            done_at_pause.append(mesh.generations[0]._done)
            assert event["channel_id"] == payer.channel_id
            assert event["promise_wei"] == str(event["promise_units"] * 10**9)
            assert (event["step_units"], event["deposit_units"]) == (STEP, DEPOSIT)
            assert payer.promise(event["promise_units"]).status_code == 200

    events = payer.events(pay)
    assert text_of(events) == "".join(STORY)
    assert done_at_pause[0] == (STEP - PROMPT_UNITS) // COMPLETION_PRICE
    assert done_at_pause == sorted(set(done_at_pause))
    assert nothing_is_open(payer)


def test_without_a_voucher_the_answer_ends_and_costs_what_was_promised(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(**(TERMS | {"voucher_seconds": 0.2})))
    payer.promise(100_000)
    *events, done = payer.events()
    assert done["finish_reason"] == "voucher_needed"
    assert done["completion_tokens"] == (100_000 + STEP - PROMPT_UNITS) // COMPLETION_PRICE
    assert text_of(events) == "".join(STORY[: done["completion_tokens"]])
    assert 0 <= 100_000 - done["cost_units"] <= 1
    assert payer.state()["earned_units"] == done["cost_units"]
    assert payer.user.balance()["held_units"] == 0
    assert payer.user.request(done["request_id"])["finish_reason"] == "voucher_needed"


def test_a_dear_prompt_is_not_lent(open_house: OpenHouse) -> None:
    offer = {"model": MODEL, "prompt_price_units": 50_000, "completion_price_units": 1}
    payer = payer_of(open_house(**TERMS, models=[offer]))
    wanted: dict[str, Any] = {
        "prompt": "word " * 47,
        "max_tokens": 2,
        "payment": "channel",
        "raw": True,
        "stream": False,
    }
    answer, needed = payer.user.generate(**wanted), 47 * 50_000
    error = error_of(answer, 402)
    assert error["code"] == "voucher_needed"
    assert str(needed) in error["message"]
    (offered,) = answer.json()["accepts"]
    assert (offered["scheme"], offered["amount"]) == ("batch-settlement", str(needed * 10**9))
    assert offered["extra"]["channelId"] == payer.channel_id
    assert payer.state()["earned_units"] == payer.user.balance()["held_units"] == 0
    payer.promise(needed + STEP)
    assert payer.user.generate(**wanted).status_code == 200


def test_a_reader_who_goes_away_pays_for_what_was_delivered(open_house: OpenHouse) -> None:
    gate = asyncio.Event()
    payer = payer_of(open_house(MeshDouble(story=[" x"] * 50, gate=gate), **TERMS))
    payer.promise(DEPOSIT)
    payer.user.house.loop.loop.call_soon_threadsafe(gate.set)
    events = payer.each_event(max_tokens=50)
    request_id = next(events)["request_id"]
    events.close()  # type: ignore[attr-defined]
    payer.user.wait_for(lambda: payer.user.request(request_id)["status"] == "completed")
    cost = payer.user.request(request_id)["cost_units"]
    assert cost > 0
    assert payer.state()["earned_units"] == cost
    assert nothing_is_open(payer)


def test_an_answer_that_breaks_off_costs_nothing(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(MeshDouble(break_at=5, breaks_with=PeerUnavailable("gone")), **TERMS))
    payer.promise(DEPOSIT)
    assert payer.events()[-1]["error"]["code"] == "generation_failed"
    assert payer.state()["earned_units"] == payer.user.balance()["held_units"] == 0


def test_a_reader_who_leaves_while_the_answer_waits_ends_it(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(**TERMS))
    events = payer.each_event()
    request_id = next(events)["request_id"]
    for event in events:
        if event.get("type") == "voucher_needed":
            break
    events.close()  # type: ignore[attr-defined]
    payer.user.wait_for(lambda: payer.user.request(request_id)["status"] == "completed")
    assert payer.user.request(request_id)["cost_units"] == 0  # nothing was ever promised
    assert payer.state()["earned_units"] == 0


def test_a_channel_that_is_being_closed_serves_nothing_more(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(**TERMS))
    closing: list[bool] = []

    def close(event: dict[str, Any]) -> None:
        if event.get("type") == "voucher_needed" and not closing:
            closing.append(True)
            wallet = ChainWallet(payer.user.house.rooms.chain, payer.user.key)
            payer.user.house.loop.do(wallet.start_close(payer.channel_id))

    done = payer.events(close)[-1]
    assert done["finish_reason"] == "channel_closing"
    assert error_of(payer.user.generate(payment="channel"), 404)["code"] == "channel_unknown"
    named = payer.user.generate(payment=f"channel:{payer.channel_id}")
    assert error_of(named, 402)["code"] == "channel_closing"
    assert error_of(payer.promise(100), 402)["code"] == "channel_closing"
    assert payer.state()["next_promise_units"] is None


def test_clients_of_other_servers_see_what_to_sign_in_a_chunk(open_house: OpenHouse) -> None:
    payer = payer_of(open_house(**TERMS))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": 12}
    headers = {"x-far-payment": f"channel:{payer.channel_id}"}
    chunks: list[dict[str, Any]] = []
    with payer.user.http.stream(
        "POST", "/v1/chat/completions", json=body | {"stream": True}, headers=headers
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
                if (said := chunks[-1].get("far", {})).get("type") == "voucher_needed":
                    assert chunks[-1]["choices"][0]["delta"] == {}
                    assert payer.promise(said["promise_units"] + STEP).status_code == 200
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "".join(STORY)
    assert any("type" in chunk.get("far", {}) for chunk in chunks)
    assert chunks[-1]["far"]["cost_units"] > 0


# ---- two gateways


def test_a_voucher_counts_whichever_gateway_takes_it(open_house: OpenHouse, sqlite_url: str) -> None:
    serving = open_house(**TERMS, gateway_name="one")
    payer = payer_of(serving)
    other = open_house(**TERMS, gateway_name="two", jwt_secret=serving.settings.jwt_key())

    def pay(event: dict[str, Any]) -> None:
        if event.get("type") == "voucher_needed":
            assert payer.promise(event["promise_units"] + STEP, at=other).status_code == 200

    assert text_of(payer.events(pay)) == "".join(STORY)
    assert nothing_is_open(payer)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_gateways_that_serve_over_one_channel_lose_nothing(
    open_house: OpenHouse, kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    terms = TERMS | {"database_url": url, "settle_seconds": 3_600.0, "settle_threshold_units": 10**15}
    first = open_house(**terms, gateway_name="one")
    payer = payer_of(first, 8 * COST)
    second = open_house(**terms, gateway_name="two", jwt_secret=first.settings.jwt_key())
    ends: list[dict[str, Any]] = []
    lock = threading.Lock()

    def pay(event: dict[str, Any]) -> None:
        if event.get("type") == "voucher_needed":
            with lock:
                answer = payer.promise(event["promise_units"] + STEP // 2, at=second)
            assert answer.status_code == 200 or answer.json()["error"]["code"] == "voucher_stale"

    def read(house: House) -> None:
        ends.append(payer.events(pay, at=house)[-1])

    readers = [threading.Thread(target=read, args=(house,)) for house in (first, second) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert [end["finish_reason"] for end in ends] == ["stop"] * 4
    state = payer.state()
    total = sum(end["cost_units"] for end in ends)
    # Of what was served no more than a step is not covered, however many answers share the channel.
    assert 4 * COST - STEP - 4 <= total <= 4 * COST
    assert state["earned_units"] == total <= state["promised_units"]
    assert payer.user.balance()["held_units"] == 0


# ---- the doors


@pytest.fixture(scope="module")
def owner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Payer]:
    """Somebody with a channel, in a house for all requests that change nothing."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    folder: Path = tmp_path_factory.mktemp("channels")
    settings = live.settings(database_url=f"sqlite+aiosqlite:///{folder / 'm.db'}", **TERMS)
    with House(loop, live, settings, MeshDouble()) as house:
        yield payer_of(house)


def test_a_channel_is_told_as_it_is(owner: Payer) -> None:
    state = owner.state()
    assert state["channel_id"] == owner.channel_id
    assert (state["deposit_units"], state["promised_units"], state["earned_units"]) == (DEPOSIT, 0, 0)
    assert (state["redeemed_units"], state["closes_at"], state["step_units"]) == (0, None, STEP)
    assert (state["next_promise_units"], state["next_promise_wei"]) == (STEP, str(STEP * 10**9))
    assert owner.user.http.get("/api/channels").json() == {"channels": [state]}
    assert owner.look().json() == state


def test_a_channel_is_nobody_elses_business(owner: Payer) -> None:
    stranger = owner.user.house.user(deposit=0)
    assert stranger.http.get("/api/channels").json() == {"channels": []}
    path = f"/api/channels/{owner.channel_id}"
    assert error_of(stranger.http.get(path), 404)["code"] == "channel_unknown"
    voucher = owner.voucher(STEP).document()
    assert error_of(stranger.http.post(f"{path}/vouchers", json=voucher), 404)["code"] == "channel_unknown"
    look = stranger.http.post("/api/channels", json={"channel_id": owner.channel_id})
    assert error_of(look, 404)["code"] == "channel_unknown"
    ask = stranger.generate(payment=f"channel:{owner.channel_id}")
    assert error_of(ask, 404)["code"] == "channel_unknown"
    assert error_of(stranger.generate(payment="channel"), 404)["code"] == "channel_unknown"
    assert owner.state()["promised_units"] == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_a_token_there_are_no_channels(owner: Payer, method: str) -> None:
    for path in ("", f"/{owner.channel_id}", f"/{owner.channel_id}/vouchers"):
        answer = httpx.request(method, f"{owner.user.house.url}/api/channels{path}", json={})
        assert answer.status_code in (401, 405)


@pytest.mark.parametrize("channel_id", [None, 5, "", "0x", "0x" + "AB" * 32, "0x" + "ab" * 33, "ab" * 32])
def test_what_is_no_channel_is_refused(owner: Payer, channel_id: Any) -> None:
    answer = owner.user.http.post("/api/channels", json={"channel_id": channel_id})
    assert error_of(answer, 400)["param"] == "channel_id"
    assert error_of(owner.user.http.post("/api/channels", json={"channel": "x"}), 400)
    named = owner.user.http.get(f"/api/channels/{str(channel_id) or 'none'}")
    assert error_of(named, 404)["code"] == "channel_unknown"


def test_a_channel_that_the_chain_does_not_know_is_not_there(owner: Payer) -> None:
    unknown = channel_id_of(owner.user.wallet, b"\1" * 32)
    answer = owner.user.http.post("/api/channels", json={"channel_id": unknown})
    assert error_of(answer, 404)["code"] == "channel_unknown"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"extra": 1}, 402, "voucher_malformed"),
        ({"signature": "0x00"}, 402, "voucher_malformed"),
        ({"maxClaimableAmount": 5}, 402, "voucher_malformed"),
        ({"maxClaimableAmount": str(DEPOSIT * 10**9 + 10**9)}, 402, "voucher_too_high"),
        ({"maxClaimableAmount": str(7 * 10**9)}, 402, "voucher_forged"),
        ({"channelId": "0x" + "ab" * 32}, 402, "voucher_forged"),
        ({"signature": "0x" + "11" * 65}, 402, "voucher_forged"),
    ],
)
def test_what_is_no_voucher_for_it_promises_nothing(
    owner: Payer, changes: dict[str, Any], status: int, code: str
) -> None:
    document = owner.voucher(STEP).document() | changes
    answer = owner.user.http.post(f"/api/channels/{owner.channel_id}/vouchers", json=document)
    assert error_of(answer, status)["code"] == code
    assert owner.state()["promised_units"] == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'"x"', b"{", b'{"a": ' * 2_000])
def test_a_body_that_is_no_object_is_refused(owner: Payer, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = owner.user.http.post(f"/api/channels/{owner.channel_id}/vouchers", content=body, headers=headers)
    assert error_of(answer, 400)["code"] == "invalid_argument"


def test_a_request_that_the_channel_cannot_hold_is_refused(owner: Payer) -> None:
    small = Payer(owner.user, 1_000, salt=b"\2" * 32)
    assert small.look().status_code == 200
    answer = owner.user.generate(payment=f"channel:{small.channel_id}")
    assert error_of(answer, 402)["code"] == "insufficient_balance"
    assert owner.user.balance()["held_units"] == 0
    two = owner.user.http.get("/api/channels").json()["channels"]
    assert [one["channel_id"] for one in two] == [owner.channel_id, small.channel_id]


def test_the_last_voucher_may_come_again_and_a_lower_one_may_not(request: pytest.FixtureRequest, owner: Payer) -> None:
    user: User = owner.user
    other = Payer(user, 10_000, salt=b"\3" * 32)
    other.look()
    assert [other.promise(500).status_code for _ in range(2)] == [200, 200]
    assert error_of(other.promise(499), 402)["code"] == "voucher_stale"
    assert other.state()["promised_units"] == 500
