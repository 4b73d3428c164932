"""Gates: who waits is told the truth about it, nobody is forgotten, and what nodes refuse is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from discovery.protocol.errors import FarError, PeerUnavailable
from far_mesh.errors import NoRoute
from far_mesh.marketplace.errors import Conflict, QueueFull, QueueTimeout, ShuttingDown
from far_mesh.marketplace.inference import admission
from far_mesh.marketplace.inference.admission import Admission, Gate, Place, Rules, Survey, Ticket
from far_mesh.marketplace.inference.queue import Claim
from far_node.errors import Busy, OutOfCache

NO_ROOM = (Busy, OutOfCache)
ROOMY = Rules(size=100, size_per_account=100, seconds=30.0, most_sessions=0)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Swarm:
    """What the nodes take."""

    def __init__(self, sessions: int, obstacle: FarError | None = None) -> None:
        self.survey = Survey(sessions, obstacle)

    async def look(self) -> Survey:
        """As it is now."""
        return self.survey


async def enter(gate: Gate, account: str = "ann", **more: int) -> Ticket:
    """Somebody stands in line."""
    ticket = Ticket(gate, Claim(account, "standard", **more), lambda: None)
    await gate.enter(ticket)
    return ticket


async def measured(gate: Gate, clock: Clock, seconds: float) -> None:
    """One session that took so long."""
    ticket = await enter(gate)
    clock.time += seconds
    ticket.leave()


async def until(condition: Callable[[], bool]) -> None:
    """Until it is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_each_that_is_refused_is_told_when_there_is_a_place_and_there_is() -> None:
    clock = Clock()
    gate = Gate(Swarm(1).look, Rules(2, 2, 30.0, 0), clock)
    await measured(gate, clock, 10.0)
    inside = [await enter(gate, name) for name in ("ann", "bob", "cid")]
    told = []
    for account in ("dan", "eve"):
        with pytest.raises(QueueFull) as refused:
            await enter(gate, account)
        told.append(refused.value.retry_after)
    assert told == [10.0, 20.0]
    clock.time += 9.9
    with pytest.raises(QueueFull):
        await enter(gate, "dan")
    clock.time += 0.1
    inside[0].leave()
    await enter(gate, "dan")
    clock.time += 10.0
    inside[1].leave()
    await enter(gate, "eve")


async def test_an_account_with_all_its_places_taken_is_told_when_its_next_request_goes_in() -> None:
    clock = Clock()
    gate = Gate(Swarm(2).look, Rules(100, 2, 30.0, 0), clock)
    await measured(gate, clock, 10.0)
    for _ in range(4):
        await enter(gate, "ann")
    with pytest.raises(QueueFull, match="2 of your requests") as refused:
        await enter(gate, "ann")
    assert refused.value.retry_after == 5.0
    await enter(gate, "bob")


async def test_who_waits_is_told_where_and_how_long() -> None:
    clock = Clock()
    gate = Gate(Swarm(2).look, ROOMY, clock)
    await measured(gate, clock, 10.0)
    tickets = [await enter(gate, f"user {number}") for number in range(5)]
    assert [ticket.place for ticket in tickets] == [None, None, Place(1, 5.0), Place(2, 10.0), Place(3, 15.0)]
    one_by_one = [await enter(gate, "frank", concurrency=1) for _ in range(2)]
    assert [ticket.place for ticket in one_by_one] == [Place(4, 20.0), Place(5, 25.0)]
    tickets[3].give_up(PeerUnavailable("gone"))
    assert one_by_one[0].place == Place(3, 15.0)
    alone = Gate(Swarm(10).look, ROOMY, clock)
    await measured(alone, clock, 10.0)
    mine = [await enter(alone, concurrency=1) for _ in range(3)]
    assert [ticket.place for ticket in mine] == [None, Place(1, 10.0), Place(2, 20.0)]


async def test_who_has_waited_too_long_is_told_so_and_when_to_come_back() -> None:
    gate = Gate(Swarm(1).look, Rules(10, 10, 0.02, 0))
    inside, waits = await enter(gate), await enter(gate, "bob")
    await inside.turn()
    with pytest.raises(QueueTimeout) as refused:
        await waits.turn()
    assert refused.value.retry_after == pytest.approx(admission.FIRST_GUESS_SECONDS)
    waits.leave()
    assert (gate.waiting, gate.in_use) == (0, 1)


async def test_where_there_are_no_nodes_that_is_what_is_told() -> None:
    gate = Gate(Swarm(0, NoRoute("no node serves blocks 3:6")).look, Rules(10, 10, 0.02, 0))
    waits = await enter(gate)
    assert waits.place is not None
    assert waits.place.obstacle == "no node serves blocks 3:6"
    with pytest.raises(NoRoute):
        await waits.turn()


async def test_nodes_that_come_let_those_in_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LOOK_SECONDS", 0.005)
    swarm = Swarm(0, NoRoute("none"))
    gate = Gate(swarm.look, ROOMY)
    waits = [await enter(gate, name) for name in ("ann", "bob", "cid")]
    swarm.survey = Survey(2)
    await waits[0].turn()
    await waits[1].turn()
    assert waits[2].has_to_wait
    swarm.survey = Survey(3)
    await waits[2].turn()
    await until(lambda: gate._watching is None)


