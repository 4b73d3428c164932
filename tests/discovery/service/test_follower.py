"""The DHT is read on a clock; what it cannot tell now stays as true as it was."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from discovery.service import follower as follower_module
from discovery.service.follower import Follower
from discovery.service.mirror import Mirror
from tests.discovery.service.doubles import Board
from tests.support.documents import DIGEST, OTHER_DIGEST, peer_of, signed_announcement


def names(mirror: Mirror, model: str = DIGEST) -> set[str]:
    return {one.peer_id for one in mirror.view(model, time.time()).entries}


async def test_what_stands_on_the_board_is_mirrored() -> None:
    board = Board([signed_announcement("a"), signed_announcement("b", model_digest=OTHER_DIGEST)])
    mirror = Mirror("far")
    follower = Follower(board, mirror, 1.0)
    assert follower.followed_at is None
    await follower.follow()
    assert (names(mirror), names(mirror, OTHER_DIGEST)) == ({peer_of("a")}, {peer_of("b")})
    assert follower.taken == 2
    assert follower.followed_at is not None
    assert board.reads == 3, "all nodes, and each of the two models"


async def test_of_many_models_some_are_read_at_a_time_and_all_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "MODELS_AT_ONCE", 2)
    board = Board([signed_announcement(f"n{number}", model_digest=f"{number:064x}") for number in range(5)])
    follower = Follower(board, Mirror("far"), 1.0)
    for _ in range(3):
        await follower.follow()
    assert [int(digest, 16) for digest in board.asked] == [0, 1, 2, 3, 4, 0]


async def test_what_a_node_takes_back_is_gone_and_an_older_word_is_counted_as_refused() -> None:
    now = int(time.time())
    before = signed_announcement("a", issued_at=now - 5)
    board, mirror = Board([before]), Mirror("far")
    follower = Follower(board, mirror, 1.0)
    await follower.follow()
    board.signed = [signed_announcement("a", state="leaving")]
    await follower.follow()
    board.signed = [before, signed_announcement("stray", swarm="another")]
    await follower.follow()
    (entry,) = mirror.node(peer_of("a"), time.time())
    assert entry.announcement.state == "leaving"
    assert follower.refused == {"proof_stale": 2, "announcement_invalid": 2}, "once more under the key of the model"


async def test_a_dht_that_is_away_for_a_while_takes_nothing_with_it() -> None:
    board, mirror = Board([signed_announcement("a")]), Mirror("far")
    follower = Follower(board, mirror, 0.001)
    following = asyncio.create_task(follower.run())
    while not names(mirror):
        await asyncio.sleep(0.001)
    board.is_away, reads = True, board.reads
    while board.reads < reads + 3:
        await asyncio.sleep(0.001)
    assert names(mirror) == {peer_of("a")}
    board.is_away, board.signed = False, [*board.signed, signed_announcement("b")]
    while len(names(mirror)) < 2:
        await asyncio.sleep(0.001)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_what_was_sent_is_carried_to_the_dht_as_it_is() -> None:
    board = Board()
    signed = signed_announcement("a")
    assert await Follower(board, Mirror("far"), 1.0).publish(signed)
    assert board.published == [signed]
