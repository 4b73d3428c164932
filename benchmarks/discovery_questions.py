"""What does a question to the discovery service cost its processor, with thousands of nodes of one model?

    python -m benchmarks.discovery_questions [--nodes 5000] [--models 1] [--rounds 30]

The service runs in this process without a socket, and what counts is the processor's time of its thread, so that a
machine that does other things as well tells the same. Each kind of question is asked right after a node has announced
itself anew (``changed``), and once more (``again``). Then a third of the nodes renew, and the DHT is read: how long
that takes in all, and what it keeps others waiting for at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from hivemind.utils import ValueWithExpiration
from starlette.types import ASGIApp, Message

from benchmarks.discovery_load import Node, Swarm
from benchmarks.support.report import commit, keep
from discovery.dht.board import Board
from discovery.protocol.announcement import RENEW_SECONDS, read_announcement
from discovery.service.app import create_app
from discovery.service.follower import BoardLike, Follower
from discovery.service.mirror import Mirror, Source
from discovery.service.settings import Settings

FOLLOW_SECONDS = 10


class DhtDouble:
    """What :class:`Board` needs of a DHT node: the records of a swarm."""

    def __init__(self, swarm: Swarm) -> None:
        self._found = {
            key: ValueWithExpiration({name: ValueWithExpiration(*one) for name, one in records.items()}, float("inf"))
            for key, records in swarm.records.items()
        }

    async def get_many(self, keys: Sequence[str], **_options: Any) -> dict[str, ValueWithExpiration]:
        """All that stands under some keys."""
        return {key: self._found.get(key, ValueWithExpiration({}, float("inf"))) for key in keys}


async def ask(app: ASGIApp, path: str, known: str = "") -> tuple[float, int, str]:
    """Milliseconds of the processor, the status and the tag of an answer."""
    path, _, query = path.partition("?")
    headers = [(b"host", b"discovery"), *([(b"if-none-match", known.encode())] if known else [])]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "root_path": "",
    }
    told: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        told.append(message)

    before = time.thread_time()
    await app(scope, receive, send)
    took = (time.thread_time() - before) * 1000
    tag = dict(told[0]["headers"]).get(b"etag", b"").decode()
    return took, told[0]["status"], tag


def questions(swarm: Swarm) -> dict[str, Callable[[], str]]:
    """By kind, the path of one."""
    model = "/nodes/active/far/model-0"
    return {
        "active": lambda: model,
        "active, 1000 of them": lambda: f"{model}?limit=1000",
        "active near": lambda: f"{model}?location={random.choice(['52,13', '1,104'])}&max_distance_km=2000",
        "active in a region": lambda: f"{model}?location=eu",
        "active signed": lambda: f"{model}?signed=true",
        "active not modified": lambda: model,
        "coverage": lambda: "/coverage/far/model-0",
        "node": lambda: f"/nodes/{random.choice(swarm.nodes).announcement.peer_id}",
        "models": lambda: "/models",
        "bootstrap": lambda: "/bootstrap",
    }


async def longest_turn(stop: asyncio.Event) -> float:
    """The longest time of the processor that something else has held the loop, in milliseconds."""
    longest, last = 0.0, time.thread_time()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest * 1000


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole run."""
    swarm, results = Swarm.of(arguments.nodes, arguments.models), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:

        @asynccontextmanager
        async def open_board(_settings: Settings) -> AsyncIterator[tuple[BoardLike, tuple[str, ...]] | None]:
            yield None

        app = create_app(Settings(data_dir=Path(folder), port=0, requests_per_minute=0), open_board)
        async with app.router.lifespan_context(app):
            mirror: Mirror = app.state.service.mirror

            def announce(node: Node, at: int) -> None:
                swarm.publish(node, at)
                mirror.take(read_announcement(node.document), time.time(), Source.DHT)

            for node in swarm.nodes:
                announce(node, int(time.time()) - RENEW_SECONDS)
            for kind, path in questions(swarm).items():
                changed, again = list[float](), list[float]()
                for _ in range(arguments.rounds):
                    node = random.choice(swarm.nodes)
                    announce(node, node.announcement.issued_at + 1)
                    one = path()
                    took, status, tag = await ask(app, one)
                    assert status == 200, (one, status)
                    changed.append(took)
                    again.append((await ask(app, one, tag if "not modified" in kind else ""))[0])
                results[kind] = {"changed_ms": round(median(changed), 2), "again_ms": round(median(again), 2)}
            reading = await _read(swarm, mirror)
    of = {"nodes": arguments.nodes, "models": arguments.models, "rounds": arguments.rounds}
    return of | {"questions": results, "reading": reading}


async def _read(swarm: Swarm, mirror: Mirror) -> dict[str, float]:
    turns, took, now = list[float](), list[float](), int(time.time())
    for number in range(3):
        for node in swarm.nodes[number :: RENEW_SECONDS // FOLLOW_SECONDS]:
            swarm.publish(node, now)
        follower = Follower(Board(DhtDouble(swarm), "far"), mirror, FOLLOW_SECONDS)
        stop = asyncio.Event()
        watching = asyncio.create_task(longest_turn(stop))
        await asyncio.sleep(0)
        before = time.thread_time()
        await follower.follow()
        took.append((time.thread_time() - before) * 1000)
        stop.set()
        turns.append(await watching)
    return {
        "renewed": len(swarm.nodes) // 3,
        "in_all_ms": round(median(took), 1),
        "at_a_time_ms": round(median(turns), 1),
    }


def main() -> None:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    random.seed(1)
    of_commit, command = commit(), f"python -m benchmarks.discovery_questions {' '.join(sys.argv[1:])}".strip()
    results = asyncio.run(measure(arguments))
    print(json.dumps(results, indent=2))
    keep(arguments.out, "discovery_questions", command, of_commit, results)


if __name__ == "__main__":
    main()
