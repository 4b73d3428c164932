"""A prober among real nodes in processes of their own: honest ones, one that does nothing, one that boasts, one that is
gone; and a discovery service that hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from discovery.dht.identity import load_identity
from discovery.protocol.announcement import SignedAnnouncement
from discovery.service.schemas import NodeAnswer
from far_mesh.cli import app
from far_mesh.opener import Swarm
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import wait_for
from tests.support.documents import signed_announcement
from tests.support.liar import LIE
from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.swarm import ANY_LOCAL_PORT, Process, run_here
from tests.swarm.conftest import RealSwarm

pytestmark = pytest.mark.swarm

LIAR = "tests.support.liar"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the liars, that nobody else asks."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    return with_bundled_tokenizer(make_model(directory, vocab_size=BUNDLED_VOCABULARY, seed=4))


@pytest.fixture
def liars(real_swarm: RealSwarm, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Process, Process]]:
    """One that does nothing, and one that boasts."""
    town, started = real_swarm.town, list[Process]()
    try:
        for lie, blocks in (("idle", (0, 4)), ("boast", (3, 6))):
            monkeypatch.setenv(LIE, lie)
            started.append(town.start_node(model, blocks, program=LIAR))
        for liar in started:
            liar.wait_until_ready()
        yield started[0], started[1]
    finally:
        for liar in started:
            liar.kill()
            town.nodes.remove(liar)


def test_each_node_is_known_for_what_it_is(
    real_swarm: RealSwarm, liars: tuple[Process, Process], model: Path, tmp_path: Path
) -> None:
    idle, boasts = liars
    absent = signed_announcement("gone", maddrs=("/ip4/127.0.0.1/tcp/1",))
    there = asyncio.run(announced(real_swarm.initial_peers, absent))
    gone = str(absent.peer_id)
    honest = [node.peer_id for node in real_swarm.demo.nodes]
    identity = tmp_path / "prober"
    probers = (load_identity(identity).peer_id,)
    with a_service(tmp_path / "service", Board(there), probers=probers, writes_per_minute=0) as service:
        wait_for(service, len(there))
        options = ["--once", "--json", "--report-to", str(service.base_url), "--identity", str(identity)]
        options += ["--initial-peers", real_swarm.initial_peers[0], "--host-maddr", ANY_LOCAL_PORT]
        ended = run_here(app, "probe", *options, "--weights", str(model), "--weights", "far-demo")
        assert ended.status == 0, ended.out + ended.err
        seen = {told["peer_id"]: told for told in ended.events if told["event"] == "probed"}
        shown = {peer_id: answer(service, peer_id) for peer_id in seen}

    for peer_id in (*honest, idle.peer_id, boasts.peer_id):
        told = seen[peer_id]
        verdict = "wrong" if peer_id == idle.peer_id else "right"
        assert (told["reach"], told["fate"], told["verdict"], told["by"]) == ("direct", "completed", verdict, "weights")
        assert told["receipt"] is True
        assert shown[peer_id].probed[0].overclaims is not None
    assert (seen[gone]["reach"], seen[gone]["fate"]) == ("none", "unasked")
    assert seen[idle.peer_id]["error"] > 0.9
    of_boasts = shown[boasts.peer_id].probed[0]
    assert of_boasts.overclaims
    assert of_boasts.block_ms is not None
    assert of_boasts.block_ms > 1
    assert shown[gone].probed[0].reach == "none"
    scores = [score.value for peer_id in (idle.peer_id, gone, honest[0]) if (score := shown[peer_id].score) is not None]
    assert len(scores) == 3
    assert scores == sorted(scores)


async def announced(initial_peers: list[str], absent: SignedAnnouncement) -> list[SignedAnnouncement]:
    """All who are announced, once ``absent`` is so as well."""
    swarm = await Swarm.join(initial_peers)
    try:
        assert await swarm.peer.board.publish(absent)
        async with asyncio.timeout(60):
            while True:
                found = await swarm.peer.board.all_nodes()
                if absent.peer_id in {one.peer_id for one in found}:
                    return found
                await asyncio.sleep(0.1)
    finally:
        await swarm.close()


def answer(service: httpx.Client, peer_id: str) -> NodeAnswer:
    return NodeAnswer.model_validate_json(service.get(f"/nodes/{peer_id}").content)
