"""Is the discovery service quick, small and right with thousands of nodes?

    python -m benchmarks.discovery_load [--nodes 5000] [--models 20] [--rate 40] [--seconds 300]

Simulated nodes sign announcements with keys of their own and renew them every 30 s. The service runs in a process of
its own, as its command runs it; only the DHT is a double, which hands over all records at each reading, as a DHT would,
so that they are read and checked by the code that reads a DHT. Clients ask on a clock, whether answers are late or not;
a latency counts from when a question was due. Then a tenth of the nodes fall silent, and at the end everybody who is
told is compared with everybody who should be.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgpack
import psutil
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.utils import ValueWithExpiration

from benchmarks.support.report import commit, keep
from discovery.console import settle_memory
from discovery.dht.board import Board
from discovery.dht.keys import places_of
from discovery.protocol.announcement import LIFETIME_SECONDS, RENEW_SECONDS, Announcement, sign_announcement
from discovery.protocol.ids import check_wallet, peer_id_of
from discovery.service.app import create_app
from discovery.service.follower import BoardLike
from discovery.service.settings import Settings
from discovery.web.server import Server, listening

FOLLOW_SECONDS = 10.0
BLOCKS, SPAN = 80, 8
CONNECTIONS = 16
SILENT_SHARE = 0.1
CITIES = ((52, 13), (49, 2), (51, 0), (41, -74), (37, -122), (36, 140), (1, 104), (-34, 151), (-23, -46), (19, 73))
REGIONS = ("eu-central", "eu-west", "eu-north", "us-east", "us-west", "ap-ne", "ap-se", "oc", "sa", "ap-south")


# ---- the service, in a process of its own


class DoubleNode:
    """What :class:`Board` needs of a DHT node: asks the feeder for the records under a key."""

    def __init__(self, feeder: tuple[str, int]) -> None:
        self._feeder = feeder

    async def get_many(self, keys: Sequence[str], **_options: Any) -> dict[str, ValueWithExpiration]:
        """All that stands under some keys."""
        return {key: await self._get(key) for key in keys}

    async def _get(self, key: str) -> ValueWithExpiration:
        reader, writer = await asyncio.open_connection(*self._feeder)
        writer.write(len(key).to_bytes(4) + key.encode())
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        raw = await reader.readexactly(size)
        writer.close()
        records = {subkey: ValueWithExpiration(value, ends) for subkey, value, ends in msgpack.unpackb(raw)}
        return ValueWithExpiration(records, float("inf"))


async def serve(feeder: tuple[str, int], folder: str) -> None:
    """Run the service until its standard input ends."""
    settings = Settings(data_dir=Path(folder), port=0, requests_per_minute=0, follow_seconds=FOLLOW_SECONDS)

    @asynccontextmanager
    async def open_board(_settings: Settings) -> AsyncIterator[tuple[BoardLike, tuple[str, ...]]]:
        yield Board(DoubleNode(feeder), settings.dht_prefix), ()

    app = create_app(settings, open_board)
    with listening(settings.host, 0) as door:
        url = f"http://{settings.host}:{door.getsockname()[1]}"
        async with app.router.lifespan_context(app):
            server = Server(app, lambda: print(url, flush=True), settings.max_connections, lifespan="off")
            settle_memory()
            serving = asyncio.create_task(server.serve(sockets=[door]))
            await asyncio.to_thread(sys.stdin.read)
            await server.stop()
            await serving


# ---- the nodes


@dataclass
class Node:
    """A simulated node, and when it announced itself last."""

    key: Ed25519PrivateKey
    announcement: Announcement
    due: float
    document: bytes = b""

    def renew(self, now: int) -> None:
        """Announce itself anew."""
        fresh = {"issued_at": now, "expires_at": now + LIFETIME_SECONDS}
        self.announcement = self.announcement.model_copy(update=fresh)
        self.document = sign_announcement(self.announcement, self.key).to_bytes()
        self.due = now + RENEW_SECONDS


@dataclass
class Swarm:
    """All of them, and the records that a DHT would have."""

    nodes: list[Node]
    records: dict[str, dict[str, tuple[bytes, float]]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, count: int, models: int) -> Swarm:
        """So many nodes, of which each serves eight blocks of one of so many models."""
        now = int(time.time())
        nodes = []
        for number in range(count):
            key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"node {number}".encode()).digest())
            place, model = number % len(CITIES), number % models
            first = number // models * SPAN % BLOCKS
            about = Announcement(
                peer_id=peer_id_of(key.public_key()),
                wallet=check_wallet("0x" + hashlib.sha256(f"wallet {number}".encode()).hexdigest()[:40]),
                model_id=f"far/model-{model}",
                model_digest=hashlib.sha256(f"model {model}".encode()).hexdigest(),
                block_count=BLOCKS,
                first_block=first,
                end_block=first + SPAN,
                quantization="nf4",
                dtype="bfloat16",
                maddrs=(f"/ip4/198.51.100.{number % 250}/tcp/31330",),
                software="far-mesh/benchmark",
                issued_at=now,
                expires_at=now + 1,
                block_ms=1.5,
                region=REGIONS[place],
                location=CITIES[place],
            )
            nodes.append(Node(key, about, now + number % RENEW_SECONDS))
        swarm = cls(nodes)
        for node in nodes:
            swarm.publish(node, now)
            node.due = now + random.uniform(0, RENEW_SECONDS)
        return swarm

    def publish(self, node: Node, now: int) -> None:
        """A node announces itself."""
        node.renew(now)
        for key, subkey in places_of("far", node.announcement).items():
            self.records.setdefault(key, {})[subkey] = node.document, float(node.announcement.expires_at)

    async def live(self) -> None:
        """Renew what is due, for ever."""
        while True:
            now = time.time()
            for node in self.nodes:
                if node.due <= now and node.announcement.peer_id not in self.silent:
                    self.publish(node, int(now))
            await asyncio.sleep(0.25)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell the double of the DHT what stands under a key."""
        size = int.from_bytes(await reader.readexactly(4))
        key, now = (await reader.readexactly(size)).decode(), time.time()
        found = [(subkey, *value) for subkey, value in self.records.get(key, {}).items() if value[1] > now]
        raw = msgpack.packb(found)
        writer.write(struct.pack(">I", len(raw)) + raw)
        await writer.drain()
        writer.close()


