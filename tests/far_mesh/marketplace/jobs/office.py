"""A marketplace without a chain, with jobs and with receivers of their webhooks, in the loop of the test."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from eth_account import Account
from fastapi import FastAPI
from sqlalchemy import func, select

from far_mesh.marketplace.app import Rooms, create_app
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account as BookAccount
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.tables import inference_sessions, postings
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble, meshes_of
from tests.far_mesh.marketplace.house import ledger_of, signed

DEPOSIT = 10**9
KEY, OTHER_KEY = "11" * 32, "22" * 32


def settings_of(database_url: str, **changes: Any) -> dict[str, Any]:
    """The settings of a marketplace with jobs, as one gives them."""
    values = {
        "database_url": database_url,
        "payment_provider": "none",
        "jwt_secret": "a secret that is long enough for HS256",
        "models": [{"model": MODEL, "prompt_price_units": 1_000, "completion_price_units": 70_001}],
        "public_domain": "far.test",
        "public_uri": "https://far.test",
        "gateway_name": "here",
        "jobs_keys": [KEY],
        "outbound_networks": ["127.0.0.0/8"],
        "outbound_http": True,
        "account_requests_per_minute": 0,
    }
    return values | changes


class Office:
    """A gateway that is open, and its HTTP door."""

    def __init__(self, app: FastAPI, mesh: MeshDouble) -> None:
        self.app, self.mesh = app, mesh
        self.rooms: Rooms = app.state.rooms
        self.nobody = self.client()

    def client(self) -> httpx.AsyncClient:
        """Somebody who asks."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://far.test", timeout=90)

    async def user(self, deposit: int = DEPOSIT) -> User:
        """Somebody who is signed in and can pay."""
        key = str(Account.create().key.to_0x_hex())
        client = self.client()
        wallet = Account.from_key(key).address
        offer = (await client.post("/api/auth/nonce", json={"wallet_address": wallet})).json()
        answer = await client.post("/api/auth/login", json=signed(offer["message"], key))
        assert answer.status_code == 200, answer.text
        client.headers["authorization"] = f"Bearer {answer.json()['token']}"
        if deposit:
            await pay_in(self.rooms.database, wallet, deposit)
        return User(client, wallet)


@asynccontextmanager
async def office(database_url: str, mesh: MeshLike | None = None, **changes: Any) -> AsyncIterator[Office]:
    """Open one."""
    made = mesh or MeshDouble()
    app = create_app(Settings.read(**settings_of(database_url, **changes)), meshes_of(made))  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        opened = Office(app, made)  # type: ignore[arg-type]
        yield opened
        await opened.nobody.aclose()


async def pay_in(database: Database, wallet: str, units: int) -> None:
    """Money for a wallet."""
    async with database.writing() as connection:
        await ledger.deposit_seen(connection, wallet, units, f"of {wallet}")


@dataclass
class User:
    """A wallet with a bearer token."""

    http: httpx.AsyncClient
    wallet: str

    async def submit(self, prompt: str = "Tell me a story", **more: Any) -> httpx.Response:
        """Hand in a job."""
        headers = {"idempotency-key": more.pop("name")} if "name" in more else {}
        body = {"model_id": MODEL, "prompt": prompt, "max_tokens": 12} | more
        return await self.http.post("/submit", json=body, headers=headers)

    async def submitted(self, prompt: str = "Tell me a story", **more: Any) -> str:
        """The same; its id."""
        answer = await self.submit(prompt, **more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def result(self, job_id: str, wait: float = 60.0) -> dict[str, Any]:
        """How it is, or how it ended."""
        answer = await self.http.get(f"/results/{job_id}", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, job_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """How it is once that is so."""
        async with asyncio.timeout(60):
            while not condition(state := await self.result(job_id, wait=0)):
                await asyncio.sleep(0.02)
        return state

    async def balance(self) -> int:
        """Units that can be spent."""
        answer = (await self.http.get("/api/account/balance")).json()
        return int(answer["available_units"])


async def money(database: Database, wallet: str) -> dict[str, int]:
    """What is available and held, how often anything was captured, and how many requests there were; the books must
    agree with themselves."""
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()
        query = select(func.count()).where(postings.c.kind == "capture")
        captures = (await connection.execute(query)).scalar_one()
        mine = select(func.count()).where(inference_sessions.c.user_wallet == wallet)
        requests = (await connection.execute(mine)).scalar_one()
    books = await ledger_of(database)
    available = books.get(BookAccount(Book.USER_DEPOSIT, wallet), 0)
    held = sum(units for account, units in books.items() if account.kind is Book.USER_HOLD)
    return {"available": available, "held": held, "captures": captures, "requests": requests}


@dataclass
class Receiver:
    """Somebody's server, to which webhooks are sent. It answers with ``statuses`` in turn, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook?token=of-mine"

    async def messages(self, number: int) -> list[dict[str, Any]]:
        """So many bodies, once they are there."""
        async with asyncio.timeout(60):
            while len(self.got) < number:
                await asyncio.sleep(0.02)
        return [json.loads(body) for _, body in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One message."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.strip().split("\r\n")[1:]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((headers, body))
        status = self.statuses[min(len(self.got), len(self.statuses)) - 1]
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[Receiver]:
    """Open one."""
    made = Receiver(list(statuses) or [200])
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """As who receives it checks it, by the letter of the standard."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, said, "sha256").digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


def some_id() -> str:
    """An id of a job that nobody has."""
    return "job_" + secrets.token_hex(12)
