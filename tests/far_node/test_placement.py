"""A node goes where it is decided that it goes, at the right moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

import far_node.placement as placement
from discovery.placement import NAMED_IN_VAIN, decide
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.ids import PeerId
from far_node.capacity import Range
from far_node.placement import Mover, moving
from tests.support.documents import DIGEST, announcement, peer_of


def serving(name: str, first: int, end: int, **more: object) -> Announcement:
    return announcement(name, first_block=first, end_block=end, **{"auto_place": True} | more)


@dataclass
class NodeDouble:
    """A node that does nothing but note what it is told, in a swarm that is written down."""

    swarm: list[Announcement]
    peer_id: PeerId = field(default_factory=lambda: peer_of("me"))
    roaming: tuple[str, ...] = (DIGEST,)
    sessions: int = 0
    said: list[Range | None] = field(default_factory=list)
    went: list[Range] = field(default_factory=list)
    on_set_out: Callable[[NodeDouble], None] = lambda _: None
    trouble: Exception | None = None

    def sessions_of(self, model_digest: str) -> int:
        return self.sessions

    async def nodes_of(self, model_digest: str) -> list[Announcement]:
        if self.trouble is not None:
            raise self.trouble
        return self.swarm

    async def set_out(self, model_digest: str, to: Range | None) -> None:
        self.said.append(to)
        if to is not None:
            self.on_set_out(self)

    async def go(self, model_digest: str, to: Range, watch: Callable[..., None]) -> None:
        self.went.append(to)


HOLE = [serving("a", 0, 4, auto_place=False), serving("me", 0, 4)]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "TELL_SECONDS", 0.0)


def mover_of(node: NodeDouble) -> tuple[Mover, list[str]]:
    told: list[str] = []
    return Mover(node, 600.0, lambda event, **facts: told.append(event)), told


async def test_it_says_where_it_goes_looks_again_and_goes() -> None:
    node = NodeDouble(HOLE)
    mover, told = mover_of(node)
    await mover.look(only_holes=True)
    assert (node.said, node.went, told) == ([(4, 8), None], [(4, 8)], ["moving", "moved"])


async def test_it_does_not_go_in_the_middle_of_sessions() -> None:
    node = NodeDouble(HOLE, sessions=1)
    await mover_of(node)[0].look()
    assert (node.said, node.went) == ([], [])

    def somebody_comes(node: NodeDouble) -> None:
        node.sessions = 1

    surprised = NodeDouble(HOLE, on_set_out=somebody_comes)
    await mover_of(surprised)[0].look()
    assert (surprised.said, surprised.went) == ([(4, 8), None], [])


async def test_it_stays_when_it_sees_that_somebody_else_has_set_out() -> None:
    def another_goes(node: NodeDouble) -> None:
        node.swarm = [serving("a", 0, 4, moving_to=(4, 8)), serving("me", 0, 4, moving_to=(4, 8))]

    node = NodeDouble(HOLE, on_set_out=another_goes)
    await mover_of(node)[0].look()
    assert (node.said, node.went) == ([(4, 8), None], [])


async def test_it_stays_when_the_one_that_was_to_keep_its_blocks_is_gone_meanwhile() -> None:
    def the_other_leaves(node: NodeDouble) -> None:
        node.swarm = [serving("me", 0, 4, moving_to=(4, 8))]

    node = NodeDouble(HOLE, on_set_out=the_other_leaves)
    await mover_of(node)[0].look()
    assert (node.said, node.went) == ([(4, 8), None], []), "what it had seen counts no longer"


async def test_blocks_that_somebody_only_says_to_be_coming_to_are_not_left() -> None:
    there = [serving("me", 0, 4, block_count=12), serving("keeper", 4, 8, auto_place=False, block_count=12)]
    there += [serving(f"n{number}", 8, 12, auto_place=False, block_count=12) for number in range(150)]
    node = NodeDouble([*there, *(serving(name, 8, 12, block_count=12, moving_to=(0, 4)) for name in ("liar", "other"))])
    await mover_of(node)[0].look()
    assert node.went == [], "whether it comes or not, until then 0:4 would be a hole"
    node.swarm = [*there, *(serving(name, 0, 4, auto_place=False, block_count=12) for name in ("liar", "other"))]
    await mover_of(node)[0].look()
    assert node.went == [(4, 8)], "now somebody serves what it leaves"


async def test_while_there_is_no_hole_it_only_moves_when_it_looks_at_everything() -> None:
    crowd = [serving(f"n{number}", 0, 4, auto_place=False) for number in range(6)]
    node = NodeDouble([serving("me", 0, 4), *crowd, serving("b", 4, 8)])
    mover, _ = mover_of(node)
    await mover.look(only_holes=True)
    assert node.went == []
    await mover.look()
    assert node.went == [(4, 8)]


async def test_who_is_named_and_does_not_go_is_not_waited_for_for_ever() -> None:
    names = [peer_of(f"n{number}") for number in range(3)]
    swarm = [serving(f"n{number}", 0, 4) for number in range(3)]
    [first] = [name for name in names if decide(name, swarm, 8).move]
    [second] = [name for name in names if decide(name, swarm, 8, [first]).move]
    node = NodeDouble(swarm, second)
    mover, _ = mover_of(node)
    for _ in range(NAMED_IN_VAIN):
        await mover.look(only_holes=True)
        assert node.went == []
    await mover.look(only_holes=True)
    assert node.went == [(4, 8)]


async def test_who_says_for_too_long_that_it_comes_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [peer_of(f"n{number}") for number in range(3)]
    there = [serving(f"n{number}", 0, 4) for number in range(3)]
    [liar] = [name for name in names if decide(name, there, 8).move]
    [second] = [name for name in names if decide(name, there, 8, [liar]).move]
    swarm = [about.model_copy(update={"moving_to": (4, 8)}) if about.peer_id == liar else about for about in there]
    node = NodeDouble(swarm, second)
    mover, _ = mover_of(node)
    await mover.look(only_holes=True)
    assert node.went == [], "it may be loading"
    monkeypatch.setattr("discovery.placement.PROMISE_SECONDS", 0.0)
    await mover.look(only_holes=True)
    assert node.went == [(4, 8)], "at once, though the liar would be the best to go"


async def test_a_swarm_that_does_not_know_of_it_is_no_reason_to_go() -> None:
    node = NodeDouble([serving("a", 0, 4)])
    await mover_of(node)[0].look()
    assert node.went == []


@pytest.mark.parametrize("trouble", [PeerUnavailable("no DHT peer answers"), RuntimeError("a bug")], ids=str)
async def test_what_the_dht_has_met_ends_nothing(trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "HOLE_SECONDS", 0.005)
    node = NodeDouble(HOLE, trouble=trouble)
    async with moving(node, 1.0, lambda event, **facts: None):
        await asyncio.sleep(0.03)
        node.trouble = None
        async with asyncio.timeout(60):
            while not node.went:
                await asyncio.sleep(0.005)
    assert node.went[0] == (4, 8)


async def test_a_node_that_stays_does_not_look() -> None:
    node = NodeDouble(HOLE, trouble=RuntimeError("it looked"))
    async with moving(node, None, lambda event, **facts: None):
        await asyncio.sleep(0)
    assert node.went == []
