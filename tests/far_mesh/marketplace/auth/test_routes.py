"""Every route there is, asked by everybody who may not.

The table of routes is the application's own, so a new route is found by itself. It has to be public by name here, or
take one of the values of ``auth/door.py``; with an id in its path it has to say whose the thing is.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from sqlalchemy import Executable, insert, select, update

from far_mesh.marketplace.app import create_app
from far_mesh.marketplace.auth.door import Needs
from far_mesh.marketplace.auth.principal import Role, Scope
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.payments.tables import payment_channels
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.tables import inference_sessions, node_contributions, settlement_batches
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import House, User, sign_in
from tests.far_mesh.marketplace.test_http import error
from tests.far_mesh.marketplace.test_settings import WHOLE

PUBLIC = {
    "GET /openapi.json",
    "GET /health",
    "GET /ready",
    "GET /metrics",  # decides by itself: telemetry/test_endpoints.py
    "GET /api/auth/nonce",
    "POST /api/auth/nonce",
    "POST /api/auth/login",
    "GET /api/inference/models",
    "GET /api/tiers",
    "GET /v1/models",
    "GET /v1/models/{model_id:path}",
    "POST /deposit",
    "POST /api/nodes/register-distributed",
    "POST /api/provider/nodes",
    "POST /api/nodes/register",
    "POST /nodes/register",
    "POST /api/nodes/heartbeat",
    "POST /nodes/heartbeat",
    "GET /api/discovery/nodes/active/{model_id:path}",
    "GET /api/nodes/active/{model_id:path}",
    "GET /nodes/active/{model_id:path}",
    "GET /api/nodes/{node_id}",
    "GET /api/provider/join",
    "GET /bootstrap",
}
"""What anybody may ask. Whatever is added here says something about everybody, or about what the whole chain knows."""

ALL_BUT_OPERATOR = frozenset(Scope) - {Scope.OPERATOR}


@dataclass(frozen=True)
class Thing:
    """Something that a user owns, by the path at which it is, and what one has to send there."""

    path: str
    body: dict[str, Any] | None = None


def key_of(user: User) -> Thing:
    made = user.http.post("/api/account/keys", json={"name": "mine"}).json()
    return Thing(f"/api/account/keys/{made['id']}")


def request_of(user: User) -> Thing:
    return Thing(f"/api/inference/requests/{user.generate().json()['request_id']}")


def receipts_of(user: User) -> Thing:
    return Thing(f"{request_of(user).path}/receipts")


def job_of(user: User) -> Thing:
    job = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 3}
    return Thing(f"/results/{user.http.post('/submit', json=job).json()['job_id']}")


def deliveries_of(user: User) -> Thing:
    return Thing(f"/jobs/{job_of(user).path.rpartition('/')[2]}/deliveries")


def earnings_of(user: User) -> Thing:
    return Thing(f"/api/nodes/earnings/{user.wallet}")


def batch_of(user: User) -> Thing:
    request_id, number = user.generate().json()["request_id"], 1_000_000
    batch = {
        "number": number,
        "kind": "batch",
        "detail_root": "0x" + "00" * 32,
        "requests": 1,
        "total_units": 5,
        "fee_units": 0,
        "charges": {},
        "payouts": {user.wallet: 5},
        "created_at": now(),
    }
    mine = inference_sessions.c.request_id == request_id
    session = select(inference_sessions.c.id).where(mine).scalar_subquery()
    work = update(node_contributions).where(node_contributions.c.session_id == session)
    _write(
        user,
        insert(settlement_batches).values(**batch),
        update(inference_sessions).where(mine).values(batch_number=number),
        work.values(wallet_address=user.wallet),
    )
    return Thing(f"/api/provider/batches/{number}")


def channel_of(user: User) -> Thing:
    channel_id, chain = "0x" + secrets.token_hex(32), user.house.rooms.chain
    channel = {
        "channel_id": channel_id,
        "chain_id": chain.chain_id,
        "escrow_address": chain.escrow_address,
        "user_wallet": user.wallet,
        "signer": user.wallet,
        "opened_at": now(),
        "changed_at": now(),
    }
    amounts = {"deposit_units": 10, "promised_units": 0, "earned_units": 0, "redeemed_units": 0}
    _write(user, insert(payment_channels).values(**channel, **amounts))
    return Thing(f"/api/channels/{channel_id}")


def vouchers_of(user: User) -> Thing:
    channel = channel_of(user).path
    voucher = {
        "channelId": channel.rpartition("/")[2],
        "maxClaimableAmount": str(10**9),
        "signature": "0x" + "00" * 65,
    }
    return Thing(f"{channel}/vouchers", voucher)


def _write(user: User, *statements: Executable) -> None:
    async def written() -> None:
        async with user.house.rooms.database.writing() as connection:
            for statement in statements:
                await connection.execute(statement)

    user.house.loop.do(written())


OWNED: dict[str, Callable[[User], Thing]] = {
    "DELETE /api/account/keys/{key_id}": key_of,
    "GET /api/channels/{channel_id}": channel_of,
    "DELETE /results/{job_id}": job_of,
    "GET /api/inference/requests/{request_id}": request_of,
    "GET /api/inference/requests/{request_id}/receipts": receipts_of,
    "GET /api/nodes/earnings/{wallet_address}": earnings_of,
    "GET /api/provider/batches/{number}": batch_of,
    "GET /jobs/{job_id}/deliveries": deliveries_of,
    "GET /results/{job_id}": job_of,
    "POST /api/channels/{channel_id}/vouchers": vouchers_of,
}
"""Routes with an id in the path, each with something that its user owns. To a stranger it is not there: 404."""

EVERYBODYS = {
    "GET /v1/models/{model_id:path}",
    "GET /api/discovery/nodes/active/{model_id:path}",
    "GET /api/nodes/active/{model_id:path}",
    "GET /nodes/active/{model_id:path}",
    "GET /api/nodes/{node_id}",
    "DELETE /workers/{worker_id}",
    "GET /api/operator/pools/{wallet_address}",
    "PUT /api/operator/pools/{wallet_address}",
    "GET /api/operator/tiers/{wallet_address}",
    "PUT /api/operator/tiers/{wallet_address}",
}
"""Routes with an id in the path of something that belongs to nobody, such as a model on sale."""


@dataclass(frozen=True)
class Route:
    """A method and a path, and what it needs of whoever asks: None when it asks nobody."""

    method: str
    path: str
    needs: Needs | None

    @property
    def name(self) -> str:
        """How the tables above write it."""
        return f"{self.method} {self.path}"

    @property
    def filled(self) -> str:
        """The path with something in its gaps."""
        parts = ["0" if part.startswith("{") else part for part in self.path.split("/")]
        return "/".join(parts)


def _needs(dependant: Dependant | None) -> Iterator[Needs]:
    if dependant is None:
        return
    if isinstance(dependant.call, Needs):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _needs(inner)


def strictest(found: list[Needs]) -> Needs | None:
    """A route whose parts need several things needs all of them; here they must agree."""
    assert len(set(found)) <= 1, f"a route depends on different needs: {found}"
    return found[0] if found else None


def routes_of(app: FastAPI) -> list[Route]:
    found = []
    for context in iter_route_contexts(app.routes):
        needs = strictest(list(_needs(getattr(context, "dependant", None))))
        for method in sorted(context.methods or {"*"}):
            if method != "HEAD":
                found.append(Route(method, str(context.path), needs))
    return found


@pytest.fixture(scope="module")
def app() -> FastAPI:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in WHOLE.items():
            environment.setenv(name, value)
        return create_app(Settings.read())


@pytest.fixture(scope="module")
def routes(app: FastAPI) -> list[Route]:
    return routes_of(app)


@pytest.fixture(scope="module")
def protected(routes: list[Route]) -> list[tuple[Route, Needs]]:
    return [(route, route.needs) for route in routes if route.needs is not None]


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('routes') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), MeshDouble()) as house:
        yield house.user()


@pytest.fixture(scope="module")
def nobody(user: User) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=user.house.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(user: User) -> User:
    return user.house.user(deposit=0)


def test_every_route_is_public_by_name_or_asks_who_it_is(routes: list[Route]) -> None:
    open_ones = {route.name for route in routes if route.needs is None}
    unknown = sorted(open_ones - PUBLIC)
    assert not unknown, (
        f"anybody can ask {', '.join(unknown)}. Let the endpoint take one of the values of "
        "far_mesh/marketplace/auth/door.py (Caller, InferenceCaller, AccountReader, Operator …), or, if it is meant to "
        "be public, name it in PUBLIC in this file"
    )
    gone = sorted(PUBLIC - open_ones)
    assert not gone, f"{', '.join(gone)}: no public route of this name any more; take it out of PUBLIC in this file"


def _calls(dependant: Dependant | None) -> Iterator[Callable[..., Any]]:
    if dependant is not None and dependant.call is not None:
        yield dependant.call
        for inner in dependant.dependencies:
            yield from _calls(inner)


def test_nothing_that_a_route_depends_on_takes_a_thread_for_every_request(app: FastAPI) -> None:
    """FastAPI calls what is no coroutine in a thread: a tenth of what a short request costs, for each of them."""
    contexts = list(iter_route_contexts(app.routes))
    calls = {call for context in contexts for call in _calls(getattr(context, "dependant", None))}
    threads = {call for call in calls if not iscoroutinefunction(call) and not iscoroutinefunction(type(call).__call__)}
    assert not threads, "write async def"
    assert len(calls) > 50


def test_every_route_with_an_id_says_whose_it_is(routes: list[Route]) -> None:
    with_id = {route.name for route in routes if "{" in route.path}
    unknown = sorted(with_id - OWNED.keys() - EVERYBODYS)
    assert not unknown, (
        f"{', '.join(unknown)}: there is an id in the path. Name the route in OWNED in this file, with a function that "
        "makes something that a user owns and returns its path, or in EVERYBODYS if the thing is nobody's own"
    )
    gone = sorted((OWNED.keys() | EVERYBODYS) - with_id)
    assert not gone, f"{', '.join(gone)}: no such route any more; take it out of OWNED or EVERYBODYS in this file"


def test_without_a_credential_nobody_gets_further(protected: list[tuple[Route, Needs]], nobody: httpx.Client) -> None:
    assert protected
    for (route, _), headers in itertools.product(protected, ({}, {"authorization": "Bearer x"})):
        answer = nobody.request(route.method, route.filled, headers=headers)
        assert answer.status_code == 401, f"{route.name} answers {answer.status_code} to nobody: {answer.text}"
        error(answer, 401, "unauthorized")


def test_a_credential_in_the_url_opens_nothing(
    protected: list[tuple[Route, Needs]], user: User, nobody: httpx.Client
) -> None:
    key = user.http.post("/api/account/keys", json={"name": "in the url", "scopes": sorted(ALL_BUT_OPERATOR)}).json()
    by_header = {"authorization": f"Bearer {user.token}"}
    nothing: dict[str, str] = {}
    for route, _ in protected:
        for name, credential, headers in (("api_key", key["key"], nothing), ("q", user.token, by_header)):
            answer = nobody.request(route.method, route.filled, params={name: credential}, headers=headers)
            assert answer.status_code == 401, f"{route.name} answers {answer.status_code} to a credential in its URL"
            error(answer, 401, "unauthorized")
            assert credential not in answer.text


def test_a_credential_that_was_taken_back_opens_nothing(
    protected: list[tuple[Route, Needs]], user: User, nobody: httpx.Client
) -> None:
    made = user.http.post("/api/account/keys", json={"name": "lost", "scopes": sorted(ALL_BUT_OPERATOR)}).json()
    assert user.http.delete(f"/api/account/keys/{made['id']}").status_code == 204
    token = sign_in(user.http, user.key)["token"]
    assert nobody.post("/api/auth/logout", headers={"authorization": f"Bearer {token}"}).status_code == 204
    for (route, _), credential in itertools.product(protected, (made["key"], token)):
        answer = nobody.request(route.method, route.filled, headers={"authorization": f"Bearer {credential}"})
        assert answer.status_code == 401, f"{route.name} answers {answer.status_code} to what was taken back"
        error(answer, 401, "unauthorized")


def test_the_document_says_of_each_route_whether_it_asks_who_it_is(app: FastAPI, routes: list[Route]) -> None:
    paths = app.openapi()["paths"]
    for route in routes:
        operation = paths.get(route.path.replace(":path", ""), {}).get(route.method.lower())
        if operation is not None:
            assert ("security" in operation) == (route.needs is not None), route.name


def test_a_key_without_the_scope_gets_no_further(
    protected: list[tuple[Route, Needs]], user: User, nobody: httpx.Client
) -> None:
    usual = ALL_BUT_OPERATOR
    keys: dict[Scope | None, str] = {}
    for missing in (None, *Scope):
        wanted: dict[str, Any] = {"name": "all but one", "scopes": sorted(usual - {missing})}
        keys[missing] = user.http.post("/api/account/keys", json=wanted).json()["key"]
    for route, needs in protected:
        headers = {"authorization": f"Bearer {keys[needs.scope]}"}
        answer = nobody.request(route.method, route.filled, headers=headers)
        assert answer.status_code == 403, f"{route.name} answers {answer.status_code} to a key without {needs.scope}"
        error(answer, 403, "forbidden")


def test_a_wallet_without_the_role_gets_no_further(protected: list[tuple[Route, Needs]], user: User) -> None:
    for route, needs in protected:
        if needs.role is not Role.USER:
            answer = user.http.request(route.method, route.filled)
            assert answer.status_code == 403, f"{route.name} answers {answer.status_code} to a mere user"
            error(answer, 403, "forbidden")


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_is_somebody_elses_is_not_there(name: str, user: User, stranger: User) -> None:
    method, _, _ = name.partition(" ")
    thing = OWNED[name](user)
    answer = stranger.http.request(method, thing.path, json=thing.body)
    assert answer.status_code == 404, f"{name} answers {answer.status_code} to a stranger: {answer.text}"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    answer = user.http.request(method, thing.path, json=thing.body)
    assert answer.status_code not in (404, 500), f"{name} answers {answer.status_code} to its owner: {answer.text}"


def test_these_tests_notice_a_route_that_was_forgotten() -> None:
    forgetful = FastAPI(docs_url=None, redoc_url=None)

    @forgetful.get("/secrets/{secret_id}")
    async def told(secret_id: str) -> str:
        return secret_id

    routes = routes_of(forgetful)
    with pytest.raises(AssertionError, match=r"anybody can ask GET /secrets/\{secret_id\}"):
        test_every_route_is_public_by_name_or_asks_who_it_is(routes)
    with pytest.raises(AssertionError, match=r"GET /secrets/\{secret_id\}: there is an id in the path"):
        test_every_route_with_an_id_says_whose_it_is(routes)
