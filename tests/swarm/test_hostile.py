"""The worst that strangers do, done to a real node: it stays as it was, and honest clients get the right words."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hivemind.p2p import PeerID

from discovery.dht.transport import Channel
from discovery.protocol.errors import FarError, PeerUnavailable
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import (
    INFO_PROTOCOL,
    LINK_PROTOCOL,
    SESSION_PROTOCOL,
    Failure,
    InfoRequest,
    NodeInfo,
    Open,
    Opened,
    PeerAddress,
    Step,
    WireTensor,
    decode,
)
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.opener import Swarm
from far_node.errors import Busy
from tests.support.fuzz import CLOSE, PROTOCOLS, Ending, Facts, Fuzzer
from tests.support.models import BUNDLED_VOCABULARY, greedy, make_model, whole_model, with_bundled_tokenizer
from tests.support.swarm import Process, Town

pytestmark = pytest.mark.swarm

PROMPT = [5, 17, 99, 3, 40, 77, 12]
TOKENS = 40
HIDDEN = 64
SOON = 40.0  # a stream that says nothing has ten seconds
MANY = 400
MESSAGES = 3000
MIB = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_bundled_tokenizer(
        make_model(tmp_path_factory.mktemp("models") / "tiny", vocab_size=BUNDLED_VOCABULARY, seed=2)
    )


@pytest.fixture
def town(tmp_path: Path, model: Path) -> Iterator[Town]:
    with Town(tmp_path / "town") as town:
        options = ("--idle-timeout", "3", "--cache-mb", "128", "--prefix-cache-mb", "0")
        town.start_node(model, (0, 6), *options).wait_until_ready()
        yield town


@pytest.fixture
async def strangers(town: Town) -> AsyncIterator[list[Stranger]]:
    """Several of them: what one is refused because of its silent streams, the others still get."""
    swarms = [await Swarm.join(town.initial_peers) for _ in range(3)]
    yield [Stranger(swarm, town.nodes[0]) for swarm in swarms]
    for swarm in swarms:
        await swarm.close()


@dataclass(frozen=True)
class Burden:
    """What a node's process and its daemon take of the machine."""

    bytes: int
    daemon_bytes: int
    files: int

    @classmethod
    def of(cls, node: Process) -> Burden:
        process = psutil.Process(node.popen.pid)
        (daemon,) = [one for one in node.family() if "p2pd" in one.name()]
        return cls(process.memory_info().rss, daemon.memory_info().rss, process.num_fds())


