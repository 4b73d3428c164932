"""A marketplace with a real chain, a real database and a mesh in memory, and a user who can pay."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import uvicorn
from eth_account import Account
from eth_account.messages import encode_defunct
from sqlalchemy import select

from far_mesh.marketplace.app import create_app
from far_mesh.marketplace.chain.anvil import CHAIN_ID, Anvil, dev_key
from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.chain.deploy import Deployment, deploy
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.grpc_api.server import open_door
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.ledger import repository as books
from far_mesh.marketplace.ledger.schemas import Account as BookAccount
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.serve import Server, listening
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.tables import accounts
from tests.far_mesh.marketplace.doubles import MODEL, meshes_of

DEPLOYER, SETTLER = dev_key(0), dev_key(1)
PROMPT_PRICE, COMPLETION_PRICE = 1_000, 70_001
GAS_WEI = 10**18
NO_LIMITS = {
    "public_requests_per_minute": 0,
    "sign_ins_per_minute": 0,
    "failures_per_minute": 0,
    "account_requests_per_minute": 0,
    "tiers": {"standard": {"requests_per_minute": None, "tokens_per_minute": None}},
}
"""Tests ask from one address, and quickly."""

T = TypeVar("T")


class Loop:
    """An event loop in a thread: what is opened there stays open from one test to the next."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, act: Coroutine[Any, Any, T]) -> T:
        """Do it there and wait."""
        return asyncio.run_coroutine_threadsafe(act, self.loop).result(60)

    def close(self) -> None:
        """End the thread, and what libraries have left running in it."""
        self.do(self._end_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @staticmethod
    async def _end_tasks() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class LiveChain:
    """An anvil with both contracts on it."""

    rpc_url: str
    deployment: Deployment

    def connect(self) -> Chain:
        """A connection for the present loop."""
        return Chain(self.rpc_url, CHAIN_ID, self.deployment.token, self.deployment.escrow)

    def settings(self, **changes: Any) -> Settings:
        """Settings of a marketplace on this chain."""
        offer = {
            "model": MODEL,
            "prompt_price_units": PROMPT_PRICE,
            "completion_price_units": COMPLETION_PRICE,
        }
        values = {
            "chain_rpc_url": self.rpc_url,
            "token_address": self.deployment.token,
            "escrow_address": self.deployment.escrow,
            "settler_private_key": SETTLER,
            "jwt_secret": secrets.token_hex(32),
            "jobs_keys": [secrets.token_hex(32)],
            "deposit_poll_seconds": 0.02,
            "reconcile_seconds": 0,  # other tests use this chain and its settler too
            "unsettled_limit_units": 0,  # each request has an escrow of its own, unless a test is about the others
            "models": [offer],
            **NO_LIMITS,
            "public_domain": "far.test",
            "public_uri": "https://far.test",
        }
        return Settings.read(**(values | changes))


async def start_chain(directory: Path) -> tuple[Anvil, LiveChain]:
    """An anvil and its contracts."""
    anvil = await Anvil.start(directory / "state.json")
    deployment = await deploy(anvil.rpc_url, CHAIN_ID, DEPLOYER, address_of(SETTLER), directory / "deployment.json")
    return anvil, LiveChain(anvil.rpc_url, deployment)


async def rpc(url: str, method: str, *parameters: Any) -> Any:
    """Ask anvil itself."""
    async with httpx.AsyncClient() as client:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = (await client.post(url, json=question)).json()
    assert "error" not in answer, answer
    return answer["result"]


async def mined(url: str, transaction: Mapping[str, str]) -> dict[str, Any]:
    """The receipt of a transaction that anvil signs: it tells the hash at once, and makes the block a moment later."""
    tx_hash = await rpc(url, "eth_sendTransaction", transaction)
    while (receipt := await rpc(url, "eth_getTransactionReceipt", tx_hash)) is None:
        await asyncio.sleep(0.01)
    return dict(receipt)


async def new_user(chain: Chain, deposit: int = 0, allowance: int | None = None, key: str | None = None) -> str:
    """The key of a wallet, a fresh one unless it is given, that has deposited and consented (to all of it, unless said
    otherwise)."""
    key = key or str(Account.create().key.to_0x_hex())
    if deposit:
        await rpc(chain.rpc_url, "anvil_setBalance", address_of(key), hex(GAS_WEI))
        await ChainWallet(chain, DEPLOYER).transfer(address_of(key), deposit)
        wallet = ChainWallet(chain, key)
        await wallet.deposit(deposit)
        await wallet.allow_spending(deposit if allowance is None else allowance)
    return key


async def ledger_of(database: Database) -> dict[BookAccount, int]:
    """Every account and its balance."""
    async with database.reading() as connection:
        rows = (await connection.execute(select(accounts.c.kind, accounts.c.owner))).all()
        named = [BookAccount(Book(kind), owner) for kind, owner in rows]
        return {account: await books.balance(connection, account) for account in named}


class House:
    """A marketplace that answers on a port of its own."""

    def __init__(self, loop: Loop, live: LiveChain, settings: Settings, mesh: MeshLike) -> None:
        self.loop, self.live, self.settings, self.mesh = loop, live, settings, mesh
        self._stack = AsyncExitStack()
        self.url = ""

    def __enter__(self) -> House:
        self.loop.do(self._open())
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.loop.do(self._stack.aclose())

    async def _open(self) -> None:
        # What earlier tests deposited on the same chain is none of this house's business, and takes time to book.
        newest = int(await rpc(self.live.rpc_url, "eth_blockNumber"), 16)
        self.settings = self.settings.model_copy(update={"chain_start_block": newest + 1})
        self.app = app = create_app(self.settings, meshes_of(self.mesh))  # type: ignore[arg-type]
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        self.rooms = app.state.rooms
        door = self._stack.enter_context(listening("127.0.0.1", 0))
        server = Server(app, grace_seconds=2)
        serving = asyncio.create_task(server.serve(sockets=[door]))
        self._stack.push_async_callback(self._stop, server, serving)
        self.url = f"http://127.0.0.1:{door.getsockname()[1]}"

    @staticmethod
    async def _stop(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        server.should_exit = True
        await serving

    def open_grpc(self) -> int:
        """Answer gRPC too; gives the port."""
        return self.loop.do(self._stack.enter_async_context(open_door(self.settings, self.rooms, 0)))

    # ---- what a user does

    def user(self, deposit: int = 10**9, allowance: int | None = None, key: str | None = None) -> User:
        """Somebody who is signed in, and whose deposit has been seen."""
        key = self.loop.do(new_user(self.rooms.chain, deposit, allowance, key))
        user = User(self, key)
        if deposit:
            user.wait_for(lambda: user.balance()["deposited_units"] == deposit)
        return user

    def books(self) -> dict[BookAccount, int]:
        """All balances."""
        return self.loop.do(ledger_of(self.rooms.database))


class User:
    """A wallet with a bearer token."""

    def __init__(self, house: House, key: str) -> None:
        self.house, self.key, self.wallet = house, key, address_of(key)
        self.http = httpx.Client(base_url=house.url, timeout=20)
        self.token = sign_in(self.http, key)["token"]
        self.http.headers["authorization"] = f"Bearer {self.token}"

    def balance(self) -> dict[str, Any]:
        """``/api/account/balance``."""
        answer = self.http.get("/api/account/balance")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def generate(self, prompt: str = "Tell me a story", **changes: Any) -> httpx.Response:
        """A plain answer."""
        body = {"model_id": MODEL, "prompt": prompt, "max_tokens": 12, "stream": False}
        return self.http.post("/api/inference/distributed/generate", json=body | changes)

    def events(self, prompt: str = "Tell me a story", **changes: Any) -> list[dict[str, Any]]:
        """A streamed answer, as its events."""
        answer = self.generate(prompt, **({"stream": True} | changes))
        assert answer.status_code == 200, answer.text
        return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data")]

    def request(self, request_id: str) -> dict[str, Any]:
        """``/api/inference/requests/…``."""
        answer = self.http.get(f"/api/inference/requests/{request_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def settled(self, request_id: str) -> dict[str, Any]:
        """The same, once the chain is through with it."""
        ends = ("released", "cancelled", "failed", "none")
        self.wait_for(lambda: self.request(request_id)["settlement"]["status"] in ends)
        return self.request(request_id)

    @staticmethod
    def wait_for(condition: Any, seconds: float = 60.0) -> None:
        """Until it is so."""
        pause = threading.Event()
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            pause.wait(0.02)
        raise AssertionError("it did not come true in time")


def sign_in(http: httpx.Client, key: str) -> dict[str, Any]:
    """Nonce, signature, token."""
    offer = http.get("/api/auth/nonce", params={"wallet_address": address_of(key)}).json()
    answer = http.post("/api/auth/login", json=signed(offer["message"], key))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def signed(message: str, key: str) -> dict[str, str]:
    """The body of a login."""
    signature = Account.sign_message(encode_defunct(text=message), key).signature.to_0x_hex()
    return {"wallet_address": address_of(key), "message": message, "signature": signature}
