"""An announcement is renewed before it ends, and taken back when its node goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from discovery.dht.board import Board
from discovery.protocol.announcement import LIFETIME_SECONDS, SignedAnnouncement, read_announcement
from discovery.protocol.errors import PeerUnavailable
from far_node import announcer as announcer_module
from far_node.announcer import Announcer
from tests.support.documents import announcement, key_of


class Wall:
    """A notice board that keeps everything that was ever pinned to it, or takes nothing."""

    def __init__(self) -> None:
        self.pinned: list[SignedAnnouncement] = []
        self.moved = asyncio.Condition()
        self.answers: list[bool | Exception] = []

    async def publish(self, signed: SignedAnnouncement) -> bool:
        answer = self.answers.pop(0) if self.answers else True
        async with self.moved:
            self.pinned.append(read_announcement(signed.to_bytes()))
            self.moved.notify_all()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20), self.moved:
            await self.moved.wait_for(lambda: len(self.pinned) >= count)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "RENEW_SECONDS", 0.001)
    monkeypatch.setattr(announcer_module, "_RETRY_SECONDS", 0.001)


@pytest.fixture
async def wall() -> Wall:
    return Wall()


@pytest.fixture
async def announcer(wall: Wall) -> AsyncIterator[Announcer]:
    made = Announcer(cast(Board, wall), announcement(), key_of("node"))
    yield made
    await made.stop()


async def test_it_is_pinned_at_the_start_and_again_and_again(wall: Wall, announcer: Announcer) -> None:
    await announcer.start()
    assert len(wall.pinned) == 1
    await wall.until(4)
    assert {signed.announcement.state for signed in wall.pinned} == {"ready"}


async def test_each_outlives_the_one_before_so_that_the_dht_takes_it(wall: Wall, announcer: Announcer) -> None:
    await announcer.start()
    await wall.until(5)
    await announcer.stop()
    ends = [signed.announcement.expires_at for signed in wall.pinned]
    assert ends == sorted(set(ends))
    for signed in wall.pinned:
        assert signed.announcement.is_live()
        assert signed.announcement.expires_at - signed.announcement.issued_at >= LIFETIME_SECONDS


async def test_at_the_end_it_says_that_the_node_is_leaving_and_no_more(wall: Wall, announcer: Announcer) -> None:
    await announcer.start()
    await announcer.stop()
    assert wall.pinned[-1].announcement.state == "leaving"
    count = len(wall.pinned)
    await asyncio.sleep(0.02)
    assert len(wall.pinned) == count


async def test_a_dht_that_is_slow_to_take_it_is_asked_again(wall: Wall, announcer: Announcer) -> None:
    wall.answers = [False, False]
    await announcer.start()
    assert len(wall.pinned) == 3


async def test_a_dht_that_never_takes_it_is_an_error(wall: Wall, announcer: Announcer) -> None:
    wall.answers = [False] * 100
    with pytest.raises(PeerUnavailable, match="no DHT peer took the announcement"):
        await announcer.start()


async def test_a_dht_that_is_gone_does_not_keep_a_node_from_leaving(wall: Wall, announcer: Announcer) -> None:
    await announcer.start()
    wall.answers = [ConnectionError("the daemon is gone")] * 1000
    await announcer.stop()


@pytest.mark.parametrize("trouble", [False, ConnectionError("the daemon is busy"), RuntimeError("no peers")], ids=repr)
async def test_one_renewal_that_fails_is_not_the_last(wall: Wall, announcer: Announcer, trouble: Any) -> None:
    wall.answers = [True, trouble, trouble]
    await announcer.start()
    await wall.until(6)
    assert wall.pinned[-1].announcement.state == "ready"


async def test_what_changes_is_asked_anew_each_time(wall: Wall) -> None:
    loads = iter(range(1, 1000))
    made = Announcer(cast(Board, wall), announcement(), key_of("node"), lambda: {"load": next(loads) / 1000})
    await made.start()
    await wall.until(3)
    await made.stop()
    said = [signed.announcement.load for signed in wall.pinned]
    assert said == [number / 1000 for number in range(1, len(said) + 1)]
    assert wall.pinned[-1].announcement.state == "leaving"


async def test_news_does_not_wait_for_the_next_renewal(wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "RENEW_SECONDS", 3600.0)
    made = Announcer(cast(Board, wall), announcement(), key_of("node"))
    await made.start()
    await asyncio.sleep(0.01)
    assert len(wall.pinned) == 1
    made.renew_soon()
    await wall.until(2)
    await asyncio.sleep(0.01)
    await made.stop()
    assert [signed.announcement.state for signed in wall.pinned] == ["ready", "ready", "leaving"]
