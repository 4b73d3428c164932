"""Gateways that charge balances, on a mesh that speaks when it may: here, or in processes of their own."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account as Wallet

from far_mesh.marketplace.app import Rooms, create_app
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.inference import service as inference
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.serve import Server, listening, run
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Session
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import service as settlement
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble, meshes_of
from tests.far_mesh.marketplace.house import ledger_of, signed
from tests.support.ports import free_port

PRICE, BALANCE = 1_000, 10**9
GENERATE = "/api/inference/distributed/generate"
WISH = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": len(STORY)}
COST = len(STORY) * PRICE


def settings_of(database_url: str, **changes: Any) -> dict[str, Any]:
    """Of a gateway without payments on a chain."""
    values = {
        "database_url": database_url,
        "payment_provider": "none",
        "jwt_secret": secrets.token_hex(32),
        "models": [{"model": MODEL, "completion_price_units": PRICE}],
        "public_domain": "far.test",
        "public_uri": "https://far.test",
        "auth_cache_seconds": 60.0,
    }
    return values | changes


# ---- users


@dataclass
class User:
    """Somebody with a balance."""

    wallet: str
    http: httpx.AsyncClient

    def stream(self) -> Any:
        """Ask for the story, word by word."""
        return self.http.stream("POST", GENERATE, json=WISH)

    async def ask(self) -> httpx.Response:
        """Ask for it in one piece."""
        return await self.http.post(GENERATE, json=WISH | {"stream": False})


@asynccontextmanager
async def user_of(url: str, database: Database, key: str | None = None) -> AsyncIterator[User]:
    """A wallet that was granted a balance, signed in."""
    key = key or str(Wallet.create().key.to_0x_hex())
    wallet = Wallet.from_key(key).address
    lines = {Account(Book.CHAIN, wallet): -BALANCE, Account(Book.USER_DEPOSIT, wallet): BALANCE}
    async with database.writing() as connection:
        await ledger.adjustment(connection, f"grant of {wallet}", lines, "for a test")
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        offer = (await http.get("/api/auth/nonce", params={"wallet_address": wallet})).json()
        token = (await http.post("/api/auth/login", json=signed(offer["message"], key))).json()["token"]
        http.headers["authorization"] = f"Bearer {token}"
        yield User(wallet, http)


class Words:
    """The events of a streamed answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, Any]:
        """The next one."""
        async with asyncio.timeout(60):
            while not (line := await anext(self._lines)).startswith("data: "):
                pass
        found: dict[str, Any] = json.loads(line.removeprefix("data: "))
        return found

    async def rest(self) -> list[dict[str, Any]]:
        """All that is left."""
        async with asyncio.timeout(60):
            return [json.loads(line.removeprefix("data: ")) async for line in self._lines if line.startswith("data: ")]


# ---- the books


async def session_of(database: Database, request_id: str) -> Session:
    """A request."""
    async with database.reading() as connection:
        session = await sessions.find(connection, request_id)
    assert session is not None
    return session


async def ended(database: Database, request_id: str) -> Session:
    """A request, once it has ended in the books."""
    async with asyncio.timeout(30):
        while True:
            with suppress(DatabaseUnavailable):  # the connections of this test were cut too
                session = await session_of(database, request_id)
                if session.completed_at is not None:
                    return session
            await asyncio.sleep(0.05)


async def check_books(database: Database, wallet: str, spent: int) -> None:
    """They agree with themselves; this was charged, nothing is held."""
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()
    books = await ledger_of(database)
    assert sum(books.values()) == 0
    assert books.get(Account(Book.USER_HOLD, wallet), 0) == 0
    assert books[Account(Book.USER_DEPOSIT, wallet)] == BALANCE - spent


# ---- a gateway in this process


@dataclass
class Gateway:
    """One that answers at ``url``."""

    url: str
    rooms: Rooms
    server: Server


@asynccontextmanager
async def gateway(mesh: MeshDouble, database_url: str, **changes: Any) -> AsyncIterator[Gateway]:
    """Serve in this loop."""
    app = create_app(Settings.read(**settings_of(database_url, **changes)), meshes_of(mesh))  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        door = listening("127.0.0.1", 0)
        server = Server(app, grace_seconds=2)
        serving = asyncio.create_task(server.serve(sockets=[door]))
        try:
            yield Gateway(f"http://127.0.0.1:{door.getsockname()[1]}", app.state.rooms, server)
        finally:
            server.should_exit = True
            await serving


# ---- a gateway in a process of its own


class _FileGate(asyncio.Event):
    """Lets so many words through, and the others once a file is there."""

    def __init__(self, file: Path, words: int) -> None:
        super().__init__()
        self._file, self._left = file, words

    async def wait(self) -> Any:
        self._left -= 1
        while self._left < 0 and not self._file.exists():
            await asyncio.sleep(0.01)
        return True


def serve(settings: dict[str, Any], folder: Path, name: str, words: int, lease: float) -> None:
    """What the process does."""
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    inference.CLOSE_SECONDS = 1.0
    vars(settlement).update(LEASE_LIFETIME=timedelta(seconds=lease), TEND_SECONDS=min(3.0, lease / 5))
    mesh = MeshDouble(gate=_FileGate(folder / f"{name}.open", words))
    run(Settings.read(**settings), meshes_of(mesh), on_ready=(folder / f"{name}.ready").touch)  # type: ignore[arg-type]


@dataclass
class Process:
    """A gateway that can be frozen and told to stop."""

    url: str
    grpc: str
    child: Any
    folder: Path
    name: str

    def open_gate(self) -> None:
        """Let all words through."""
        (self.folder / f"{self.name}.open").touch()

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.child.pid, number)

    async def ready(self) -> None:
        """Until it answers."""
        async with asyncio.timeout(60):
            while not (self.folder / f"{self.name}.ready").exists():
                assert self.child.is_alive(), self.log()
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        await asyncio.to_thread(self.child.join, 60)
        return int(self.child.exitcode)

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / f"{self.name}.log").read_text()


@contextmanager
def process(
    folder: Path, name: str, settings: Mapping[str, Any], words: int = 2, lease: float = 15.0
) -> Iterator[Process]:
    """Start one, and kill what is left of it."""
    port, grpc_port = free_port(), free_port()
    said = {**settings, "gateway_name": name, "port": port, "grpc_port": grpc_port}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # what takes long to import is imported once
    child = context.Process(target=serve, args=(said, folder, name, words, lease), daemon=True)
    child.start()
    try:
        yield Process(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", child, folder, name)
    finally:
        child.kill()
        child.join()
