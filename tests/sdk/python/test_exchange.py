"""What is asked, asked again and given up, with both clients, against a server that plays scripts."""

from __future__ import annotations

import builtins
import math
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import farlabs
import httpx
import pytest
from farlabs import FarLabsError
from farlabs.exchange import retry_after_of

from tests.sdk.python.doors import Threads
from tests.support.scripted_server import Asked, Scene, ScriptedServer, hangs_up, refuses, says

JOB = {
    "job_id": "job_1",
    "status": "queued",
    "model_id": "tiny",
    "tier": "standard",
    "tokens": 0,
    "attempts": 0,
    "cancel_requested": False,
    "created_at": "2026-02-01T00:00:00Z",
}
TIER = {"wallet_address": "0x1", "tier": "standard", "allowed": ["standard"]}
NOW = {"retry_after_ms": "1"}


@pytest.fixture
def client(door: Threads, server: ScriptedServer) -> Any:
    """With an API key."""
    return door.client(server.url, api_key="sk-far-1")


def refused(door: Threads, given: Any) -> FarLabsError:
    """The error of a call."""
    with pytest.raises(FarLabsError) as wrong:
        door.do(given())
    return wrong.value


# ---- what is sent


def test_a_call_says_who_asks_and_what(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays("/submit", says(JOB, 202))
    job = door.do(client.submit_job("tiny", "Tell me", 12, temperature=0.5))
    assert (job.job_id, job.result) == ("job_1", None)
    (asked,) = server.asked
    assert (asked.method, asked.token) == ("POST", "sk-far-1")
    assert asked.json() == {"model_id": "tiny", "prompt": "Tell me", "max_tokens": 12, "temperature": 0.5}
    assert asked.key is not None


def test_names_are_escaped_and_what_is_not_given_is_not_sent(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    server.plays("/results/a%2F..%2F%3Fb", says(JOB))
    door.do(client.job_result("a/../?b", wait=1.5))
    server.plays("/api/nodes/active/meta/Llama%202", says({"model_id": "meta/Llama 2", "nodes": []}))
    refused(door, lambda: client.active_nodes("meta/Llama 2", location=(52.5, 13.4)))  # a shape that is too short
    server.plays("/api/provider/history", says({}))
    refused(door, lambda: client.reward_history(receipts=True))
    paths = [asked.path for asked in server.asked]
    assert paths == [
        "/results/a%2F..%2F%3Fb?wait=1.5",
        "/api/nodes/active/meta/Llama%202?location=52.5%2C13.4",
        "/api/provider/history?receipts=true",
    ]


def test_what_needs_no_name_is_asked_without_one(door: Threads, server: ScriptedServer) -> None:
    server.plays("/api/tiers", says({"tiers": []}))
    assert door.do(door.client(server.url, api_key="sk-far-1").tiers()).tiers == []
    assert server.asked[0].token is None


def test_without_a_credential_nothing_is_sent(door: Threads, server: ScriptedServer) -> None:
    client = door.client(server.url)
    error = refused(door, client.balance)
    assert (error.code, server.asked) == ("no_credential", [])
    assert isinstance(error, farlabs.AuthenticationError)
    assert door.do(client.sign_out()) is None
    assert server.asked == []


def test_what_cannot_be_written_is_not_sent(door: Threads, server: ScriptedServer, client: Any) -> None:
    for wrong in (object(), math.nan):
        error = refused(door, lambda value=wrong: client.submit_job("tiny", "x", temperature=value))
        assert error.code == "invalid_argument"
    assert server.asked == []


# ---- what is asked again


def test_too_many_requests_are_asked_again_when_the_gateway_says(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    server.plays("/submit", refuses(429, "rate_limited", **NOW), refuses(503, "no_route", **NOW), says(JOB, 202))
    assert door.do(client.submit_job("tiny", "x")).job_id == "job_1"
    assert len({asked.key for asked in server.asked}) == 3  # what the gateway has refused runs under no name


def test_it_is_asked_as_often_as_one_wants(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays("/submit", refuses(429, "rate_limited", "slowly", **NOW))
    error = refused(door, lambda: client.submit_job("tiny", "x"))
    assert (type(error), error.code, error.status) == (farlabs.RateLimitError, "rate_limited", 429)
    assert (error.retry, error.retry_after, error.message) == (True, 0.001, "slowly")
    assert len(server.asked) == 3
    refused(door, lambda: client.with_options(max_retries=0).submit_job("tiny", "x"))
    assert len(server.asked) == 4


def test_whoever_asked_decides_whether_to_wait_long(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays("/submit", refuses(429, "rate_limited", retry_after="3600"))
    assert refused(door, lambda: client.submit_job("tiny", "x")).retry_after == 3600
    assert len(server.asked) == 1


def test_a_key_of_ones_own_stays_and_so_does_one_that_somebody_else_refused(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    server.plays("/submit", refuses(429, "rate_limited", **NOW), says(JOB, 202))
    door.do(client.submit_job("tiny", "x", idempotency_key="order-1"))
    assert [asked.key for asked in server.asked] == ["order-1", "order-1"]
    proxy = Scene(502, (b"<html>bad gateway</html>",), {"retry-after-ms": "1", "content-type": "text/html"})
    server.plays("/submit", proxy, says(JOB, 202))
    door.do(client.submit_job("tiny", "x"))
    one, other = server.asked[2:]
    assert one.key == other.key  # it may have arrived


def test_an_answer_that_was_lost_is_asked_for_under_the_same_name(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    half = Scene(202, (b'{"job_id":',), {"content-type": "application/json"}, ends=False)
    server.plays("/submit", hangs_up(), half, says(JOB, 202))
    assert door.do(client.submit_job("tiny", "x")).job_id == "job_1"
    assert len(server.asked) == 3
    assert len({asked.key for asked in server.asked}) == 1


def test_what_changes_something_and_has_no_name_is_asked_once(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    server.plays("/api/account/keys", hangs_up())
    error = refused(door, lambda: client.create_api_key("mine"))
    assert isinstance(error, farlabs.ConnectionError)
    assert isinstance(error, builtins.ConnectionError)
    assert (error.code, error.retry, error.status) == ("connection_failed", True, None)
    assert len(server.asked) == 1


def test_what_comes_to_the_same_twice_is_asked_again(door: Threads, server: ScriptedServer, client: Any) -> None:
    answer = {"was_booked": True, "deposits": []}
    server.plays("/api/account/deposit", hangs_up(), says(answer))
    assert door.do(client.deposit("0xaa")).was_booked
    server.plays("/api/account/tier", hangs_up(), says(TIER))
    assert door.do(client.account_tier()).tier == "standard"
    assert len(server.asked) == 4


def test_nobody_there_is_said_after_some_tries(door: Threads) -> None:
    client = door.client("http://127.0.0.1:9", api_key="sk-far-1", max_retries=1)
    assert refused(door, client.balance).code == "connection_failed"


@pytest.mark.parametrize(
    ("scene", "code"),
    [
        (refuses(408, "request_timeout"), "request_timeout"),
        (refuses(500, "internal"), "internal"),
        (refuses(409, "conflict"), "conflict"),
    ],
)
def test_what_may_have_begun_is_not_asked_again(
    door: Threads, server: ScriptedServer, client: Any, scene: Scene, code: str
) -> None:
    server.plays("/submit", scene)
    assert refused(door, lambda: client.submit_job("tiny", "x")).code == code
    assert len(server.asked) == 1


def test_an_answer_that_does_not_come_in_time_is_not_waited_for(door: Threads, server: ScriptedServer) -> None:
    client = door.client(server.url, api_key="sk-far-1", timeout=1)
    slow = Scene(200, (b"{", b" ", b"}"), {"content-type": "application/json"}, pause=20)
    server.plays("/api/account/tier", slow)
    error = refused(door, client.account_tier)
    assert isinstance(error, farlabs.TimeoutError)
    assert isinstance(error, builtins.TimeoutError)
    assert (error.code, error.retry) == ("timeout", True)
    assert len(server.asked) == 1


def test_an_answer_that_drips_is_not_waited_for_either(door: Threads, server: ScriptedServer) -> None:
    client = door.client(server.url, api_key="sk-far-1", timeout=0.3)
    drops = Scene(200, (b" ",) * 1000, {"content-type": "application/json"}, pause=0.02)
    server.plays("/api/account/tier", drops)
    assert refused(door, client.account_tier).code == "timeout"


def test_as_long_as_it_takes_can_be_said(door: Threads, server: ScriptedServer) -> None:
    server.plays("/api/account/tier", says(TIER))
    assert door.do(door.client(server.url, api_key="sk-far-1", timeout=math.inf).account_tier()).tier == "standard"


# ---- what failures say


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, farlabs.InvalidRequestError),
        (401, farlabs.AuthenticationError),
        (402, farlabs.PaymentRequiredError),
        (403, farlabs.ForbiddenError),
        (404, farlabs.NotFoundError),
        (409, farlabs.ConflictError),
        (413, farlabs.InvalidRequestError),
        (500, farlabs.ServerError),
        (599, farlabs.ServerError),
    ],
)
def test_each_status_has_its_error(
    door: Threads, server: ScriptedServer, client: Any, status: int, kind: type[FarLabsError]
) -> None:
    server.plays("/api/account/tier", refuses(status, "some_code", "what to do", x_request_id="rid_1"))
    error = refused(door, client.account_tier)
    assert (type(error), error.code, error.status) == (kind, "some_code", status)
    assert (str(error), error.type, error.request_id) == ("what to do", "some_error", "rid_1")


def test_too_little_money_says_how_to_pay(door: Threads, server: ScriptedServer, client: Any) -> None:
    accepts = [{"scheme": "far-balance"}, "nonsense", {"scheme": "batch-settlement"}]
    server.plays("/submit", refuses(402, "insufficient_balance", accepts=accepts))
    error = refused(door, lambda: client.submit_job("tiny", "x"))
    assert isinstance(error, farlabs.PaymentRequiredError)
    assert [offer["scheme"] for offer in error.accepts] == ["far-balance", "batch-settlement"]
    assert len(server.asked) == 1


GARBAGE = (
    b"",
    b"<html>",
    b"[]",
    b"null",
    b"{}",
    b'{"wallet_address": 1}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"wallet_address": "0x1", "tier": ',
)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_garbage_is_an_error_of_the_family(door: Threads, server: ScriptedServer, client: Any, status: int) -> None:
    for body in GARBAGE:
        server.plays("/api/account/tier", Scene(status, (body,), {"content-type": "application/json"}))
        error = refused(door, client.account_tier)
        assert error.code == ("not_understood" if status == 200 else f"http_{status}"), body[:40]


def test_a_body_that_claims_to_be_packed_and_is_not_is_garbage(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    server.plays("/api/account/tier", Scene(200, (b"{}",), {"content-encoding": "gzip"}))
    assert refused(door, client.account_tier).code == "not_understood"


def test_an_answer_that_does_not_end_is_not_kept(
    door: Threads, server: ScriptedServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farlabs.wire.MAX_BODY_BYTES", 1000)
    server.plays("/api/account/tier", says({**TIER, "more": "x" * 2000}))
    assert refused(door, client.account_tier).code == "not_understood"


def test_what_is_new_in_an_answer_is_kept(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays("/api/account/tier", says({**TIER, "tier": "platinum", "colour": "blue"}))
    told = door.do(client.account_tier())
    assert (told.tier, told.colour, told.until) == ("platinum", "blue", None)


def test_a_redirect_is_not_followed(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays("/api/account/tier", Scene(307, (), {"location": "http://elsewhere.test/"}))
    error = refused(door, client.account_tier)
    assert (error.code, error.status) == ("redirected", 307)
    assert "elsewhere.test" in error.message


def test_that_it_cannot_serve_is_an_answer_too(door: Threads, server: ScriptedServer, client: Any) -> None:
    part = {"ok": False, "reason": "away"}
    body = {"status": "unready", "reasons": ["no nodes"], "database": part, "chain": part, "models": {}}
    server.plays("/ready", says(body, 503))
    assert door.do(client.ready()).reasons == ["no nodes"]
    assert len(server.asked) == 1


# ---- a job


def test_a_job_is_waited_for_until_it_has_ended(door: Threads, server: ScriptedServer, client: Any) -> None:
    ended = {**JOB, "status": "completed", "ended_at": "2026-02-01T00:00:09Z"}
    server.plays("/results/job_1", says(JOB), says(ended))
    assert door.do(client.wait_for_job("job_1")).status == "completed"
    assert [asked.path for asked in server.asked] == ["/results/job_1?wait=30.0"] * 2


def test_a_job_that_does_not_end_in_time_is_said_to_be_so(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays("/results/job_1", says(JOB))
    error = refused(door, lambda: client.wait_for_job("job_1", timeout=0))
    assert (type(error), error.code) == (farlabs.TimeoutError, "timeout")


# ---- how a client is made


@pytest.mark.parametrize("url", ["", "far.test", "ftp://far.test", "http://", "http://[::1", "http://far.test:0"])
def test_what_is_no_url_is_refused(door: Threads, url: str) -> None:
    with pytest.raises(FarLabsError) as wrong:
        door.client(url)
    assert wrong.value.code == "invalid_url"


def test_a_password_in_a_url_is_refused_and_not_repeated(door: Threads) -> None:
    with pytest.raises(FarLabsError) as wrong:
        door.client("https://me:hunter2@far.test")
    assert "hunter2" not in str(wrong.value)


@pytest.mark.parametrize("key", ["", "sk far", "sk-far\n", "sk-für"])
def test_what_is_no_api_key_is_refused(door: Threads, key: str) -> None:
    with pytest.raises(FarLabsError) as wrong:
        door.client("https://far.test", api_key=key)
    assert wrong.value.code == "invalid_key"


def test_a_gateway_may_live_under_a_path(door: Threads, server: ScriptedServer) -> None:
    server.plays("/far/api/account/tier", says(TIER))
    client = door.client(server.url + "/far/", api_key="sk-far-1")
    assert door.do(client.account_tier()).tier == "standard"
    assert client.api_url == server.url + "/far"


def test_one_may_bring_ones_own_http_client(door: Threads, server: ScriptedServer) -> None:
    server.plays("/api/account/tier", says(TIER))
    own: Any = httpx.Client() if type(door) is Threads else httpx.AsyncClient()
    client = door.client(server.url, api_key="sk-far-1", http_client=own)
    door.do(client.account_tier())
    door.do(client.close() if type(door) is Threads else client.aclose())
    assert not own.is_closed
    door.do(own.close() if type(door) is Threads else own.aclose())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
    ],
    ids=str,
)
def test_when_to_ask_again_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers) == seconds


def test_when_to_ask_again_may_be_a_date() -> None:
    later = datetime.fromtimestamp(time.time() + 3600, UTC)
    found = retry_after_of({"retry-after": format_datetime(later, usegmt=True)})
    assert found is not None
    assert 3000 < found <= 3600


def test_what_was_asked_is_seen_by_the_server(server: ScriptedServer, door: Threads) -> None:
    def echo(asked: Asked) -> Scene:
        return says({**TIER, "wallet_address": asked.headers["accept"]})

    server.plays("/api/account/tier", echo)
    told = door.do(door.client(server.url, api_key="sk-far-1").account_tier())
    assert told.wallet_address == "application/json"
