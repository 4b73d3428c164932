"""A peer learns from others whether they get through to it, and says why not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discovery.dht import dialback, reach
from discovery.dht.dialback import Answer, Outcome
from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from discovery.dht.reach import NOT_ASKED, Reach, of_answers, of_relays


def saw(outcome: Outcome, ip: str | None = "203.0.113.7") -> Answer:
    return Answer(time=0.0, ip=ip, source_port=1, outcome=outcome)


@pytest.mark.parametrize(
    ("answers", "way", "why"),
    [
        ({}, None, "none of the initial peers dials back"),
        ({"A": None}, None, "none of the initial peers dials back"),
        ({"A": saw("reached")}, "direct", "A got through to 203.0.113.7:31330"),
        ({"A": saw("reached", "2001:db8::7")}, "direct", "A got through to [2001:db8::7]:31330"),
        ({"A": saw("silent"), "B": saw("reached")}, "direct", "B got through"),
        ({"A": saw("refused")}, "none", "A dialed 203.0.113.7:31330, and the connection was refused"),
        ({"A": saw("silent")}, "none", "nothing answered, as with a router"),
        ({"A": None, "B": saw("silent"), "C": saw("too_often")}, "none", "B dialed"),
        (
            {"A": saw("silent"), "B": saw("stranger")},
            "none",
            "B dialed 203.0.113.7:31330, and another program answered",
        ),
        ({"A": saw("too_often")}, None, "asked too often"),
        ({"A": saw("relayed", None)}, None, "tells no address to dial"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_answers_of_those_who_dialed_back_mean(
    answers: dict[str, Answer | None], way: str | None, why: str
) -> None:
    found = of_answers(31330, answers)
    assert found.way == way
    assert why in found.why


def test_a_peer_behind_relays_is_reached_through_those_it_has_a_slot_at() -> None:
    assert of_relays(("A", "B")) == Reach("relay", "through the relay A and the relay B")
    assert of_relays(()).way == "none"


@pytest.fixture
async def bootstrap(tmp_path: Path) -> AsyncIterator[SwarmPeer]:
    peer = await SwarmPeer.start(load_identity(tmp_path / "bootstrap"), PeerConfig(dials_back=True))
    yield peer
    with contextlib.suppress(Exception):
        await peer.close()


async def known(peer: SwarmPeer, way: str | None) -> Reach:
    async with asyncio.timeout(60):
        while peer.reach is NOT_ASKED or peer.reach.way != way:
            await asyncio.sleep(0.02)
    return peer.reach


async def test_a_peer_knows_that_it_is_reached_or_that_the_port_it_names_is_closed(
    bootstrap: SwarmPeer, tmp_path: Path
) -> None:
    initial_peers = await bootstrap.maddrs()
    open_one = await SwarmPeer.start(load_identity(tmp_path / "open"), PeerConfig(initial_peers=initial_peers))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        closed = taken.getsockname()[1]
        wrong = PeerConfig(initial_peers=initial_peers, announce_maddrs=(f"/ip4/127.0.0.1/tcp/{closed}",))
        closed_one = await SwarmPeer.start(load_identity(tmp_path / "closed"), wrong)
        found = await known(closed_one, "none")
    assert found.why == f"{bootstrap.peer_id} dialed 127.0.0.1:{closed}, and the connection was refused"
    assert f"{bootstrap.peer_id} got through to 127.0.0.1:" in (await known(open_one, "direct")).why
    assert bootstrap.reach is NOT_ASKED
    for peer in (open_one, closed_one):
        await peer.close()


async def test_what_is_known_stays_when_nobody_can_tell_any_more_and_changes_when_somebody_does(
    bootstrap: SwarmPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Outcome] = ["too_often", "reached", "too_often", "silent"]
    monkeypatch.setattr(reach, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(reach, "ASK_AGAIN_SECONDS", 0.01)
    asked = asyncio.Event()
    seen: list[str | None] = []

    async def answer(*_: object) -> Answer:
        seen.append(peer.reach.way)
        if not answers:
            asked.set()
            await asyncio.Event().wait()
        return saw(answers.pop(0))

    monkeypatch.setattr(dialback, "ask", answer)
    peer = await SwarmPeer.start(load_identity(tmp_path / "peer"), PeerConfig(initial_peers=await bootstrap.maddrs()))
    await asyncio.wait_for(asked.wait(), 60)
    assert seen == [None, None, "direct", "direct", "none"]
    await peer.close()