async def test_the_operator_may_allow_fewer_sessions_than_the_nodes_take() -> None:
    gate = Gate(Swarm(10).look, Rules(10, 10, 30.0, most_sessions=1))
    assert not (await enter(gate)).has_to_wait
    assert (await enter(gate, "bob")).has_to_wait


async def test_who_gives_up_or_is_cancelled_takes_nobodys_turn() -> None:
    gate = Gate(Swarm(1).look, ROOMY)
    inside, leaves, cancelled, last = [await enter(gate, name) for name in ("ann", "bob", "cid", "dan")]
    waiting = asyncio.create_task(cancelled.turn())
    leaving = asyncio.create_task(leaves.turn())
    await asyncio.sleep(0)
    leaves.give_up(PeerUnavailable("the reader is gone"))
    with pytest.raises(PeerUnavailable):
        await leaving
    inside.leave()  # it is the turn of one who is cancelled before it hears of it
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert last.has_to_wait
    cancelled.leave()
    await last.turn()
    cancelled.leave()
    assert (gate.waiting, gate.in_use) == (0, 1)


async def test_a_gateway_that_stops_sends_away_who_waits_and_disturbs_nobody_else() -> None:
    swarm = Swarm(1)
    rooms = Admission(ROOMY, {"tiny": swarm.look})
    inside = await rooms.enter("tiny", "one", Claim("ann", "standard"))
    waits = await rooms.enter("tiny", "two", Claim("bob", "standard"))
    rooms.close(ShuttingDown("it stops", retry_after=5.0))
    with pytest.raises(ShuttingDown):
        await waits.turn()
    inside.leave()
    assert rooms.gates["tiny"].in_use == 0


async def test_a_name_has_one_ticket_at_a_time() -> None:
    rooms = Admission(Rules(1, 1, 30.0, 0), {"tiny": Swarm(1).look})
    inside = await rooms.enter("tiny", "one", Claim("ann", "standard"))
    with pytest.raises(Conflict):
        await rooms.enter("tiny", "one", Claim("ann", "standard"))
    waits = await rooms.enter("tiny", "two", Claim("ann", "standard"))
    with pytest.raises(QueueFull):
        await rooms.enter("tiny", "three", Claim("ann", "standard"))
    inside.leave()
    again = await rooms.enter("tiny", "one", Claim("bob", "standard"))
    inside.leave()
    with pytest.raises(Conflict):
        await rooms.enter("tiny", "one", Claim("bob", "standard"))
    waits.leave()
    again.leave()
    await rooms.enter("tiny", "three", Claim("ann", "standard"))


# ---- nodes that have no room


class Nodes:
    """Refuse so often, and then take it."""

    def __init__(self, *refusals: FarError) -> None:
        self.refusals = list(refusals)

    async def begin(self) -> str:
        """Open a session."""
        if self.refusals:
            raise self.refusals.pop(0)
        return "a session"


async def test_a_refusal_of_the_nodes_is_no_failure_and_lessens_what_is_asked_of_them() -> None:
    clock = Clock()
    gate = Gate(Swarm(8).look, ROOMY, clock)
    inside = [await enter(gate, f"user {number}") for number in range(8)]
    nodes = Nodes(Busy("64 sessions are open", retry_after=0.01), OutOfCache("no cache", retry_after=0.01))
    assert await inside[0].open(nodes.begin, NO_ROOM) == "a session"
    assert 6 <= gate.capacity < 8
    waits = await enter(gate, "zoe")
    inside[1].leave()
    assert waits.has_to_wait
    for _ in range(20):
        await inside[0].open(Nodes().begin, NO_ROOM)
    assert gate.capacity == 8
    assert not waits.has_to_wait


async def test_nodes_that_never_have_room_are_asked_for_as_long_as_one_may_wait() -> None:
    gate = Gate(Swarm(2).look, Rules(10, 10, 0.05, 0))
    inside = await enter(gate)
    with pytest.raises(Busy):
        await inside.open(Nodes(*(Busy("no", retry_after=0.01) for _ in range(1000))).begin, NO_ROOM)
    assert gate.capacity == 1
    with pytest.raises(PeerUnavailable):
        await inside.open(Nodes(PeerUnavailable("lost")).begin, NO_ROOM)


async def test_who_waits_for_room_at_the_nodes_is_seen_to_and_may_leave() -> None:
    gate = Gate(Swarm(2).look, ROOMY)
    inside = await enter(gate)
    opening = asyncio.create_task(inside.open(Nodes(Busy("no", retry_after=20.0)).begin, NO_ROOM))
    await until(lambda: inside.place is not None)
    assert inside.place is not None
    assert (inside.place.position, inside.place.obstacle) == (0, None)
    inside.give_up(PeerUnavailable("the reader is gone"))
    with pytest.raises(PeerUnavailable):
        await opening
