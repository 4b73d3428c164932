"""The client measures who is near, keeps nobody waiting for it, and remembers who broke off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from discovery.dht.memory import MemoryNetwork
from discovery.dht.transport import Channel, Stream
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import ReceiptInvalid
from discovery.protocol.messages import INFO_PROTOCOL, InfoRequest, NodeInfo
from discovery.score import HALF_LIFE_SECONDS, Observations, Outcome
from far_mesh import measure
from far_mesh.contributions import Verified
from far_mesh.costs import Known
from far_mesh.measure import FORGET_SECONDS, FRESH_SECONDS, PATIENCE_SECONDS, Measured
from far_mesh.route import RouteHop
from far_mesh.session import Ended
from tests.support.documents import OTHER_DIGEST, announcement, peer_of

BLOCKS = (0, 8)
INFO = NodeInfo(peer_of("any"), "", "m", "", 0, 1, 1, "none", "float32", "test", 0, 0, 0, 0, 0, 0, 0, 0)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Surroundings:
    """A client and nodes on a memory network."""

    def __init__(self) -> None:
        self.network, self.clock = MemoryNetwork(), Clock()
        self.measured = Measured(self.network.join(peer_of("client")), self.clock)
        self.nodes: list[Announcement] = []
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.at_once = self.most_at_once = 0

    async def add(self, name: str, seconds: float, first: int = 0, end: int = 8) -> str:
        await self.network.join(peer_of(name)).serve(INFO_PROTOCOL, self.answering(name, seconds))
        self.nodes.append(announcement(name, first_block=first, end_block=end))
        return peer_of(name)

    def answering(self, name: str, seconds: float) -> Callable[[Stream], Awaitable[None]]:
        async def serve(stream: Stream) -> None:
            channel = Channel(stream)
            await channel.expect(InfoRequest)
            self.asked.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(seconds)
            await self.answers.wait()
            self.at_once -= 1
            await channel.send(INFO)

        return serve

    async def look(self, patience: float = PATIENCE_SECONDS) -> None:
        await self.measured.look(self.nodes, BLOCKS, patience)

    async def settle(self) -> None:
        async with asyncio.timeout(20):
            while self.measured._asking:
                await asyncio.sleep(0.005)


@pytest.fixture
async def around() -> Surroundings:
    return Surroundings()


async def test_round_trips_to_both_ends_are_measured_and_those_in_between_are_not(around: Surroundings) -> None:
    first, last = await around.add("first", 0.0, 0, 3), await around.add("last", 0.1, 6, 8)
    await around.add("middle", 0.0, 3, 6)
    await around.look()
    await around.settle()
    known = around.measured.known().round_trips
    assert set(known) == {first, last}
    assert known[first] < 100 <= known[last]
    assert "middle" not in around.asked
    await around.measured.close()


async def test_who_answers_late_holds_nobody_up_and_is_known_the_next_time(around: Surroundings) -> None:
    slow = await around.add("slow", 0.0)
    around.answers.clear()
    await around.look()
    assert around.measured.known().round_trips == {}
    around.answers.set()
    await around.settle()
    assert around.measured.known().round_trips[slow] > 0
    await around.measured.close()


async def test_who_is_known_is_asked_again_only_after_a_while_and_nobody_waits_for_that(around: Surroundings) -> None:
    await around.add("slow", 0.0)
    await around.look()
    await around.settle()
    asked = len(around.asked)
    await around.look()
    assert not around.measured._asking
    assert len(around.asked) == asked
    around.clock.seconds += FRESH_SECONDS + 1
    around.answers.clear()
    await around.look(patience=20)
    assert around.measured._asking, "who waits for the answer waits for its deadline"
    around.answers.set()
    await around.settle()
    assert len(around.asked) > asked
    around.clock.seconds += FORGET_SECONDS + 1
    assert around.measured.known().round_trips == {}
    await around.measured.close()


async def test_a_crowd_is_asked_a_few_at_a_time_and_another_few_the_next(around: Surroundings) -> None:
    for number in range(30):
        await around.add(f"n{number}", 0.01)
    await around.look()
    await around.settle()
    few = len(around.measured.known().round_trips)
    assert 8 <= few <= 16
    assert around.most_at_once <= 16
    await around.look()
    await around.settle()
    assert len(around.measured.known().round_trips) > few
    await around.measured.close()


async def test_strangers_who_answer_nonsense_or_never_do_no_harm(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_ANSWER_SECONDS", 0.1)

    async def babble(stream: Stream) -> None:
        await stream.receive()
        await stream.send(b"\xff" * 100)

    async def say_nothing(stream: Stream) -> None:
        await asyncio.sleep(3600)

    for name, manner in (("babbler", babble), ("silent", say_nothing)):
        await around.network.join(peer_of(name)).serve(INFO_PROTOCOL, manner)
        around.nodes.append(announcement(name, end_block=8))
    around.nodes.append(announcement("unreachable", end_block=8))
    around.nodes.append(announcement("leaving", end_block=8, state="leaving"))
    honest = await around.add("honest", 0.0)
    await around.look()
    await around.settle()
    assert set(around.measured.known().round_trips) == {honest}
    await around.measured.close()


async def test_closing_ends_the_questions(around: Surroundings) -> None:
    await around.add("slow", 3600)
    await around.look()
    await around.measured.close()
    assert not around.measured._asking


async def test_who_breaks_off_is_less_reliable_until_time_or_better_sessions_heal_it(around: Surroundings) -> None:
    measured, clock = around.measured, around.clock

    def of(name: str) -> float:
        return measured.known().reliability.get(name, 1.0)

    assert of("a") == 1.0
    measured.failed(["a"])
    once = of("a")
    measured.failed(["a", "b"])
    assert of("a") < once == of("b") < 1.0
    for _ in range(20):
        measured.served(["b"])
    assert of("a") < once < of("b") < 1.0
    before = of("a")
    clock.seconds += 600
    assert before < of("a") < 1.0
    clock.seconds += FORGET_SECONDS
    assert measured.known().reliability == {}


def session_of(nodes: list[Announcement], heard_ms: float | None, *rejected: ReceiptInvalid) -> Ended:
    route = tuple(RouteHop(node, *node.blocks) for node in nodes)
    return Ended(route, (None,) * (len(nodes) - 1) + (heard_ms,), 100, Verified((), rejected))


async def test_rounds_tell_how_fast_a_node_is(around: Surroundings) -> None:
    measured = around.measured
    liar = announcement("liar", end_block=8, block_count=8, block_ms=0.2)
    assert measured.known([liar]).block_ms == {liar.peer_id: 0.2}
    for _ in range(40):
        known = Known(round_trips={liar.peer_id: 10.0})
        measured.ended(session_of([liar], 8 * 2.0 + 11.0), known)
    assert 1.8 < measured.known([liar]).block_ms[liar.peer_id] < 2.2
    other = announcement("liar", end_block=8, block_count=8, block_ms=0.2, model_digest=OTHER_DIGEST)
    assert measured.known([other]).block_ms[liar.peer_id] == 0.2, "of another model nothing is known"
    before = measured.known([liar]).block_ms
    measured.ended(session_of([liar], None), Known())
    assert measured.known([liar]).block_ms == before, "a session with too few rounds tells nothing"


async def test_who_signs_what_is_not_true_is_dishonest_for_longer_than_who_breaks_off(around: Surroundings) -> None:
    measured, told = around.measured, list[tuple[Sequence[str], Outcome, float]]()
    measured.listeners.add(lambda peers, outcome, sure: told.append((peers, outcome, sure)))
    lie = ReceiptInvalid("a lie", peer_id="liar", against="client")
    doubt = ReceiptInvalid("two who differ", peer_id="neighbour", against="neighbours")
    measured.ended(session_of([], None, lie, doubt), Known())
    assert measured.known().dishonest == {"liar"}
    assert told == [(("liar",), Outcome.REJECTED, 1.0), (("neighbour",), Outcome.REJECTED, 0.25)]
    for _ in range(4):
        measured.ended(session_of([], None, doubt), Known())
    assert measured.known().dishonest == {"liar", "neighbour"}, "it cannot always have been the other one"
    around.clock.seconds += FORGET_SECONDS + 3600
    assert "liar" in measured.known().dishonest
    around.clock.seconds += 20 * HALF_LIFE_SECONDS
    assert measured.known().dishonest == frozenset()


async def test_what_others_remember_counts_too(around: Surroundings) -> None:
    measured = around.measured
    measured.told = {
        "shaky": Observations(completed=15, pauses_caused=5),
        "solid": Observations(completed=500),
        "wrong": Observations(completed=500, probes_wrong=9),
    }
    known = measured.known()
    assert known.reliability == {"shaky": pytest.approx(0.8), "solid": 1.0, "wrong": 1.0}
    assert known.dishonest == {"wrong"}
    measured.failed(["solid"], Outcome.TIMED_OUT)
    assert measured.known().reliability["solid"] == pytest.approx(5 / 6), "what happened a moment ago counts more"


async def test_what_a_loss_costs_is_what_pauses_and_sessions_were_like(around: Surroundings) -> None:
    measured = around.measured
    before = measured.known()
    for _ in range(50):
        measured.paused(0.5)
        measured.ended(session_of([], None), Known())
    after = measured.known()
    assert 500 < after.pause_ms < 1000 < before.pause_ms
    assert 100 < after.tokens < before.tokens
