"""Streams without a session: bounded for each peer, bounded for all, and not for long."""

from __future__ import annotations

import asyncio

import pytest

from far_node.errors import Busy
from far_node.lobby import Lobby
from tests.support.documents import peer_of

A, B, C = peer_of("a"), peer_of("b"), peer_of("c")


async def wait(lobby: Lobby, peer: str, patience: float = 20.0) -> None:
    async with lobby.wait(peer, patience):  # type: ignore[arg-type]
        await asyncio.Event().wait()


async def waiting(lobby: Lobby, *peers: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(wait(lobby, peer)) for peer in peers]
    await asyncio.sleep(0)
    return tasks


async def until_ended(count: int, tasks: list[asyncio.Task[None]]) -> None:
    async with asyncio.timeout(20):
        while sum(task.done() for task in tasks) < count:
            await asyncio.sleep(0)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_waits_too_long_goes() -> None:
    lobby = Lobby(2, 2)
    with pytest.raises(TimeoutError):
        await wait(lobby, A, 0.01)
    assert len(lobby) == 0


async def test_a_peer_that_has_taken_its_places_is_refused_and_others_are_not() -> None:
    lobby = Lobby(10, 2)
    tasks = await waiting(lobby, A, A)
    with pytest.raises(Busy, match="2 of your streams") as refused:
        await wait(lobby, A)
    assert refused.value.retry_after
    tasks += await waiting(lobby, B)
    assert len(lobby) == 3
    await end(*tasks)
    assert len(lobby) == 0
    await end(*await waiting(lobby, A, A))


async def test_when_all_places_are_taken_the_longest_wait_ends() -> None:
    lobby = Lobby(3, 2)
    tasks = await waiting(lobby, A, A, B)
    tasks += await waiting(lobby, B, C)
    await until_ended(2, tasks)
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    assert {type(task.exception()) for task in tasks[:2]} == {TimeoutError}
    assert len(lobby) == 3
    await end(*tasks)


async def test_many_that_come_at_once_find_no_more_places_than_there_are() -> None:
    lobby = Lobby(8, 8)
    tasks = [asyncio.create_task(wait(lobby, peer_of(str(number)))) for number in range(100)]
    await until_ended(92, tasks)
    assert len(lobby) == 8
    assert [task.done() for task in tasks] == [True] * 92 + [False] * 8
    await end(*tasks)