class Stranger:
    """Streams to a node, and nothing good to say on them."""

    def __init__(self, swarm: Swarm, node: Process) -> None:
        self.swarm, self._peer_id = swarm, PeerId(node.peer_id)
        self._address = PeerAddress(self._peer_id, (node.maddr.rpartition("/p2p/")[0],))

    async def knock(self, protocol: str = SESSION_PROTOCOL) -> Channel:
        return Channel(await self.swarm.peer.transport.open(self._address, protocol))

    async def write(self, raw: bytes, protocol: str = SESSION_PROTOCOL) -> tuple[asyncio.StreamReader, Any]:
        """Bytes that are no frames."""
        await (await self.knock(INFO_PROTOCOL)).close()  # the first stream finds the node's address
        remote = PeerID.from_base58(self._peer_id)
        _, reader, writer = await self.swarm.peer._p2p.call_binary_stream_handler(remote, protocol)
        writer.write(raw)
        return reader, writer

    async def info(self) -> NodeInfo:
        channel = await self.knock(INFO_PROTOCOL)
        await channel.send(InfoRequest())
        info = await channel.expect(NodeInfo)
        await channel.close()
        return info

    async def opened(self, digest: str, rows: int) -> Channel:
        channel = await self.knock()
        opening = Open(new_session_id(), secrets.token_bytes(16), digest, 0, 6, 256, rows, "float32", None, None)
        await channel.send(opening)
        await channel.expect(Opened)
        return channel

    async def turned_away(self, digest: str) -> None:
        """Open until a refusal can be read: a node that hangs up at once may be quicker than what is said to it."""
        async with asyncio.timeout(SOON):
            while True:
                with contextlib.suppress(PeerUnavailable):
                    await self.opened(digest, 1)

    async def talk_without_reading(self, digest: str) -> None:
        """A megabyte after the other, and nobody takes the answers."""
        channel = await self.opened(digest, 16)
        hidden = WireTensor("float32", (16, 256, HIDDEN), bytes(4 * 16 * 256 * HIDDEN))
        with contextlib.suppress(FarError):
            for index in itertools.count():
                await channel.send(Step(index, 0, hidden))

    async def send_away(self, count: int, digest: str) -> None:
        """So many talk and do not read, until the node has had enough of them."""
        talking = [asyncio.create_task(self.talk_without_reading(digest)) for _ in range(count)]
        await asyncio.sleep(1)
        await self.until_gone()
        for task in talking:  # their own daemon does not tell them while they do not read
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)

    async def until_gone(self) -> None:
        """No session is open and no cache is held, though nobody said goodbye."""
        async with asyncio.timeout(SOON):
            while (info := await self.info()).open_sessions or info.cache_used_bytes or info.queued_steps:
                await asyncio.sleep(0.2)

    async def stall_in_a_session(self, digest: str) -> asyncio.StreamWriter:
        """The length of a step, and no step."""
        channel = await self.opened(digest, 1)
        writer: asyncio.StreamWriter = channel._stream._writer  # type: ignore[attr-defined]
        writer.write((60_000).to_bytes(4, "big") + b"\x1a")
        return writer

    async def fuzz(self, digest: str) -> int:
        """Talks of all kinds, one after the other; what the node answers is always a message."""
        facts = Facts(digest, HIDDEN, 256, ((self._peer_id, 0, 6),), self.swarm.peer.peer_id, secrets.token_bytes(16))
        fuzzer, messages, codes = Fuzzer(7, facts), 0, set[str]()
        for number in range(10**6):
            talk = fuzzer.talk(number)
            messages += talk.messages
            for line in talk.lines:
                stream = await self.swarm.peer.transport.open(self._address, line.protocol)
                with contextlib.suppress(FarError):
                    for frame in (*line.frames, CLOSE):
                        await stream.send(frame)
                    # a link is told nothing, and may wait ten seconds for its session
                    listens = talk.ending is Ending.LISTEN and line.protocol != LINK_PROTOCOL
                    while listens and (heard := await asyncio.wait_for(stream.receive(), SOON)) is not None:
                        answer = decode(heard)
                        if isinstance(answer, Failure):
                            codes.add(answer.code)
                await stream.close()
            if messages > MESSAGES:
                break
        assert codes >= {"protocol_violation", "blocks_not_served", "session_too_long", "bad_position"}
        assert codes <= set(FarError._by_code)
        return messages


async def test_the_worst_of_strangers_leaves_a_node_as_it_was(
    town: Town, model: Path, strangers: list[Stranger]
) -> None:
    (node,), (crowd, talker, stranger) = town.nodes, strangers
    expected = greedy(whole_model(model), PROMPT, TOKENS)
    digest = (await stranger.info()).model_digest
    async with await Mesh.join(str(model), town.initial_peers, MeshConfig(step_timeout=60.0)) as mesh:
        assert await words(mesh) == expected
        await stranger.send_away(1, digest)  # once, for the memory that large steps take of any process
        before = Burden.of(node)

        slow = [await crowd.write((60_000).to_bytes(4, "big") + b"slow") for _ in range(20)]
        silent = [await crowd.knock(PROTOCOLS[number % 3]) for number in range(MANY)]
        with pytest.raises(Busy, match="of your streams"):
            await crowd.turned_away(digest)
        deaf = asyncio.create_task(stranger.send_away(4, digest))
        stalled = [await stranger.stall_in_a_session(digest) for _ in range(4)]
        reader, writer = await stranger.write((2**31).to_bytes(4, "big") + bytes(1000))
        assert len(await asyncio.wait_for(reader.read(), SOON)) < 2000
        writer.close()

        assert await words(mesh) == expected
        messages = await talker.fuzz(digest)
        during = Burden.of(node)
        assert messages > MESSAGES
        assert during.bytes - before.bytes < 256 * MIB
        await deaf
        await stranger.until_gone()
        async with asyncio.timeout(SOON):
            while (after := Burden.of(node)).files > before.files + 3:
                await asyncio.sleep(0.2)
        assert after.bytes - before.bytes < 48 * MIB
        assert after.daemon_bytes - before.daemon_bytes < 96 * MIB
        assert await words(mesh) == expected
    assert "Traceback" not in node.err.read_text()
    for channel in silent:
        await channel.close()
    for writer in [*stalled, *(writer for _, writer in slow)]:
        writer.close()


async def words(mesh: Mesh) -> list[int]:
    return [token.id async for token in mesh.generate(PROMPT, GenerationOptions(max_tokens=TOKENS))]
