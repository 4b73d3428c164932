"""A node knows how far its neighbours are, and says no more of itself than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from discovery.dht.memory import MemoryNetwork
from discovery.dht.transport import Channel, Stream
from discovery.protocol.announcement import MAX_BLOCK_MS, MAX_LINKS, MIN_LINK_MS, Announcement
from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.messages import INFO_PROTOCOL, InfoRequest, NodeInfo
from far_node import links as links_module
from far_node.links import LinkMeter, block_ms, load_facts, nearest
from tests.support.documents import announcement, peer_of
from tests.support.models import make_model
from tests.support.ring import blocks_of


def node(name: str, first: int, end: int, **facts: object) -> Announcement:
    return announcement(name, block_count=100, first_block=first, end_block=end, **facts)


INFO = NodeInfo(peer_of("any"), "", "m", "", 0, 1, 1, "none", "float32", "test", 0, 0, 0, 0, 0, 0, 0, 0)


def answering(seconds: Callable[[], float]) -> Callable[[Stream], Awaitable[None]]:
    async def serve(stream: Stream) -> None:
        channel = Channel(stream)
        await channel.expect(InfoRequest)
        await asyncio.sleep(seconds())
        await channel.send(INFO)

    return serve


class Street:
    """A node and its neighbours on a memory network."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.here = self.network.join(peer_of("here"))
        self.delays: dict[str, float] = {}
        self.nodes: list[Announcement] = []
        self.rounds = 0
        self.told = 0

    async def add(self, name: str, seconds: float, first: int = 10, end: int = 20) -> None:
        self.delays[name] = seconds
        transport = self.network.join(peer_of(name))
        await transport.serve(INFO_PROTOCOL, answering(lambda: self.delays[name]))
        self.nodes.append(node(name, first, end))

    async def find(self) -> list[Announcement]:
        self.rounds += 1
        return self.nodes

    def tell(self) -> None:
        self.told += 1

    def meter(self) -> LinkMeter:
        return LinkMeter(self.here, node("here", 0, 10), self.find, self.tell)

    async def until_round(self, number: int) -> None:
        async with asyncio.timeout(20):
            while self.rounds < number:
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "FIRST_ROUND_SECONDS", 0.01)
    monkeypatch.setattr(links_module, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(links_module, "_ANSWER_SECONDS", 0.2)


@pytest.fixture
async def street() -> Street:
    return Street()


async def test_round_trips_are_measured_and_told_once_they_are_known(street: Street) -> None:
    await street.add("near", 0.0)
    await street.add("far", 0.05)
    meter = street.meter()
    assert meter.links() == ()
    meter.start()
    await street.until_round(4)
    await meter.stop()
    links = dict(meter.links())
    assert MIN_LINK_MS <= links[peer_of("near")] < 25 < 50 <= links[peer_of("far")] < 100
    assert street.told == 1
    announcement("here", links=meter.links())


async def test_a_moment_of_haste_or_hurry_counts_for_what_it_is(street: Street) -> None:
    await street.add("other", 0.02)
    meter = street.meter()
    meter.start()
    await street.until_round(3)
    street.delays["other"] = 0.1
    await street.until_round(street.rounds + 2)
    assert meter.links()[0][1] < 50, "it waited for something else"
    street.delays["other"] = 0.0
    await street.until_round(street.rounds + 2)
    await meter.stop()
    assert meter.links()[0][1] < 20, "the way is shorter than was thought"


async def test_who_does_not_answer_again_and_again_is_no_longer_told_of(street: Street) -> None:
    await street.add("other", 0.0)
    meter = street.meter()
    meter.start()
    await street.until_round(3)
    assert len(meter.links()) == 1
    street.network.cut(peer_of("other"))
    await street.until_round(street.rounds + 6)
    assert meter.links() == ()
    await meter.stop()


async def test_who_has_left_is_forgotten(street: Street) -> None:
    await street.add("other", 0.0)
    meter = street.meter()
    meter.start()
    await street.until_round(3)
    street.nodes.clear()
    await street.until_round(street.rounds + 2)
    await meter.stop()
    assert meter.links() == ()


async def test_a_stranger_who_answers_nonsense_or_never_does_no_harm(street: Street) -> None:
    async def babble(stream: Stream) -> None:
        await stream.receive()
        await stream.send(b"\xff" * 100)

    async def say_nothing(stream: Stream) -> None:
        await asyncio.sleep(3600)

    for name, manner in (("babbler", babble), ("silent", say_nothing)):
        await street.network.join(peer_of(name)).serve(INFO_PROTOCOL, manner)
        street.nodes.append(node(name, 10, 20))
    street.nodes.append(node("unreachable", 10, 20))
    await street.add("honest", 0.0)
    meter = street.meter()
    meter.start()
    await street.until_round(3)
    await meter.stop()
    assert [peer_id for peer_id, _ in meter.links()] == [peer_of("honest")]


async def test_a_dht_that_fails_is_asked_again(street: Street) -> None:
    await street.add("other", 0.0)
    troubles: list[Exception] = [ConnectionError("the daemon is busy"), PeerUnavailable("gone")]

    async def find() -> list[Announcement]:
        street.rounds += 1
        if troubles:
            raise troubles.pop()
        return street.nodes

    meter = LinkMeter(street.here, node("here", 0, 10), find)
    meter.start()
    await street.until_round(5)
    await meter.stop()
    assert len(meter.links()) == 1


def test_those_that_touch_come_first_then_those_that_overlap_then_the_rest_by_their_distance() -> None:
    here = node("here", 40, 60)
    touching = [node("t1", 60, 70), node("t2", 20, 40)]
    overlapping = [node("o1", 50, 70), node("o2", 30, 45), node("o3", 30, 70)]
    inside, near, far = node("i", 45, 50), node("n", 62, 70), node("f", 90, 100)
    leaving = node("l", 60, 80, state="leaving")
    swarm = [far, inside, near, leaving, *overlapping, here, *touching]
    order = nearest(here, swarm)
    assert set(order[:2]) == set(touching)
    assert set(order[2:5]) == set(overlapping)
    assert order[5:] == [inside, near, far]


def test_there_are_never_more_than_an_announcement_holds_and_they_stay_the_same() -> None:
    here = node("here", 0, 10)
    crowd = [node(f"n{number}", 10, 20) for number in range(40)]
    chosen = nearest(here, crowd)
    assert len(chosen) == MAX_LINKS
    again = nearest(here, crowd, {one.peer_id for one in chosen})
    assert {one.peer_id for one in again} == {one.peer_id for one in chosen}
    assert any(nearest(here, crowd) != chosen for _ in range(20)), "another node would ask others"


def test_the_speed_of_a_block_is_measured_on_the_blocks(tmp_path_factory: pytest.TempPathFactory) -> None:
    blocks = blocks_of(make_model(tmp_path_factory.mktemp("model") / "small"), 0, 2)
    each = block_ms(blocks)
    assert 0 < each < MAX_BLOCK_MS
    announcement(block_ms=each)


def test_load_is_bounded_and_grows_with_what_waits() -> None:
    calm = load_facts(queued=0, batch=16, pass_ms=20.0, open_sessions=0, max_sessions=64)
    busy = load_facts(queued=32, batch=16, pass_ms=20.0, open_sessions=48, max_sessions=64)
    absurd = load_facts(queued=10**9, batch=1, pass_ms=1e5, open_sessions=100, max_sessions=64)
    assert calm == {"queue_ms": 0.0, "load": 0.0}
    assert busy == {"queue_ms": 40.0, "load": 0.75}
    for facts in (calm, busy, absurd):
        announcement(**facts)
