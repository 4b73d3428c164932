"""Others dial back who asks how he is seen from outside, and tell what is true."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hivemind.p2p import P2P, PeerID
from pydantic import ValidationError

from discovery.dht import dialback
from discovery.dht.dialback import DialBack, Question, Turns, dial, network_of, place_of
from discovery.dht.identity import load_identity
from discovery.dht.p2p import to_multiaddr
from discovery.dht.peer import PeerConfig, SwarmPeer, bare_maddr, daemon_of_our_own
from discovery.dht.probe import meet
from discovery.protocol.errors import PeerUnavailable

NOBODY = "12D3KooWEjunvbHqkjL26TpYh8hkoF12nQk3hDrHh8PTtaiGgg5W"


@pytest.fixture
async def bootstrap(tmp_path: Path) -> AsyncIterator[SwarmPeer]:
    peer = await SwarmPeer.start(load_identity(tmp_path / "bootstrap"), PeerConfig(is_relay=True))
    yield peer
    with contextlib.suppress(Exception):
        await peer.close()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_bootstrap_peers_tell_how_we_are_seen_and_whose_clock_is_wrong(bootstrap: SwarmPeer) -> None:
    initial_peers = await bootstrap.maddrs()
    strange = f"{bare_maddr(initial_peers[0])}/p2p/{NOBODY}"
    nobody = f"/ip4/127.0.0.1/tcp/{closed_port()}/p2p/{NOBODY}"
    asked = [*initial_peers, strange, nobody, "/ip4/127.0.0.1/tcp/1"]
    met = await meet(asked, ["/ip4/127.0.0.1/tcp/0"], now=lambda: time.time() + 600)
    assert [one.maddr for one in met] == asked
    assert met[0].reason is None
    assert met[0].answer is not None
    assert (met[0].answer.ip, met[0].answer.outcome) == ("127.0.0.1", "reached")
    assert met[0].clock_ahead_seconds == pytest.approx(600, abs=30)
    assert met[0].round_trip_ms is not None
    reasons = [one.reason or "" for one in met[1:]]
    assert "nobody listens there" in reasons[1]
    assert "names no peer id" in reasons[2]
    assert all(reasons), "and nobody else is taken for the peer of that name"

    shut = await meet(initial_peers, port=closed_port())
    assert [one.answer.outcome for one in shut if one.answer] == ["refused"]
    silent = await meet(initial_peers)
    assert [one.answer.outcome for one in silent if one.answer] == ["not_asked"]


async def test_what_is_no_question_is_not_answered(bootstrap: SwarmPeer) -> None:
    with daemon_of_our_own():
        asker = await P2P.create(host_maddrs=None, no_listen=True, auto_nat=False, nat_port_map=False)
    try:
        peer = PeerID.from_base58(bootstrap.peer_id)
        await asker._client.connect(peer, [to_multiaddr(bare_maddr(maddr)) for maddr in await bootstrap.maddrs()])
        for nonsense in (b"GET / HTTP/1.1\n", b'{"port": -1}\n', b'{"port": "22"}\n', b'{"port": 70000}\n', b"[" * 99):
            _, reader, writer = await asker.call_binary_stream_handler(peer, dialback.PROTOCOL)
            writer.write(nonsense)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
        with pytest.raises(PeerUnavailable):
            await dialback.ask(asker, PeerID.from_base58(NOBODY), 0)
    finally:
        await asker.shutdown()


async def test_only_a_libp2p_peer_counts_as_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialback, "DIAL_SECONDS", 0.3)

    async def closes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6p1 and so on\r\n")
        await reader.read()
        writer.close()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for stranger in (closes, talks, waits):
        async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
            assert await dial("127.0.0.1", server.sockets[0].getsockname()[1]) == "stranger"
    assert await dial("127.0.0.1", closed_port()) == "refused"


async def test_nobody_is_dialed_but_whoever_asks() -> None:
    service = DialBack()
    answer = await service.answer(Question(port=closed_port()), "/ip4/127.0.0.1/tcp/5555")
    assert (answer.ip, answer.source_port, answer.outcome) == ("127.0.0.1", 5555, "refused")
    relayed = await service.answer(Question(port=80), f"/ip4/127.0.0.1/tcp/4001/p2p/{NOBODY}/p2p-circuit")
    assert (relayed.ip, relayed.outcome) == (None, "relayed")
    with pytest.raises(ValidationError):
        Question.model_validate_json('{"port": 65536}')
    assert not hasattr(Question.model_validate_json('{"port": 1, "ip": "192.0.2.1"}'), "ip")


async def test_who_asks_too_often_waits() -> None:
    seconds = 0.0
    turns = Turns(lambda: seconds)
    service = DialBack(turns)
    port = closed_port()
    outcomes = [
        (await service.answer(Question(port=port), "/ip4/127.0.0.1/tcp/1")).outcome
        for _ in range(dialback.PER_ADDRESS + 1)
    ]
    assert outcomes == ["refused"] * dialback.PER_ADDRESS + ["too_often"]
    assert (await service.answer(Question(port=0), "/ip4/127.0.0.1/tcp/1")).outcome == "not_asked"
    assert turns.take("192.0.2.7"), "others are not held up"
    for number in range(dialback.PER_ALL):
        turns.take(f"198.51.100.{number}")
    assert not turns.take("203.0.113.1"), "not by many addresses either"
    seconds = dialback.WINDOW_SECONDS
    assert turns.take("127.0.0.1")


@pytest.mark.parametrize(
    ("maddr", "place"),
    [
        ("/ip4/1.2.3.4/tcp/5", ("1.2.3.4", 5)),
        ("/ip6/2001:db8::1/tcp/5", ("2001:db8::1", 5)),
        ("/ip4/1.2.3.4/udp/5/quic", ("1.2.3.4", 5)),
        (f"/ip4/1.2.3.4/tcp/5/p2p/{NOBODY}/p2p-circuit", None),
        ("/dns4/far.example/tcp/5", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_place_that_a_connection_comes_from(maddr: str, place: tuple[str, int] | None) -> None:
    assert place_of(maddr) == place


def test_of_ipv6_a_network_is_one_asker() -> None:
    assert network_of("2001:db8:1:2::3") == network_of("2001:db8:1:2:ffff::1") != network_of("2001:db8:1:3::3")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
