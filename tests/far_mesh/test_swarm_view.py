"""A picture of the swarm is looked at again when it is old, and only then."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from discovery.dht.board import Board
from far_mesh.swarm_view import SwarmView
from tests.support.documents import DIGEST, signed_announcement
from tests.support.ring import MemoryBoard


def board_with(*names: str) -> MemoryBoard:
    return MemoryBoard({name: signed_announcement(name) for name in names})


def view_of(board: MemoryBoard, max_age: float) -> SwarmView:
    return SwarmView(cast(Board, board), DIGEST, max_age)


async def test_a_recent_picture_is_not_taken_again() -> None:
    board = board_with("a", "b")
    view = view_of(board, 3600.0)
    for _ in range(3):
        assert len(await view.nodes()) == 2
    assert board.reads == 1


async def test_who_asks_for_a_fresh_picture_gets_one() -> None:
    board = board_with("a")
    view = view_of(board, 3600.0)
    await view.nodes()
    board.signed["b"] = signed_announcement("b")
    assert len(await view.nodes()) == 1
    assert len(await view.nodes(fresh=True)) == 2


async def test_an_empty_picture_is_looked_at_again() -> None:
    board = board_with()
    view = view_of(board, 3600.0)
    assert await view.nodes() == []
    board.signed["a"] = signed_announcement("a")
    assert len(await view.nodes()) == 1


async def test_many_who_ask_at_once_cause_one_look() -> None:
    board = board_with("a")
    view = view_of(board, 3600.0)
    assert [len(found) for found in await asyncio.gather(*(view.nodes() for _ in range(20)))] == [1] * 20
    assert board.reads == 1


async def test_what_has_ended_since_is_not_in_the_picture() -> None:
    now = int(time.time())
    board = board_with("a")
    board.signed["old"] = signed_announcement("old", issued_at=now - 100, expires_at=now - 1)
    assert [signed.peer_id for signed in await view_of(board, 3600.0).nodes()] == [signed_announcement("a").peer_id]


class TestThoseWhoAreGone:
    """Who could not be reached announces itself again when it is back."""

    async def test_they_are_not_present_until_they_announce_themselves_again(self) -> None:
        now = int(time.time())
        board = MemoryBoard({name: signed_announcement(name, issued_at=now - 10) for name in ("a", "b")})
        view = view_of(board, 0.0)
        nodes = [signed.announcement for signed in await view.nodes()]
        a, b = sorted(nodes, key=lambda node: node.peer_id != signed_announcement("a").peer_id)
        view.gone([a.peer_id, "a peer that nobody knows"])
        assert (view.present(nodes), view.absent()) == ([b], [a])
        board.signed["a"] = signed_announcement("a", issued_at=now - 9)
        renewed = [signed.announcement for signed in await view.nodes()]
        assert (view.present(renewed), view.absent()) == (renewed, [])

    async def test_who_serves_is_there(self) -> None:
        view = view_of(board_with("a"), 3600.0)
        (node,) = [signed.announcement for signed in await view.nodes()]
        view.gone([node.peer_id])
        view.back([node.peer_id])
        assert view.present([node]) == [node]
