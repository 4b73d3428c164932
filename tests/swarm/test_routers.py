"""What is said of routers in the documentation, by routers of these kinds on an emulated network.

All peers are of this process, and their daemons each on a host of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.hosts import daemons_on, start_at
from benchmarks.support.nat import Kind
from benchmarks.support.wan import Wan, WanUnavailable
from discovery.dht.p2p import CANNOT_OPEN
from discovery.dht.peer import SwarmPeer
from discovery.dht.transport import Stream
from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.messages import PeerAddress

PROTOCOL = "/far-mesh/test/routers"
PROVIDERS = Path(__file__).parents[2] / "docs" / "providers.md"
OBSERVERS = 4
KINDS: dict[str, Kind | None] = {
    "none": None,
    "full cone": "full-cone",
    "restricted": "port-restricted",
    "symmetric": "symmetric",
}
"""The documentation's words, and of the two restricted ones the stricter."""
HIDDEN = [name for name in KINDS if name != "none"]
PATIENCE_SECONDS, TRY_SECONDS = 90.0, 9.0
"""In all, and of one connection: a hole takes up to six seconds, as the daemon dials in vain before it punches."""


def documented() -> dict[tuple[str, str], str]:
    """``(router of who asks, router of the node): direct or relay``, from the table."""
    text = PROVIDERS.read_text().split("<!-- table: routers -->")[1].split("\n\n")[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    return {(row[0], column): row[1 + place] for row in rows for place, column in enumerate(head[1:])}


@dataclass(frozen=True)
class Place:
    """Peers behind routers, by the kinds of these."""

    relay: SwarmPeer
    asking: dict[str, SwarmPeer]
    hidden: dict[str, SwarmPeer]

    async def ask(self, asking: str, hidden: str) -> str:
        """Open a stream until a connection is direct, or as often as seems worth it."""
        client, node = self.asking[asking], self.hidden[hidden]
        relay = (await self.relay.maddrs())[0]
        async with asyncio.timeout(PATIENCE_SECONDS):
            stream = await client.transport.open(PeerAddress(node.peer_id, (f"{relay}/p2p-circuit",)), PROTOCOL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TRY_SECONDS):
                while (await client.connections())[node.peer_id] != "direct":
                    await asyncio.sleep(0.2)
        return await _told(stream)

    async def until_direct(self, asking: str, hidden: str) -> None:
        """A connection that came before its ends knew their own addresses stays as it is; another one does not."""
        client, node = self.asking[asking], self.hidden[hidden]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with contextlib.suppress(PeerUnavailable, KeyError):
                    await self.ask(asking, hidden)
                    if (await client.connections())[node.peer_id] == "direct":
                        stream = await client.transport.open(PeerAddress(node.peer_id, ()), PROTOCOL)
                        assert "p2p-circuit" not in await _told(stream), "new streams take the direct way"
                        return
                with contextlib.suppress(*CANNOT_OPEN):
                    await client._p2p._client.disconnect(node._p2p.peer_id)


async def _told(stream: Stream) -> str:
    answer = await stream.receive()
    await stream.close()
    assert answer is not None
    return answer.decode()


@pytest.fixture(scope="module")
def wan() -> Iterator[Wan]:
    names = [None] * OBSERVERS + [KINDS[name] for name in HIDDEN] + list(KINDS.values())
    routers = {host: kind for host, kind in enumerate(names) if kind is not None}
    try:
        with Wan(len(names), round_trip=0.01, name="routers", routers=routers) as network:
            yield network
    except WanUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
async def place(wan: Wan, tmp_path: Path) -> AsyncIterator[Place]:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(daemons_on(wan))

        async def start(host: int, **config: Any) -> SwarmPeer:
            peer = await start_at(wan, host, tmp_path, **config)
            stack.push_async_callback(peer.close)
            return peer

        relay = await start(0, is_relay=True)
        first = await relay.maddrs()
        others = await asyncio.gather(*(start(host, initial_peers=first) for host in range(1, OBSERVERS)))
        peers = (*first, *[(await other.maddrs())[0] for other in others])
        hosts = iter(range(OBSERVERS, wan.hosts))
        hidden = [start(next(hosts), initial_peers=peers, behind_nat=True) for _ in HIDDEN]
        asking = [
            start(next(hosts), initial_peers=peers, is_client=True, punches_holes=kind is not None)
            for kind in KINDS.values()
        ]
        started = await asyncio.gather(*hidden, *asking)
        await asyncio.gather(*(_answer_on(peer) for peer in started))
        yield Place(
            relay,
            dict(zip(KINDS, started[len(HIDDEN) :], strict=True)),
            dict(zip(HIDDEN, started[: len(HIDDEN)], strict=True)),
        )


async def _answer_on(peer: SwarmPeer) -> None:
    async def answer(info: Any, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = str(info.addr).encode()
        with contextlib.closing(writer):
            writer.write(len(told).to_bytes(4) + told)
            await writer.drain()

    await peer._p2p.add_binary_stream_handler(PROTOCOL, answer)


def test_the_table_names_all_pairs() -> None:
    table = documented()
    assert table.keys() == {(asking, hidden) for asking in KINDS for hidden in HIDDEN}
    assert set(table.values()) == {"direct", "relay"}


async def test_who_is_reached_directly_and_who_through_a_relay_is_as_the_documentation_says(place: Place) -> None:
    table = documented()
    stay = [pair for pair, way in table.items() if way == "relay"]
    asked = [place.ask(*pair) for pair in stay]
    answers, _ = await asyncio.gather(
        asyncio.gather(*asked),
        asyncio.gather(*(place.until_direct(*pair) for pair, way in table.items() if way == "direct")),
    )
    assert all("p2p-circuit" in answer for answer in answers)
    for asking, hidden in stay:
        connected = await place.asking[asking].connections()
        assert connected[place.hidden[hidden].peer_id] == "relay", (asking, hidden)
