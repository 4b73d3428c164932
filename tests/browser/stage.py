"""A marketplace with everything real, on one machine: nodes of the bundled model, a chain, funded wallets, a gateway
that serves the dashboard.

``python -m tests.browser.stage`` keeps one up until Ctrl-C, to look at pages that have data.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import tomlkit
from eth_account import Account

from far_mesh.marketplace.chain.anvil import Anvil
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_node.control import ask, control_path
from tests.far_mesh.marketplace.house import DEPLOYER, SETTLER, LiveChain, Loop, rpc, sign_in, start_chain
from tests.support.held import GO_ON, HOLD
from tests.support.ports import free_port
from tests.support.swarm import Process, Town

MODEL = "far-demo"
SPANS = ((0, 4), (4, 8), (4, 8))
"""The end of the model has two nodes, so that one of them may go."""

PRICE_UNITS = 100_000
FAR = 10**9
GAS_WEI = 10**20
STORY = "Tell me a story about a brave rabbit."
"""Of the bundled model's answers the longest: some 130 tokens."""

NODE = "tests.support.held"
"""A real one, which can be made to stop in the middle of an answer."""

WAIT_SECONDS = 120.0
"""In vain: what is waited for comes as soon as the machine can."""


class Stage:
    """Owner of all processes; a context manager, and nothing outlives it."""

    def __init__(self, directory: Path, *, port: int = 0, spans: tuple[tuple[int, int], ...] = SPANS) -> None:
        self._directory, self._port, self._spans = directory, port, spans
        self._loop = Loop()
        self._anvil: Anvil
        self.chain: LiveChain
        self.town = Town(directory / "town")
        self.nodes: list[Process] = []
        self.user, self.provider, self.operator = (new_key() for _ in range(3))
        self.url = ""
        self._is_lived_in = False

    def __enter__(self) -> Self:
        self._anvil, self.chain = self._loop.do(start_chain(self._directory))
        try:
            for key in (self.user, self.provider, self.operator):
                self.fund(key, 1_000 * FAR)
            self.town.__enter__()
            starting = [self.start_node(span) for span in self._spans]
            gateway = self._start_gateway()
            self.url = str(gateway.wait_until_ready().ready["url"])
            self.nodes = [node.wait_until_ready() for node in starting]
            self._until_sold()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.town.close()
        self._loop.do(self._anvil.stop())
        self._loop.close()

    def start_node(self, blocks: tuple[int, int], *options: str) -> Process:
        """A node of the provider that is not waited for."""
        return self.town.start_node(MODEL, blocks, *options, wallet=address_of(self.provider), program=NODE)

    def resident(self) -> str:
        """The key of somebody who has everything to look at: nodes and what they earned, a balance, usage, a role."""
        if not self._is_lived_in:
            self.deposit(self.provider, 10 * FAR)
            self.tell(self.provider, STORY)
            self._is_lived_in = True
        return self.provider

    def fund(self, key: str, units: int) -> None:
        """Coins for gas and ``units`` of 1e-9 FAR into a wallet; nothing is deposited."""

        async def give() -> None:
            await rpc(self.chain.rpc_url, "anvil_setBalance", address_of(key), hex(GAS_WEI))
            chain = self.chain.connect()
            try:
                await ChainWallet(chain, DEPLOYER).transfer(address_of(key), units)
            finally:
                await chain.close()

        self._loop.do(give())

    def deposit(self, key: str, units: int) -> None:
        """What the account page does, without a browser: deposit, and consent to be charged."""

        async def pay() -> None:
            chain = self.chain.connect()
            try:
                wallet = ChainWallet(chain, key)
                await wallet.deposit(units)
                await wallet.allow_spending(units)
            finally:
                await chain.close()

        self._loop.do(pay())
        headers = {"authorization": f"Bearer {self.token_of(key)}"}
        with httpx.Client(base_url=self.url, timeout=WAIT_SECONDS, headers=headers) as http:
            wait_until(lambda: http.get("/api/account/balance").json()["deposited_units"] >= units)

    def tell(self, key: str, prompt: str, max_tokens: int = 48) -> dict[str, Any]:
        """An answer that is paid for by the wallet of ``key``."""
        body = {"model_id": MODEL, "prompt": prompt, "max_tokens": max_tokens, "stream": False}
        headers = {"authorization": f"Bearer {self.token_of(key)}"}
        with httpx.Client(base_url=self.url, timeout=WAIT_SECONDS, headers=headers) as http:
            answer = http.post("/api/inference/distributed/generate", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """An answer that is begun now stops after some tokens, 50 at most, and again after as many whenever what is
        given is called. At the end it goes on. A node waits for no more than a minute for another."""
        head = self.nodes[0]  # the only one for its blocks
        go_on = partial(head.send, HOLD)
        go_on()
        try:
            yield go_on
        finally:
            head.send(GO_ON)

    def lose(self, node: Process) -> None:
        """As a power cut would end it."""
        self.nodes.remove(node)
        node.kill()

    def replace(self, blocks: tuple[int, int]) -> None:
        """A new node for these blocks, which the gateway knows of."""
        self.nodes.append(self.start_node(blocks).wait_until_ready())
        with httpx.Client(base_url=self.url, timeout=WAIT_SECONDS) as http:
            wait_until(lambda: len(http.get(f"/api/nodes/active/{MODEL}").json()["nodes"]) == len(self.nodes))

    def sessions(self, node: Process) -> int:
        """How many answers a node works on."""
        path = control_path(self.town.directory / f"{node.name}.id")
        return int(ask(path, "status", timeout=WAIT_SECONDS)["open_sessions"])

    def token_of(self, key: str) -> str:
        """Signed in without a browser."""
        with httpx.Client(base_url=self.url, timeout=WAIT_SECONDS) as http:
            return str(sign_in(http, key)["token"])

    def _until_sold(self) -> None:
        """Until the gateway knows of nodes for every block."""
        with httpx.Client(base_url=self.url, timeout=WAIT_SECONDS) as http:
            wait_until(lambda: all(model["available"] for model in http.get("/api/inference/models").json()["models"]))

    def _start_gateway(self) -> Process:
        file = self._directory / "far-mesh.toml"
        file.touch(mode=0o600)
        file.write_text(tomlkit.dumps(self._settings()))
        return self.town.start("gateway", ["far_mesh.cli", "serve", "--json", "--config", str(file)])

    def _settings(self) -> dict[str, Any]:
        contracts = self.chain.deployment
        return {
            "data_dir": str(self._directory / "gateway"),
            "port": self._port or free_port(),
            "chain_rpc_url": self.chain.rpc_url,
            "token_address": contracts.token,
            "escrow_address": contracts.escrow,
            "chain_start_block": contracts.block,
            "settler_private_key": SETTLER,
            "settle_seconds": 1.0,
            "deposit_poll_seconds": 0.2,
            "jwt_secret": secrets.token_hex(32),
            "jobs_keys": [secrets.token_hex(32)],
            "operators": [address_of(self.operator), address_of(self.provider)],
            "initial_peers": self.town.initial_peers,
            "public_requests_per_minute": 0,
            "account_requests_per_minute": 0,
            "sign_ins_per_minute": 0,
            "models": [{"model": MODEL, "prompt_price_units": PRICE_UNITS, "completion_price_units": PRICE_UNITS}],
        }


def new_key() -> str:
    """Of a wallet that nobody has used."""
    return str(Account.create().key.to_0x_hex())


def wait_until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
    """Until it is so.

    Raises:
        AssertionError: it takes too long.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def main() -> None:
    """Keep one up, with a user who has paid in and a provider who has earned something."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0, help="of the gateway on 127.0.0.1; default: any")
    options.add_argument("--quiet", action="store_true", help="nobody has paid in, nothing was asked")
    chosen = options.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "FAR_CONFIG": "", "FAR_NODE_CONFIG": ""}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="far-stage-") as directory,
        Stage(Path(directory), port=chosen.port) as stage,
    ):
        if not chosen.quiet:
            stage.deposit(stage.user, 10 * FAR)
            stage.tell(stage.user, STORY)
            stage.resident()
        print(f"dashboard {stage.url}\nchain     {stage.chain.rpc_url}")
        for role, key in (("user", stage.user), ("provider", stage.provider), ("operator", stage.operator)):
            print(f"{role:9} {address_of(key)} {key}")
        print(f"swarm     {stage.town.initial_peers[0]}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
