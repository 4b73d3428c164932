"""The embedded chain: anvil, from the npm package ``@foundry-rs/anvil``, its state in a file.

It listens on 127.0.0.1 only and its accounts are the well-known ones of every development chain: play money.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import signal
import socket
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

import aiohttp
import psutil
from eth_account import Account

from far_mesh.marketplace.errors import AddressInUse, AnvilMissing, ChainUnavailable

CHAIN_ID = 31337
STATE_INTERVAL_SECONDS = 5
START_SECONDS = 30.0
STOP_SECONDS = 15.0
DEV_MNEMONIC = "test test test test test test test test test test test junk"


@cache
def dev_key(index: int) -> str:
    """The private key of anvil's account ``index``. Known to everybody: never for a public chain."""
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(DEV_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return str(account.key.to_0x_hex())


def find_anvil(roots: Sequence[Path] = ()) -> Path:
    """The anvil program: ``FAR_ANVIL``, then ``node_modules`` in and above the roots and here, then PATH.

    Raises:
        AnvilMissing: it is nowhere; the message says how to get it.
    """
    named = os.environ.get("FAR_ANVIL")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise AnvilMissing(f"FAR_ANVIL names {named}, which is not a program")
    for root in (*roots, Path.cwd()):
        for folder in (root.resolve(), *root.resolve().parents):
            if found := _in_node_modules(folder / "node_modules" / "@foundry-rs"):
                return found
    if on_path := shutil.which("anvil"):
        return Path(on_path)
    raise AnvilMissing("anvil is not installed: run `npm install` in the repository, or set FAR_ANVIL to the program")


def _in_node_modules(scope: Path) -> Path | None:
    system, windows = platform.system().lower().replace("windows", "win32"), platform.system() == "Windows"
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    binary = scope / f"anvil-{system}-{machine}" / "bin" / ("anvil.exe" if windows else "anvil")
    return binary if os.access(binary, os.X_OK) else None


class Anvil:
    """Owner of one anvil process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.rpc_url = ""
        """Known once it listens."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @classmethod
    async def start(cls, state: Path, *, port: int = 0, roots: Sequence[Path] = (), log: Path | None = None) -> Anvil:
        """Start anvil on 127.0.0.1 (``port`` 0: any free one) and wait until it answers.

        Raises:
            AnvilMissing: there is no such program.
            AddressInUse: the port is taken.
            ChainUnavailable: it ended, or did not answer in time.
        """
        program = find_anvil(roots)
        if port:
            _check_free(port)
        state.parent.mkdir(parents=True, exist_ok=True)
        with _appending(log) as output:
            process = await asyncio.create_subprocess_exec(
                str(program), *_arguments(state, port), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        anvil = cls(process)
        try:
            await anvil._until_it_answers()
        except BaseException:
            await anvil.stop()
            raise
        return anvil

    async def stop(self) -> None:
        """End it politely, so that it writes its state; after a while, impolitely."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def give_gas(self, wallet: str) -> None:
        """Let there be 100 native coins in ``wallet``, to pay for its transactions.

        Raises:
            ChainUnavailable: anvil does not answer.
        """
        question = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [wallet, hex(100 * 10**18)]}
        try:
            async with aiohttp.ClientSession() as session, session.post(self.rpc_url, json=question) as response:
                answer = await response.json()
        except (aiohttp.ClientError, OSError, ValueError):
            raise ChainUnavailable("anvil does not answer") from None
        if "error" in answer:
            raise ChainUnavailable(f"anvil refused to give gas: {answer['error'].get('message')}")

    async def _until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
                while not await self._answers(session):
                    if self._process.returncode is not None:
                        raise ChainUnavailable(f"anvil ended at once with exit code {self._process.returncode}")
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise ChainUnavailable(f"anvil did not answer within {START_SECONDS:.0f} s") from None

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        port = _port_of(self.pid)  # that of this one: there may be others, on ports that were free a moment ago
        if port is None:
            return False
        self.rpc_url = f"http://127.0.0.1:{port}"
        question = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        try:
            async with session.post(self.rpc_url, json=question) as response:
                answer = json.loads(await response.text())
        except (aiohttp.ClientError, OSError, ValueError):
            return False
        return bool(answer.get("result") == hex(CHAIN_ID))


def _appending(log: Path | None) -> BinaryIO:
    return open(log or os.devnull, "ab")


def _arguments(state: Path, port: int) -> list[str]:
    # The state is written at a clean end and every few seconds, so a killed process loses seconds, not everything.
    return [
        *("--state", str(state), "--state-interval", str(STATE_INTERVAL_SECONDS)),
        *("--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID)),
        *("--mnemonic", DEV_MNEMONIC, "--silent"),
    ]


def _port_of(pid: int) -> int | None:
    """Where a process, or one that it has started, listens; None: nowhere yet."""
    try:
        program = psutil.Process(pid)
        for process in (program, *program.children(recursive=True)):
            for connection in process.net_connections("tcp4"):
                if connection.status == psutil.CONN_LISTEN:
                    return int(connection.laddr.port)
    except psutil.NoSuchProcess:
        pass  # it has ended
    return None


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise AddressInUse(f"port {port} is in use; the chain cannot listen there", port=port) from None
