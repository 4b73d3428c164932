"""What does a relay cost, and what does a hole through the routers save?

    python -m benchmarks.relay_cost [--frames 200] [--mib 16] [--tokens 64] [--rounds 3] [--round-trip-ms 40]
                                    [--mbit 50] [--out benchmarks/results]

Every peer has a host of its own on an emulated network. **Frames**: a client behind a router that keeps one port asks
for an echo of 16 KiB, a hidden state of 8,192 numbers in bfloat16: a node with an open port (``direct``), one behind a
router of the same kind, past both routers (``hole``), and one behind a symmetric router (``relay``). Then it sends as
much as goes. The relay's processor time is that of its daemon. **Tokens**: far-demo over two nodes, who hand on to each
other directly, past routers or through the relay; a client with an open port reads them one after the other, without
guesses. It does not listen, so it enters through the relay in both of the latter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.support.hosts import daemons_on, start_at
from benchmarks.support.nat import Kind
from benchmarks.support.report import commit, keep
from benchmarks.support.town import CLIENT_HOST, FIRST_NODE_HOST, WanTown
from benchmarks.support.wan import Wan
from discovery.dht.peer import SwarmPeer
from discovery.dht.transport import Stream
from discovery.protocol.messages import PeerAddress
from far_mesh.client import GenerationOptions, Mesh
from far_mesh.config import MeshConfig

PROTOCOL = "/far-mesh/benchmark/echo"
OBSERVERS = 4
FRAME, BULK = bytes(16 << 10), bytes(256 << 10)
HOLE_LOOKS, MOST_TRIES = 45, 6
WAYS: Mapping[str, Kind | None] = {"direct": None, "hole": "port-restricted", "relay": "symmetric"}
HALVES = ((0, 4), (4, 8))
PROMPT = list(range(1, 30))


async def frames(given: argparse.Namespace) -> dict[str, Any]:
    """Echoes over each way."""
    client_host = OBSERVERS + len(WAYS)
    routers = {OBSERVERS + place: kind for place, kind in enumerate(WAYS.values()) if kind is not None}
    routers[client_host] = "port-restricted"
    with (
        Wan(client_host + 1, given.round_trip_ms / 1000, given.mbit * 1e6, "cost", routers) as wan,
        tempfile.TemporaryDirectory() as name,
        daemons_on(wan),
    ):
        async with contextlib.AsyncExitStack() as stack:

            async def start(host: int, **config: Any) -> SwarmPeer:
                peer = await start_at(wan, host, Path(name), **config)
                stack.push_async_callback(peer.close)
                return peer

            relay = await start(0, is_relay=True)
            peers = await relay.maddrs()
            peers += tuple(
                [(await (await start(host, initial_peers=peers)).maddrs())[0] for host in range(1, OBSERVERS)]
            )
            client = await start(client_host, initial_peers=peers, is_client=True, punches_holes=True)
            results = {}
            for place, (way, kind) in enumerate(WAYS.items()):
                node = await start(OBSERVERS + place, initial_peers=peers, behind_nat=kind is not None)
                await node.transport.serve(PROTOCOL, _echo)
                results[way] = await _measure(way, relay, client, node, given)
                print("frames", way, json.dumps(results[way]), flush=True)
            return results


async def _echo(stream: Stream) -> None:
    """Frames of 16 KiB come back whole, others as one byte."""
    while (frame := await stream.receive()) is not None:
        await stream.send(frame if len(frame) == len(FRAME) else b".")


async def _measure(
    way: str, relay: SwarmPeer, client: SwarmPeer, node: SwarmPeer, given: argparse.Namespace
) -> dict[str, Any]:
    maddrs = await node.maddrs() if way == "direct" else (f"{(await relay.maddrs())[0]}/p2p-circuit",)
    address = PeerAddress(node.peer_id, tuple(maddr.removesuffix(f"/p2p/{node.peer_id}") for maddr in maddrs))
    if way == "hole":
        await _until_direct(client, node, address)
    expected = "relay" if way == "relay" else "direct"
    stream = await client.transport.open(address, PROTOCOL)
    daemon = psutil.Process(relay._p2p._child.pid)
    trips = []
    for _ in range(given.frames + 5):
        started = time.perf_counter()
        await stream.send(FRAME)
        await stream.receive()
        trips.append(1000 * (time.perf_counter() - started))
    before, started = _busy(daemon), time.perf_counter()
    count = (given.mib << 20) // len(BULK)

    async def send() -> None:
        for _ in range(count):
            await stream.send(BULK)

    async def hear() -> None:
        for _ in range(count):
            await stream.receive()

    await asyncio.gather(send(), hear())
    seconds = time.perf_counter() - started
    await stream.close()
    if (found := (await client.connections())[node.peer_id]) != expected:
        raise SystemExit(f"{way} was {found}: the figures mean nothing")
    steady = sorted(trips[5:])
    return {
        "frame_round_trip_ms_median": round(statistics.median(steady), 1),
        "frame_round_trip_ms_p95": round(steady[int(0.95 * (len(steady) - 1))], 1),
        "mib_per_second": round(given.mib / seconds, 2),
        "relay_cpu_ms_per_mib": round(1000 * (_busy(daemon) - before) / given.mib, 1),
    }


def _busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _until_direct(client: SwarmPeer, node: SwarmPeer, address: PeerAddress) -> None:
    """A connection that came before its ends knew their own addresses stays as it is; another one does not."""
    for _ in range(MOST_TRIES):
        await (await client.transport.open(address, PROTOCOL)).close()
        for _ in range(HOLE_LOOKS):
            if (await client.connections()).get(node.peer_id) == "direct":
                return
            await asyncio.sleep(0.2)
        await client._p2p._client.disconnect(node._p2p.peer_id)
    raise SystemExit("no hole was punched: the figures would mean nothing")


async def tokens(way: str, kind: Kind | None, given: argparse.Namespace) -> dict[str, Any]:
    """far-demo over two nodes."""
    first_observer = FIRST_NODE_HOST + len(HALVES)
    hosts = first_observer + OBSERVERS - 1
    nodes = range(FIRST_NODE_HOST, first_observer)
    routers: dict[int, Kind] = {} if kind is None else dict.fromkeys(nodes, kind)
    with (
        Wan(hosts, given.round_trip_ms / 1000, given.mbit * 1e6, "tokens", routers) as wan,
        tempfile.TemporaryDirectory() as name,
        WanTown(Path(name), wan) as town,
    ):
        peers = [town.bootstrap.maddr]
        for host in range(first_observer, hosts):
            peers.append(town.bootstrap_at(host, *peers[:1]).wait_until_ready().maddr)
        options = [] if kind is None else ["--relay"]
        for host, blocks in zip(nodes, HALVES, strict=True):
            town.node_at(host, "far-demo", blocks, *options, initial_peers=peers)
        for node in town.nodes:
            node.wait_until_ready()
        await asyncio.sleep(given.settle_seconds)  # the nodes measure their links, and punch as they do
        with wan.inside(CLIENT_HOST):
            async with await Mesh.join("far-demo", peers, MeshConfig(speculation=False)) as mesh:
                rounds = [await _generate(mesh, given.tokens) for _ in range(given.rounds + 1)][1:]
    return {
        "token_ms_median": round(statistics.median(one["token_ms"] for one in rounds), 1),
        "token_ms_min": round(min(one["token_ms"] for one in rounds), 1),
        "token_ms_max": round(max(one["token_ms"] for one in rounds), 1),
        "first_token_ms_median": round(statistics.median(one["first_ms"] for one in rounds), 1),
        "tokens_per_second": round(1000 / statistics.median(one["token_ms"] for one in rounds), 1),
    }


async def _generate(mesh: Mesh, count: int) -> dict[str, float]:
    started = time.perf_counter()
    generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=count))
    times = [time.perf_counter() async for _ in generation]
    await generation.finish()
    return {
        "first_ms": 1000 * (times[0] - started),
        "token_ms": 1000 * (times[-1] - times[0]) / max(1, len(times) - 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--mib", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-trip-ms", type=float, default=40.0)
    parser.add_argument("--mbit", type=float, default=50.0)
    parser.add_argument("--settle-seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    of_commit = commit()
    results: dict[str, Any] = {"round_trip_ms": given.round_trip_ms, "mbit": given.mbit, "frames": await frames(given)}
    results["tokens"] = {}
    for way, kind in WAYS.items():
        results["tokens"][way] = await tokens(way, kind, given)
        print("tokens", way, json.dumps(results["tokens"][way]), flush=True)
    command = (
        f"python -m benchmarks.relay_cost --frames {given.frames} --mib {given.mib} --tokens {given.tokens} "
        f"--rounds {given.rounds} --round-trip-ms {given.round_trip_ms:g} --mbit {given.mbit:g}"
    )
    keep(given.out, "relay_cost", command, of_commit, results)


if __name__ == "__main__":
    asyncio.run(main())
