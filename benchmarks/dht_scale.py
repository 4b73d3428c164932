"""How many nodes does the DHT bear, what does a reader wait for, and whom does it believe?

    python -m benchmarks.dht_scale nodes [--peers 50] [--nodes 1000] [--lying 15]
    python -m benchmarks.dht_scale join [--rounds 20]
    python -m benchmarks.dht_scale partition
    python -m benchmarks.dht_scale liars [--peers 1000] [--lying 300]

``nodes``, ``join`` and ``partition`` run real peers, each with its daemon. Announcers are simulated: they sign with
keys of their own, and peers bring what they sign. ``liars`` is hivemind's own code over a network in memory, so that
there can be a thousand peers, without and with what we add to it.

A query is what a client asks before it plans a route, for all nodes of one model. ``view``: answered from its picture
of the swarm, which is a few seconds old at most. ``refresh``: that picture is made anew, and most announcements in it
were read before. ``cold``: made by a client that has just come and knows nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID

from benchmarks.support.bars import bars
from benchmarks.support.report import commit, keep
from discovery.dht import validator
from discovery.dht.board import Board
from discovery.dht.documents import read_before
from discovery.dht.identity import load_identity
from discovery.dht.keys import model_keys, node_key
from discovery.dht.node import id_of
from discovery.dht.peer import PeerConfig, SwarmPeer
from discovery.protocol.announcement import SignedAnnouncement
from far_mesh.swarm_view import SwarmView
from tests.support import dht_net
from tests.support.documents import DIGEST, peer_of, signed_announcement

PROCESSES = 5
LONG_SECONDS, SHORT_SECONDS = 3600, 240
READS, COLD_READS = 40, 8
VIEW_SECONDS = 5.0
KINDS = {kind.__name__: kind for kind in dht_net.LIARS}


def announced(number: int, seconds: float) -> SignedAnnouncement:
    """What a simulated node says, as long as what a real one says."""
    links = tuple((peer_of(f"link {number} {other}"), 12.345) for other in range(8))
    return signed_announcement(
        f"node {number}",
        model_id="far/model",
        block_count=80,
        first_block=number * 8 % 80,
        end_block=number * 8 % 80 + 8,
        maddrs=(f"/ip4/198.51.100.{number % 250}/tcp/31330",),
        block_ms=1.5,
        region="eu-central",
        location=(52, 13),
        links=links,
        expires_at=int(time.time() + seconds),
    )


def in_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    cuts = statistics.quantiles(seconds, n=20) if len(seconds) > 1 else [*seconds] * 19
    return {
        "count": len(seconds),
        "p50_ms": round(statistics.median(seconds) * 1000, 2),
        "p95_ms": round(cuts[18] * 1000, 2),
    }


# ---- a process with some peers


async def work(orders: dict[str, Any]) -> None:
    """Start peers and liars, and then do what each line on standard input says, until there is no more."""
    initial, folder = tuple(orders["initial_peers"]), Path(orders["folder"])
    peers, lying = [], []
    for number in range(orders["honest"]):
        identity = load_identity(folder / f"identity-{orders['name']}-{number}")
        peers.append(await SwarmPeer.start(identity, PeerConfig(initial)))
    for _ in range(orders["lying"]):
        p2p = await P2P.create(initial_peers=list(initial), auto_nat=False, nat_port_map=False)
        liar = await KINDS[orders["kind"]].create(p2p, id_of(p2p.peer_id), 20, 5, 5, 3.0)
        lying.append((p2p, liar))
        for maddr in initial:
            await liar.call_ping(PeerID.from_base58(maddr.rpartition("/p2p/")[2]))
    _say(maddrs=[(await peer.maddrs())[0] for peer in peers])
    lines = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: lines.put_nowait(sys.stdin.readline()))
    while line := await lines.get():
        order = json.loads(line)
        if order["do"] == "announce":
            _say(**await _announce(peers, order))
        elif order["do"] == "read":
            found = [await peer.board.nodes_of(DIGEST) for peer in peers]
            _say(read=[sorted({str(one.peer_id) for one in some}) for some in found])
        elif order["do"] == "kept":
            _say(records=sum(len(one) for one in _kept(peers)), bytes=_most_bytes(peers))
    for peer in peers:
        await peer.close()
    for p2p, _ in lying:
        await p2p.shutdown()


async def _announce(peers: Sequence[SwarmPeer], order: dict[str, Any]) -> dict[str, Any]:
    took, failed, size = [], 0, 0
    for number in range(order["first"], order["end"]):
        signed = announced(number, order["seconds"])
        started = time.perf_counter()
        failed += not await peers[number % len(peers)].board.publish(signed)
        took.append(time.perf_counter() - started)
        size = len(signed.to_bytes())
    return {"took": took, "failed": failed, "bytes": size}


def _kept(peers: Sequence[SwarmPeer]) -> list[Any]:
    return [item.value for peer in peers for _, item in peer._dht.protocol.storage.items()]


def _most_bytes(peers: Sequence[SwarmPeer]) -> int:
    return max((sum(len(value) for _, (value, _) in kept.items()) for kept in _kept(peers)), default=0)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Worker:
    """Such a process."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process, self.maddrs = process, ready["maddrs"]

    @classmethod
    async def start(cls, **orders: Any) -> Worker:
        """Wait until its peers are there."""
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.dht_scale", "worker", json.dumps(orders)]
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=2**26)
        return cls(process, await _hear(process))

    async def do(self, what: str, **more: Any) -> dict[str, Any]:
        """Have it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        return await _hear(self._process)

    def memory_mb(self) -> dict[str, int]:
        """Of the process, and the most of one of its daemons."""
        own = psutil.Process(self._process.pid)
        daemons = [child.memory_info().rss for child in own.children()]
        return {"process": own.memory_info().rss // 2**20, "daemon": max(daemons, default=0) // 2**20}

    async def end(self) -> None:
        """Close its peers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def _hear(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        with contextlib.suppress(ValueError):
            heard: dict[str, Any] = json.loads(line)
            return heard
    raise RuntimeError("a process with peers has ended")


@contextlib.asynccontextmanager
async def started(
    folder: str, peers: int, lying: int, kind: str, processes: int = PROCESSES
) -> AsyncIterator[list[Worker]]:
    """A swarm of so many peers, of which some lie, in a few processes; the first has the bootstrap peer."""
    workers = [await Worker.start(name="first", honest=1, lying=0, kind=kind, initial_peers=[], folder=folder)]
    try:
        first = workers[0].maddrs
        honest = peers - lying - 1
        for number in range(processes):
            share = (honest + number) // processes, (lying + number) // processes
            orders = {"name": str(number), "honest": share[0], "lying": share[1], "kind": kind, "folder": folder}
            workers.append(await Worker.start(initial_peers=first, **orders))
            print(f"{number + 1} of {processes} processes have their peers", file=sys.stderr, flush=True)
        yield workers
    finally:
        for worker in reversed(workers):
            await worker.end()


# ---- what is measured with real peers


async def many_nodes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Announce them, read them, and see a tenth of them expire."""
    count, short = arguments.nodes, arguments.nodes // 10
    everybody = {str(peer_of(f"node {number}")) for number in range(count)}
    gone = {str(peer_of(f"node {number}")) for number in range(short)}
    with tempfile.TemporaryDirectory() as folder:
        async with started(folder, arguments.peers, arguments.lying, arguments.kind) as workers:
            tellers = [worker for worker in workers if len(worker.maddrs) > 1]
            told = await _announce_all(tellers, short, count, LONG_SECONDS)
            told += await _announce_all(tellers, 0, short, SHORT_SECONDS)
            ends = time.time() + SHORT_SECONDS
            result: dict[str, Any] = {
                "peers": arguments.peers,
                "lying": arguments.lying,
                "kind": arguments.kind if arguments.lying else None,
                "nodes": count,
                "announcement_bytes": told[0]["bytes"],
                "publish": in_ms([second for one in told for second in one["took"]]),
                "not_published": sum(one["failed"] for one in told),
            }
            kept = [await worker.do("kept") for worker in workers]
            result["records_kept"] = sum(one["records"] for one in kept)
            result["most_bytes_under_a_key"] = max(one["bytes"] for one in kept)
            result |= await _queries(Path(folder), workers[0].maddrs, everybody)
            memory = [worker.memory_mb() for worker in workers]
            result["memory_mb"] = {
                "peers_in_a_process": max(len(worker.maddrs) for worker in workers),
                "most_of_a_process": max(one["process"] for one in memory),
                "bootstrap_peer": memory[0]["process"],
                "most_of_a_daemon": max(one["daemon"] for one in memory),
                "client": psutil.Process().memory_info().rss // 2**20,
            }
            await asyncio.sleep(max(0.0, ends - time.time() + 1))
            read = [set(found) for worker in workers for found in (await worker.do("read"))["read"]]
            result["after_a_tenth_stopped"] = {
                "readers": len(read),
                "told_though_expired": sum(len(found & gone) for found in read),
                "missing_though_live": sum(len(everybody - gone - found) for found in read),
            }
    return result


async def _announce_all(tellers: Sequence[Worker], first: int, end: int, seconds: float) -> list[dict[str, Any]]:
    cuts = [first + (end - first) * number // len(tellers) for number in range(len(tellers) + 1)]
    parts = [
        worker.do("announce", first=cuts[number], end=cuts[number + 1], seconds=seconds)
        for number, worker in enumerate(tellers)
    ]
    return list(await asyncio.gather(*parts))


async def _queries(folder: Path, initial_peers: Sequence[str], everybody: set[str]) -> dict[str, Any]:
    cold, refresh, view_seconds, missing = [], [], [], []
    for number in range(COLD_READS):
        read_before.cache_clear()
        validator._known.cache_clear()
        config = PeerConfig(tuple(initial_peers), is_client=True)
        client = await SwarmPeer.start(load_identity(folder / f"client-{number}"), config)
        view = SwarmView(client.board, DIGEST, VIEW_SECONDS)
        started = time.perf_counter()
        found = await view.nodes()
        cold.append(time.perf_counter() - started)
        missing.append(len(everybody - {str(one.peer_id) for one in found}))
        for _ in range(READS // COLD_READS):
            started = time.perf_counter()
            await view.nodes(fresh=True)
            refresh.append(time.perf_counter() - started)
            for _ in range(20):
                started = time.perf_counter()
                await view.nodes()
                view_seconds.append(time.perf_counter() - started)
        await client.close()
    queries = {"view": in_ms(view_seconds), "refresh": in_ms(refresh), "cold": in_ms(cold)}
    return {"queries": queries, "missing_of_each_cold_query": missing, "load_average": os.getloadavg()[0]}


async def join_together(rounds: int) -> dict[str, Any]:
    """Four peers join at the same moment, the peer that they joined through ends, and each reads what all announce."""
    ones, seconds = 0, []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            first = await SwarmPeer.start(load_identity(Path(folder) / "first"), PeerConfig())
            config = PeerConfig(await first.maddrs())
            starting = (SwarmPeer.start(load_identity(Path(folder) / str(one)), config) for one in range(4))
            four = await asyncio.gather(*starting)
            joined = time.perf_counter()
            others = {peer.peer_id for peer in four}
            deadline = time.monotonic() + 60
            while not all(others - {one.peer_id} <= _known(one) for one in four) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            seconds.append(time.perf_counter() - joined)
            await first.close()
            for place, peer in enumerate(four):
                await peer.board.publish(announced(place, 300))
            read = [{str(one.peer_id) for one in await peer.board.nodes_of(DIGEST)} for peer in four]
            ones += all(found == {str(peer_of(f"node {place}")) for place in range(4)} for found in read)
            await asyncio.gather(*(peer.close() for peer in four))
            print(f"round {number + 1}: {ones} were one DHT", file=sys.stderr, flush=True)
    return {"rounds": rounds, "one_dht": ones, "seconds_until_all_knew_each_other": in_ms(seconds)}


async def mend_partition() -> dict[str, Any]:
    """Two halves that began apart, with a bootstrap peer each, and are joined by a peer that knows both; then both
    bootstrap peers end."""
    with tempfile.TemporaryDirectory() as folder:
        halves = []
        for name in ("left", "right"):
            first = await SwarmPeer.start(load_identity(Path(folder) / name), PeerConfig())
            config = PeerConfig(await first.maddrs())
            rest = [await SwarmPeer.start(load_identity(Path(folder) / f"{name}-{one}"), config) for one in range(4)]
            halves.append([first, *rest])
        left, right = halves
        await left[1].board.publish(announced(0, 600))
        apart = not await right[1].board.nodes_of(DIGEST)
        both = PeerConfig((*await left[0].maddrs(), *await right[0].maddrs()))
        between = await SwarmPeer.start(load_identity(Path(folder) / "between"), both)
        started = time.perf_counter()
        wanted = {str(peer_of("node 0"))}
        there = [*left, *right]
        while not all([_names(await one.board.nodes_of(DIGEST)) == wanted for one in there]):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        healed = time.perf_counter() - started
        await asyncio.gather(*(peer.close() for peer in (left[0], right[0], between)))
        await right[2].board.publish(announced(1, 600))
        alone = [_names(await peer.board.nodes_of(DIGEST)) for peer in (*left[1:], *right[1:])]
        await asyncio.gather(*(peer.close() for peer in (*left[1:], *right[1:])))
    both_are_read = sum(found == {str(peer_of("node 0")), str(peer_of("node 1"))} for found in alone)
    return {
        "peers": len(there),
        "were_apart": apart,
        "one_after_seconds": round(healed, 1),
        "readers_without_bootstrap_peers": len(alone),
        "of_them_read_both": both_are_read,
    }


def _known(peer: SwarmPeer) -> set[str]:
    return {str(one) for one in peer._dht.protocol.routing_table.peer_id_to_uid}


def _names(found: Sequence[SignedAnnouncement]) -> set[str]:
    return {str(one.peer_id) for one in found}


# ---- liars, in memory


async def lied_to(peers: int, lying: int, nodes: int, lookups: int) -> dict[str, Any]:
    """For each kind of liar: what share of nodes is found, without and with what we add to hivemind."""
    kinds = {name: (kind, False) for name, kind in KINDS.items()} | {"Liar next to a key": (dht_net.Liar, True)}
    results: dict[str, Any] = {}
    for name, (kind, is_next) in kinds.items():
        results[name] = {}
        for whose, join in (("hivemind", dht_net.join_as_it_is), ("ours", dht_net.join)):
            share = await _share_found(join, kind, is_next, peers, lying, nodes, lookups)
            results[name][whose] = share
            print(f"{name}, {whose}: {share}", file=sys.stderr, flush=True)
    return {"peers": peers, "lying": lying, "nodes": nodes, "lookups": lookups, "right": results}


async def _share_found(
    join: Any, kind: type[dht_net.Liar], is_next: bool, peers: int, lying: int, nodes: int, lookups: int
) -> dict[str, float]:
    net = dht_net.Net()
    honest: list[DHTNode] = [await join(net)]
    first = net.wires[honest[0].peer_id]
    for _ in range(peers - lying - 1):
        honest.append(await join(net, first))
    victims = [announced(number, LONG_SECONDS) for number in range(nodes)]
    known = [net.wires[node.peer_id] for node in random.sample(honest, min(20, len(honest)))]
    places = [key for one in victims[:2] for key in (node_key("far", one.peer_id), model_keys("far", DIGEST)[0])]
    beside = [peer for key in places for peer in dht_net.ids_next_to(key, lying // len(places), peers * 4)]
    await dht_net.crowd(net, kind, beside if is_next else [None] * lying, [first, *known])
    for number, one in enumerate(victims):
        await Board(honest[number % len(honest)], "far").publish(one)
    right = hung = 0
    asked = victims[:2] if is_next else victims
    for number in range(lookups):
        victim = asked[number % len(asked)]
        client = await join(net, first, is_client=True)
        try:
            async with asyncio.timeout(60):
                right += await Board(client, "far").node(victim.peer_id) == [victim]
        except TimeoutError:
            hung += 1
    return {"right": round(right / lookups, 4), "hung": hung}


def main() -> None:
    """Read the arguments, and run."""
    if sys.argv[1:2] == ["worker"]:
        asyncio.run(work(json.loads(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["nodes", "join", "partition", "liars"])
    parser.add_argument("--peers", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--lying", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS], default="Crowding")
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    random.seed(1)
    of_commit, command = commit(), f"python -m benchmarks.dht_scale {' '.join(sys.argv[1:])}"
    name = f"dht_scale_{arguments.part}"
    if arguments.part == "nodes":
        results = asyncio.run(many_nodes(arguments))
        name += "_lying" if arguments.lying else ""
    elif arguments.part == "join":
        results = asyncio.run(join_together(arguments.rounds))
    elif arguments.part == "partition":
        results = asyncio.run(mend_partition())
    else:
        results = asyncio.run(lied_to(arguments.peers, arguments.lying, arguments.nodes, arguments.lookups))
    print(json.dumps(results, indent=2))
    keep(arguments.out, name, command, of_commit, results)
    if arguments.part == "liars":
        groups = {
            kind: {whose: _bar(one["right"]) for whose, one in both.items()} for kind, both in results["right"].items()
        }
        title = f"Lookups that are right, in %, {arguments.lying} of {arguments.peers} peers lie"
        (arguments.out / f"{name}.svg").write_text(bars(title, groups))


def _bar(share: float) -> dict[str, float]:
    return {"median": 100 * share, "quarter": 100 * share, "three_quarters": 100 * share}


if __name__ == "__main__":
    main()
