"""Some doors are for some wallets alone, and a key passes them only with the scope and on behalf of such a wallet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from eth_account import Account
from fastapi import Depends, FastAPI
from sqlalchemy import insert

from discovery.protocol.ids import Wallet
from discovery.web.windows import Memory
from far_mesh.marketplace import http
from far_mesh.marketplace.auth.door import Caller, Needs, Operator
from far_mesh.marketplace.auth.principal import Role, Scope
from far_mesh.marketplace.auth.service import Audience, AuthService
from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.keys.schemas import NewKey
from far_mesh.marketplace.keys.service import KeyService
from far_mesh.marketplace.limits.schemas import PerMinute
from far_mesh.marketplace.limits.service import RateLimits
from far_mesh.marketplace.tables import node_registry
from far_mesh.marketplace.tiers.schemas import TierTable
from far_mesh.marketplace.tiers.service import TierService
from tests.far_mesh.marketplace.house import signed

USER, PROVIDER, OPERATOR = ("0x" + digit * 64 for digit in "123")
HERE = Audience("far.test", "https://far.test", 31337, 300)


def wallet_of(key: str) -> Wallet:
    return Wallet(Account.from_key(key).address)


class Doors:
    """An application with a door for each role, and the service that knows who comes."""

    def __init__(self, database: Database) -> None:
        self.keys = KeyService(database, 0)
        tokens = Tokens("a secret that is long enough for HS256", HERE.uri, 3600)
        self.service = AuthService(database, tokens, HERE, self.keys, operators=frozenset({wallet_of(OPERATOR)}))
        self.app = FastAPI()
        http.install(self.app, 10_000, body_seconds=10.0)
        limits = RateLimits(Memory(), TierService(database, TierTable(), 0), self.keys, PerMinute())
        self.app.state.rooms = SimpleNamespace(auth=self.service, limits=limits)
        self.app.state.trusted_proxies = ()

        @self.app.get("/user")
        async def user(wallet: Caller) -> str:
            return wallet

        @self.app.get("/provider", dependencies=[Depends(Needs(Scope.PROVIDER, Role.PROVIDER))])
        async def provider() -> str:
            return "come in"

        @self.app.get("/operator")
        async def operator(wallet: Operator) -> str:
            return wallet

    async def token(self, key: str) -> str:
        """What the wallet gets for signing in."""
        return (await self.service.login(**signed((await self.service.offer(wallet_of(key))).text(), key)))[1].text

    async def key(self, owner: str, *scopes: Scope) -> str:
        """An API key of the wallet."""
        who = await self.service.principal_of(await self.token(owner))
        return (await self.keys.make(who, NewKey("k", frozenset(scopes), None, None)))[1]

    async def answers(self, bearer: str) -> list[int]:
        """What the doors for users, providers and operators say."""
        headers = {"authorization": f"Bearer {bearer}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://far.test", headers=headers
        ) as client:
            found = [await client.get(path) for path in ("/user", "/provider", "/operator")]
        assert all(answer.json()["error"]["code"] == "forbidden" for answer in found if answer.status_code == 403)
        return [answer.status_code for answer in found]


@pytest.fixture
async def doors(sqlite_url: str) -> AsyncIterator[Doors]:
    database = Database(sqlite_url)
    node = {"node_id": "n", "wallet_address": wallet_of(PROVIDER), "model_id": "tiny", "registered_at": now()}
    async with database.writing() as connection:
        await connection.execute(
            insert(node_registry).values(**node, is_active=True, total_tokens_served=0, total_earned_units=0)
        )
    yield Doors(database)
    await database.close()


@pytest.mark.parametrize(
    ("key", "answers"),
    [(USER, [200, 403, 403]), (PROVIDER, [200, 200, 403]), (OPERATOR, [200, 403, 200])],
    ids=["user", "provider", "operator"],
)
async def test_a_wallet_that_signed_in_passes_the_doors_of_its_roles(
    doors: Doors, key: str, answers: list[int]
) -> None:
    assert await doors.answers(await doors.token(key)) == answers


async def test_a_key_needs_the_scope_and_a_wallet_with_the_role(doors: Doors) -> None:
    assert await doors.answers(await doors.key(USER, Scope.PROVIDER)) == [403, 403, 403]
    assert await doors.answers(await doors.key(PROVIDER, Scope.PROVIDER)) == [403, 200, 403]
    assert await doors.answers(await doors.key(PROVIDER, Scope.INFERENCE)) == [403, 403, 403]
    assert await doors.answers(await doors.key(OPERATOR, Scope.OPERATOR)) == [403, 403, 200]
    assert await doors.answers(await doors.key(OPERATOR, Scope.INFERENCE)) == [403, 403, 403]