# ---- the clients


@dataclass
class Asked:
    """What came of questions, by their kind."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: int = 0
    tags: dict[str, str] = field(default_factory=dict)


def question(swarm: Swarm, models: int) -> tuple[str, str]:
    """Something that clients ask: its kind and its path."""
    model = f"far/model-{random.randrange(models)}"
    node = random.choice(swarm.nodes).announcement.peer_id
    near = "{},{}".format(*random.choice(CITIES))
    return random.choices(
        [
            ("active", f"/nodes/active/{model}"),
            ("active near", f"/nodes/active/{model}?location={near}&max_distance_km=2000"),
            ("active signed", f"/nodes/active/{model}?signed=true"),
            ("coverage", f"/coverage/{model}"),
            ("node", f"/nodes/{node}"),
            ("models", "/models"),
            ("bootstrap", "/bootstrap"),
        ],
        weights=[30, 20, 10, 15, 15, 5, 5],
    )[0]


async def ask(client: httpx.AsyncClient, asked: Asked, kind: str, path: str, due: float) -> None:
    """Ask, and note how long after ``due`` the answer was whole."""
    headers = {"if-none-match": asked.tags[path]} if path in asked.tags else {}
    try:
        answer = await client.get(path, headers=headers)
    except httpx.HTTPError:
        asked.failures += 1
        return
    asked.seconds.setdefault(kind, []).append(time.perf_counter() - due)
    asked.failures += answer.status_code not in (200, 304)
    if "etag" in answer.headers:
        asked.tags[path] = answer.headers["etag"]


async def everybody(client: httpx.AsyncClient, models: int) -> set[str]:
    """All nodes that are told to be active, page by page."""
    found: set[str] = set()
    for model in range(models):
        cursor = ""
        while True:
            page = (await client.get(f"/nodes/active/far/model-{model}?limit=1000{cursor}")).json()
            found |= {node["node_id"] for node in page["nodes"]}
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    return {"count": len(seconds)} | {f"p{at}_ms": round(cuts[at - 1] * 1000, 2) for at in (50, 95, 99)}


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole run."""
    swarm = Swarm.of(arguments.nodes, arguments.models)
    with tempfile.TemporaryDirectory() as folder:
        feeding = await asyncio.start_server(swarm.answer, "127.0.0.1", 0)
        port = feeding.sockets[0].getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.discovery_load", "--feeder", str(port), "--folder", folder]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert process.stdout is not None
        assert process.stdin is not None
        living = asyncio.create_task(swarm.live())
        try:
            url = (await process.stdout.readline()).decode().strip()
            limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
            async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
                return await _measure(arguments, swarm, client, psutil.Process(process.pid))
        finally:
            living.cancel()
            process.stdin.close()
            await asyncio.wait_for(process.wait(), 120)
            feeding.close()


