"""The discovery service beside a real DHT: what a node pins there is told, and what a node sends is pinned there."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from discovery.dht.identity import discard_identity, ephemeral_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from discovery.hints import bootstrap_peers
from discovery.protocol.announcement import SignedAnnouncement
from tests.discovery.service.doubles import document, owned, registration, send
from tests.support.documents import DIGEST, peer_of, signed_announcement
from tests.support.swarm import ANY_LOCAL_PORT, Process

pytestmark = pytest.mark.swarm


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    """A bootstrap peer, and a service that follows it."""
    identity = str(tmp_path / "identity")
    command = ["discovery.cli", "bootstrap", "--json", "--host-maddr", ANY_LOCAL_PORT, "--identity", identity]
    bootstrap = Process.start("bootstrap", command, tmp_path)
    service = None
    try:
        peer = bootstrap.wait_until_ready().maddr
        config = tmp_path / "far-discovery.toml"
        config.write_text(f'follow_seconds = 0.5\nhost_maddrs = ["{ANY_LOCAL_PORT}"]\ndata_dir = "{tmp_path}/data"\n')
        command = ["discovery.cli", "serve", "--json", "--port", "0", "--initial-peers", peer, "--config", str(config)]
        service = Process.start("service", command, tmp_path)
        service.wait_until_ready()
        yield bootstrap, service
    finally:
        for process in (service, bootstrap):
            if process is not None:
                process.kill()


async def test_what_stands_on_the_dht_is_told_and_what_is_sent_is_pinned_there(
    processes: tuple[Process, Process],
) -> None:
    bootstrap, service = processes
    url = service.ready["url"]
    identity = ephemeral_identity()
    peer = await SwarmPeer.start(identity, PeerConfig(initial_peers=(bootstrap.maddr,)))
    try:
        pinned, sent = signed_announcement("pinned"), owned("sent")
        assert await peer.board.publish(pinned)
        answer = await asyncio.to_thread(_register, url, sent)
        assert answer.status_code == 200, answer.text
        deadline, told, found = time.monotonic() + 60, set[str](), set[str]()
        while (told, found) != ({pinned.peer_id, sent.peer_id},) * 2:
            assert time.monotonic() < deadline, (told, found)
            answer = await asyncio.to_thread(httpx.get, f"{url}/nodes/active/{DIGEST}")
            told = {node["node_id"] for node in answer.json().get("nodes", [])}
            found = {str(one.peer_id) for one in await peer.board.nodes_of(DIGEST)}
    finally:
        await peer.close()
        discard_identity(identity)
    assert httpx.get(f"{url}/nodes/{peer_of('pinned')}").json()["models"][0]["source"] == "dht"
    assert httpx.get(f"{url}/ready").json()["status"] == "ready"
    assert bootstrap.maddr in await bootstrap_peers(url)
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert service.events()[-1] == {"event": "stopped"}
    assert service.err.read_text() == ""


def _register(url: str, sent: SignedAnnouncement) -> httpx.Response:
    with httpx.Client(base_url=url) as client:
        body = registration("sent", audience=url, announcement=document(sent))
        return send(client, "/nodes/register", body, signer="sent", audience=url)
