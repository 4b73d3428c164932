"""Every door keeps to the limits, says how they stand, and says truly when to come again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import openai
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from discovery.web.windows import PERIOD_US, Memory, monotonic_us
from far_mesh.marketplace.app import create_app
from far_mesh.marketplace.grpc_api.far_pb2 import InferRequest, ListModelsRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.marketplace.limits.door import per_address, per_sign_in
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.auth.test_routes import routes_of
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble, Turnstile
from tests.far_mesh.marketplace.house import House, sign_in, signed
from tests.far_mesh.marketplace.inference.test_endpoints import PROMPT_TOKENS
from tests.far_mesh.marketplace.mcp_api.test_door import HELLO, agent, error_of, send, session_of
from tests.far_mesh.marketplace.test_http import error
from tests.far_mesh.marketplace.test_secrecy import log as log
from tests.far_mesh.marketplace.test_settings import WHOLE
from tests.support.at_once import ask, client, tally
from tests.support.redis_server import RedisServer

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": 12}
GENERATE = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12}
SIGNATURE_OF_NOBODY = "0x" + "00" * 65
AT_NO_COST = {"GET /openapi.json"}
FOR_PROBES = {"GET /health", "GET /ready", "GET /metrics"}


def standard(**limits: int | None) -> dict[str, Any]:
    """A table of tiers in which the lowest has these limits, and no others."""
    return {"standard": {"requests_per_minute": None, "tokens_per_minute": None} | limits}


def clock_of(house: House) -> Memory:
    """Where a house counts, at a time that stands still."""
    store: Memory = house.rooms.limits._store
    at = monotonic_us() // 1000 * 1000
    store.clock = lambda: at
    return store


def go_on(store: Memory, microseconds: int) -> None:
    """It is later now."""
    at = store.clock() + microseconds
    store.clock = lambda: at


# ---- requests


def test_an_account_has_so_many_requests_a_minute_and_is_told_how_they_stand(open_house: OpenHouse) -> None:
    user = open_house(tiers=standard(requests_per_minute=3)).user()
    store = clock_of(user.house)
    for left in (2, 1):
        headers = user.generate().headers
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert headers["x-ratelimit-reset-requests"] == "1m0s"
        assert "x-ratelimit-limit-tokens" not in headers, "there is no limit"
        go_on(store, 10_500_000)
    headers = user.http.post("/v1/chat/completions", json=CHAT | {"stream": True}).headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    for path, body in (("/v1/chat/completions", CHAT), ("/api/inference/distributed/generate", GENERATE)):
        refused = user.http.post(path, json=body)
        said = error(refused, 429, "rate_limit_exceeded")
        assert said["type"] == "rate_limit_error"
        assert said["message"].endswith("ask again in 39s")
        assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("39", "39000")
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    go_on(store, 38_999_999)
    assert user.generate().headers["retry-after-ms"] == "1"
    go_on(store, 1)
    assert user.generate().status_code == 200
    assert user.house.user().generate().status_code == 200, "others have limits of their own"


def test_the_openai_client_waits_as_long_as_it_is_told_and_is_served(open_house: OpenHouse) -> None:
    user = open_house(tiers=standard(requests_per_minute=1)).user()
    store: Memory = user.house.rooms.limits._store
    client = openai.OpenAI(base_url=f"{user.house.url}/v1", api_key=user.token, max_retries=0)
    client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    store.clock = lambda: monotonic_us() + PERIOD_US - 1_500_000
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert caught.value.code == "rate_limit_exceeded"
    answer = client.with_options(max_retries=1).chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert answer.choices[0].message.content


def test_an_api_key_has_a_limit_of_its_own_below_that_of_its_account(open_house: OpenHouse) -> None:
    user = open_house(tiers=standard(requests_per_minute=3)).user()
    clock_of(user.house)
    wanted = {"name": "slow", "limits": {"requests_per_minute": 1}}
    key = user.http.post("/api/account/keys", json=wanted).json()["key"]
    with httpx.Client(base_url=user.house.url, headers={"authorization": f"Bearer {key}"}, timeout=20) as client:
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        refused = client.post("/v1/chat/completions", json=CHAT)
        error(refused, 429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-limit-requests"] == "1"
    assert user.generate().headers["x-ratelimit-remaining-requests"] == "1", "what the key was refused does not count"


def test_a_request_that_is_the_callers_mistake_counts_and_one_that_we_have_no_room_for_does_not(
    open_house: OpenHouse,
) -> None:
    mesh = MeshDouble()
    user = open_house(mesh, tiers=standard(requests_per_minute=3, tokens_per_minute=500)).user()
    clock_of(user.house)
    error(user.generate(model_id="another"), 404, "model_not_found")
    mesh.serving = ()
    error(user.generate(), 503, "no_route")
    mesh.serving = MeshDouble().serving
    assert user.generate().headers["x-ratelimit-remaining-requests"] == "1"


# ---- tokens


def test_tokens_are_taken_at_their_most_and_given_back_when_an_answer_ends(open_house: OpenHouse) -> None:
    turnstile, most = Turnstile(), PROMPT_TOKENS + 40
    house = open_house(MeshDouble(gate=turnstile), tiers=standard(requests_per_minute=3, tokens_per_minute=most + 20))
    user = house.user()
    clock_of(house)
    with user.http.stream("POST", "/v1/chat/completions", json=CHAT | {"max_tokens": 40, "stream": True}) as first:
        assert first.headers["x-ratelimit-remaining-tokens"] == "20"
        refused = user.generate(max_tokens=40)
        said = error(refused, 429, "rate_limit_exceeded")
        assert f"can come to {most} tokens" in said["message"]
        assert refused.headers["x-ratelimit-remaining-tokens"] == "20"
        assert refused.headers["retry-after"] == "60"
        turnstile.let_through(house.loop.loop, 1000)
        first.read()
    answer = user.generate(max_tokens=20)
    assert answer.status_code == 200, "of the first only what it came to counts"
    used = PROMPT_TOKENS + 12
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(most + 20 - used - PROMPT_TOKENS - 20)
    assert answer.headers["x-ratelimit-remaining-requests"] == "1", "the one that was refused does not count"


def test_what_can_never_fit_is_not_put_off(open_house: OpenHouse) -> None:
    user = open_house(tiers=standard(tokens_per_minute=PROMPT_TOKENS + 12)).user()
    refused = user.generate(max_tokens=13)
    assert error(refused, 400, "invalid_argument")["param"] == "max_tokens"
    assert "retry-after" not in refused.headers
    assert user.generate(max_tokens=12).status_code == 200


def test_an_answer_that_fails_costs_no_tokens(open_house: OpenHouse) -> None:
    mesh = MeshDouble(break_at=2)
    user = open_house(mesh, tiers=standard(tokens_per_minute=PROMPT_TOKENS + 12)).user()
    for _ in range(2):
        error(user.generate(), 502, "generation_failed")
    mesh.break_at = None
    assert user.generate().status_code == 200


# ---- the other doors


def test_over_grpc_and_mcp_the_same_limits_hold(open_house: OpenHouse) -> None:
    house = open_house(tiers=standard(requests_per_minute=1, tokens_per_minute=10_000), public_requests_per_minute=1)
    user = house.user()
    store = clock_of(house)
    with grpc.insecure_channel(f"127.0.0.1:{house.open_grpc()}") as channel:
        stub, by = FarMeshStub(channel), (("authorization", f"Bearer {user.token}"),)
        asked = InferRequest(model_id=MODEL, prompt="Tell me a story", max_tokens=12)
        _, call = stub.Infer.with_call(asked, metadata=by)
        trailers = dict(call.trailing_metadata())
        assert (trailers["x-ratelimit-limit-requests"], trailers["x-ratelimit-remaining-requests"]) == ("1", "0")
        assert trailers["x-ratelimit-limit-tokens"] == "10000"
        go_on(store, 59_750_000)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(asked, metadata=by)
        refusal: Any = caught.value
        assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_of(refusal) == 250_000
        stub.ListModels(ListModelsRequest())
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListModels(ListModelsRequest())
        assert retry_of(caught.value) == PERIOD_US
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(asked, metadata=(("authorization", "Bearer x"),))
        refusal = caught.value
        assert refusal.code() is grpc.StatusCode.UNAUTHENTICATED

    async def ask() -> dict[str, Any]:
        async with agent(user) as client:
            return error_of(await client.call_tool("generate", GENERATE))

    said = asyncio.run(ask())
    assert (said["code"], said["type"], said["retry_after"]) == ("rate_limit_exceeded", "rate_limit_error", 0.25)
    assert said["message"].endswith("ask again in 250ms")


def test_no_wallet_has_all_the_sessions_of_mcp(open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_mesh.marketplace.mcp_api.door.MAX_SESSIONS_OF_ONE", 2)
    house = open_house()
    user, other = house.user(deposit=0), house.user(deposit=0)
    first, _ = session_of(user), session_of(user)
    assert "end one with DELETE" in error(send(user, HELLO), 429, "rate_limit_exceeded")["message"]
    session_of(other)
    assert send(user, b"", method="DELETE", mcp_session_id=first).status_code == 200
    session_of(user)


def retry_of(refusal: Any) -> int:
    """Microseconds, as ``RetryInfo`` says."""
    details = Status.FromString(dict(refusal.trailing_metadata())["grpc-status-details-bin"]).details
    info = RetryInfo()
    (packed,) = (one for one in details if one.Is(RetryInfo.DESCRIPTOR))
    packed.Unpack(info)
    microseconds: int = info.retry_delay.ToMicroseconds()
    return microseconds


def test_an_account_asks_for_other_things_so_many_times_a_minute(open_house: OpenHouse) -> None:
    user = open_house(account_requests_per_minute=3).user(deposit=0)
    clock_of(user.house)
    user.house.rooms.limits._store._windows.clear()
    assert user.http.get("/api/account/balance").headers["x-ratelimit-remaining-requests"] == "2"
    assert user.http.post("/api/inference/quote", json=GENERATE).status_code == 200
    error(user.http.get("/api/inference/requests/another"), 404, "request_not_found")
    for path in ("/api/account/keys", "/api/inference/requests/another"):
        refused = user.http.get(path)
        error(refused, 429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "60"


# ---- addresses


@dataclass(frozen=True)
class Street:
    """A gateway behind a proxy, and who asks it through that."""

    house: House
    store: Memory

    def models(self, forwarded: str) -> int:
        return self._ask("GET", "/v1/models", forwarded).status_code

    def login(self, forwarded: str, body: dict[str, str]) -> httpx.Response:
        return self._ask("POST", "/api/auth/login", forwarded, json=body)

    def bearer(self, forwarded: str, credential: str) -> httpx.Response:
        with httpx.Client(base_url=self.house.url, timeout=20) as client:
            headers = {"x-forwarded-for": forwarded, "authorization": f"Bearer {credential}"}
            return client.get("/api/account/balance", headers=headers)

    def _ask(self, method: str, path: str, forwarded: str, **what: Any) -> httpx.Response:
        return httpx.request(method, self.house.url + path, headers={"x-forwarded-for": forwarded}, timeout=20, **what)


@pytest.fixture(scope="module")
def opened_street(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('limits') / 'm.db'}"
    limits = {"public_requests_per_minute": 2, "sign_ins_per_minute": 9, "failures_per_minute": 2}
    settings = live.settings(database_url=url, trusted_proxies=["127.0.0.0/8"], **limits)
    with House(loop, live, settings, MeshDouble()) as house:
        yield Street(house, clock_of(house))


@pytest.fixture
def street(opened_street: Street) -> Street:
    opened_street.store._windows.clear()
    return opened_street


def test_whoever_asks_through_a_proxy_is_counted_by_the_address_that_it_names(street: Street) -> None:
    assert [street.models("203.0.113.7") for _ in range(3)] == [200, 200, 429]
    assert street.models("203.0.113.8") == 200
    assert street.models("198.51.100.1, 203.0.113.7") == 429, "what stands before was said by 203.0.113.7"
    go_on(street.store, PERIOD_US)
    assert street.models("203.0.113.7") == 200


def test_all_addresses_of_a_subscriber_of_ipv6_are_one(street: Street) -> None:
    hosts = (":1", ":2", "ffff:1:1:1")
    assert [street.models(f"2001:db8:1:2:{host}") for host in hosts] == [200, 200, 429]
    assert street.models("2001:db8:1:3::1") == 200


def test_who_is_not_trusted_cannot_say_to_be_somebody_else(open_house: OpenHouse) -> None:
    with httpx.Client(base_url=open_house(public_requests_per_minute=2).url, timeout=20) as client:
        named = [{"x-forwarded-for": f"203.0.113.{host}"} for host in range(2)] + [{"forwarded": "for=203.0.113.9"}]
        answers = [client.get("/v1/models", headers=headers) for headers in named]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
    error(answers[2], 429, "rate_limit_exceeded")
    assert 59 <= int(answers[2].headers["retry-after"]) <= 60


def test_what_needs_no_credential_has_a_limit_per_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    app = create_app(Settings.read())
    open_ones = {route.name for route in routes_of(app) if route.needs is None}
    without = sorted(open_ones - AT_NO_COST - FOR_PROBES - limited_routes(app))
    assert not without, (
        f"anybody can ask {', '.join(without)} as often as they like: give the route dependencies=[PerAddress] of "
        "far_mesh/marketplace/limits/door.py"
    )


def limited_routes(app: FastAPI) -> set[str]:
    found = set()
    for context in iter_route_contexts(app.routes):
        calls = {one.call for one in getattr(getattr(context, "dependant", None), "dependencies", ())}
        if calls & {per_address, per_sign_in}:
            found |= {f"{method} {context.path}" for method in context.methods or ()}
    return found


# ---- signing in


def test_an_address_asks_to_sign_in_so_many_times_a_minute(street: Street) -> None:
    path, wallet = street.house.url + "/api/auth/nonce", {"wallet_address": "0x" + "11" * 20}
    headers = {"x-forwarded-for": "203.0.113.7"}
    statuses = [httpx.get(path, params=wallet, headers=headers).status_code for _ in range(5)]
    statuses += [httpx.post(path, json=wallet, headers=headers).status_code for _ in range(5)]
    assert statuses == [200] * 9 + [429]
    assert httpx.post(path, json=wallet).status_code == 200


def test_where_sign_ins_have_failed_the_next_is_not_looked_at(street: Street) -> None:
    key = "0x" + "17" * 32
    with httpx.Client(base_url=street.house.url, timeout=20) as client:
        message = client.get("/api/auth/nonce", params={"wallet_address": signed("", key)["wallet_address"]}).json()
        right = signed(message["message"], key)
        wrong = right | {"signature": SIGNATURE_OF_NOBODY}
        assert [street.login("203.0.113.7", wrong).status_code for _ in range(3)] == [401, 401, 429]
        refused = street.login("203.0.113.7", right)
        assert "sign-ins of your address have failed" in error(refused, 429, "rate_limit_exceeded")["message"]
        assert street.login("203.0.113.8", right).status_code == 200, "the right one was not used up"
        for _ in range(3):
            sign_in(client, key)  # from the proxy itself: those that succeed do not count as failed


async def test_of_many_guesses_at_once_as_many_are_looked_at_as_may_fail(street: Street) -> None:
    body = signed("no sign-in message", "0x" + "18" * 32)
    headers = {"x-forwarded-for": "203.0.113.7"}
    async with httpx.AsyncClient(base_url=street.house.url, timeout=20) as client:
        asked = (client.post("/api/auth/login", json=body, headers=headers) for _ in range(9))
        statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert (statuses.count(401), statuses.count(429)) == (2, 7)


def test_credentials_that_are_none_are_counted_and_those_of_neighbours_still_pass(street: Street) -> None:
    token = street.house.user(deposit=0).token
    for credential in ("x", "sk-far-another"):
        error(street.bearer("203.0.113.7", credential), 401, "unauthorized")
    error(street.bearer("203.0.113.7", "x"), 429, "rate_limit_exceeded")
    assert street.bearer("203.0.113.7", token).status_code == 200
    error(street.bearer("203.0.113.8", "x"), 401, "unauthorized")


# ---- several gateways


async def asked_at_once(houses: list[House], token: str, count: int) -> Counter[str]:
    """So many requests in one moment, each at the next gateway, by how they ended."""
    callers, body = [client(house.app, token) for house in houses], GENERATE | {"stream": False}
    answers = await asyncio.gather(*(ask(callers[number % len(callers)], body) for number in range(count)))
    for caller in callers:
        await caller.aclose()
    return tally(answers)


@pytest.mark.parametrize("where", ["memory", "redis"])
def test_of_200_requests_at_once_as_many_are_served_as_are_allowed(
    where: str, open_house: OpenHouse, request: pytest.FixtureRequest
) -> None:
    shared: dict[str, Any] = {"tiers": standard(requests_per_minute=3), "jwt_secret": "x" * 32}
    if where == "redis":
        shared["redis_url"] = request.getfixturevalue("redis_url")
    houses = [open_house(gateway_name="first", **shared)]
    if where == "redis":
        houses.append(open_house(gateway_name="second", **shared))
    token, loop = houses[0].user().token, houses[0].loop
    assert loop.do(asked_at_once(houses, token, 200)) == {"served": 3, "rate_limit_exceeded": 197}


def test_redis_may_go_and_come_back(open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, log: Any) -> None:
    monkeypatch.setattr("far_mesh.marketplace.limits.shared.AWAY_SECONDS", 0.1)
    with RedisServer() as server:
        house = open_house(redis_url=server.url, tiers=standard(requests_per_minute=3, tokens_per_minute=10_000))
        user = house.user()
        assert user.generate().headers["x-ratelimit-remaining-requests"] == "2"
        server.stop()
        answers = [user.generate() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429], "a gateway alone has the same limit"
        assert answers[0].headers["x-ratelimit-remaining-requests"] == "2"
        server.start()
        user.wait_for(lambda: user.generate().status_code == 200)
        assert user.generate().headers["x-ratelimit-remaining-requests"] == "1", "Redis counts again, from nothing"
    lines = log.getvalue()
    assert lines.count("limits_not_shared") == lines.count("limits_shared_again") == 1
    assert "request_broke" not in lines