async def _measure(
    arguments: argparse.Namespace, swarm: Swarm, client: httpx.AsyncClient, service: psutil.Process
) -> dict[str, Any]:
    started = time.perf_counter()
    while (await client.get("/ready")).json()["announcements"] < len(swarm.nodes):  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.2)
    filled = time.perf_counter() - started
    asked, memory, tasks = Asked(), [service.memory_info().rss], set[asyncio.Task[None]]()
    first, count = time.perf_counter(), int(arguments.seconds * arguments.rate)
    for number in range(count):
        due = first + number / arguments.rate
        if number == count // 3:
            some = random.sample(swarm.nodes, int(len(swarm.nodes) * SILENT_SHARE))
            swarm.silent = {node.announcement.peer_id for node in some}
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(ask(client, asked, *question(swarm, arguments.models), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if number % 50 == 0:
            memory.append(service.memory_info().rss)
    await asyncio.gather(*tasks)
    processor = service.cpu_times()
    took = time.perf_counter() - first
    last = max(node.announcement.expires_at for node in swarm.nodes if node.announcement.peer_id in swarm.silent)
    await asyncio.sleep(max(0.0, last - time.time() + 0.01))
    before = time.time()
    told = await everybody(client, arguments.models)
    should = {one.announcement.peer_id for one in swarm.nodes if one.announcement.expires_at > before}
    every = [second for seconds in asked.seconds.values() for second in seconds]
    return {
        "nodes": len(swarm.nodes),
        "models": arguments.models,
        "questions_per_second": arguments.rate,
        "seconds": round(took, 1),
        "filled_after_seconds": round(filled, 2),
        "all": percentiles(every),
        "by_kind": {kind: percentiles(seconds) for kind, seconds in sorted(asked.seconds.items())},
        "failures": asked.failures,
        "memory_mb": {"first": memory[0] // 2**20, "most": max(memory) // 2**20, "last": memory[-1] // 2**20},
        "processor_share": round((processor.user + processor.system) / (took + filled), 3),
        "fell_silent": len(swarm.silent),
        "told_though_expired": len(told & swarm.silent),
        "missing_though_live": len(should - told),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--rate", type=float, default=40.0, help="questions a second")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--feeder", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.feeder is not None:
        uvloop.run(serve(("127.0.0.1", arguments.feeder), arguments.folder))
        return
    random.seed(1)
    of_commit, command = commit(), f"python -m benchmarks.discovery_load {' '.join(sys.argv[1:])}".strip()
    results = asyncio.run(measure(arguments))
    print(json.dumps(results, indent=2))
    keep(arguments.out, "discovery_load", command, of_commit, results)


if __name__ == "__main__":
    main()
