"""Which blocks are thin, and who would do more good elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from discovery.placement import Move, Stretch, advise, coverage, stretches, thin
from discovery.protocol.announcement import Announcement
from tests.support.documents import announcement, peer_of

ME = peer_of("me")


def serving(name: str, first: int, end: int, **more: object) -> Announcement:
    return announcement(name, first_block=first, end_block=end, **more)


def test_each_block_counts_the_nodes_that_serve_it() -> None:
    swarm = [serving("a", 0, 4), serving("b", 3, 8), serving("c", 3, 5)]
    assert coverage(swarm, 8) == coverage(swarm, 8, ME) == [1, 1, 1, 3, 2, 1, 1, 1]


def test_who_leaves_does_not_count_and_neither_do_we() -> None:
    swarm = [serving("a", 0, 4, state="leaving"), serving("me", 0, 8), serving("b", 6, 8)]
    assert coverage(swarm, 8, ME) == [0, 0, 0, 0, 0, 0, 1, 1]


def test_an_announcement_of_a_model_with_another_number_of_blocks_is_no_cover() -> None:
    foreign = [serving("a", 8, 16, block_count=16)]
    assert coverage(foreign, 8) == [0] * 8
    assert advise(foreign, 8).moves == ()


def test_coverage_in_as_few_pieces_as_there_are() -> None:
    assert stretches([1, 1, 3, 0, 0]) == [Stretch(0, 2, 1), Stretch(2, 3, 3), Stretch(3, 5, 0)]
    assert thin([1, 1, 3, 0, 0], 2) == [Stretch(0, 2, 1), Stretch(3, 5, 0)]


def test_a_node_that_is_not_needed_goes_where_nobody_is() -> None:
    swarm = [serving("a", 0, 4), serving("b", 0, 4)]
    found = advise(swarm, 8, wanted=1)
    assert [(move.blocks, move.to) for move in found.moves] == [((0, 4), (4, 8))]
    assert found.thin == [Stretch(4, 8, 0)]
    assert found.after == (1,) * 8
    assert found.lacking == []


def test_of_several_the_least_busy_one_goes() -> None:
    busy, idle = serving("a", 0, 4, load=0.9), serving("b", 0, 4, load=0.1)
    for swarm in ([busy, idle], [idle, busy]):
        assert advise(swarm, 8, wanted=1).moves == (Move(peer_of("b"), (0, 4), (4, 8)),)


def test_nobody_leaves_blocks_that_nobody_else_has() -> None:
    found = advise([serving("a", 0, 4), serving("b", 4, 8)], 8)
    assert found.moves == ()
    assert found.lacking == [Stretch(0, 8, 1)]


def test_a_swarm_that_has_enough_is_left_alone() -> None:
    swarm = [serving(name, first, first + 4) for name, first in (("a", 0), ("b", 0), ("c", 0), ("d", 4), ("e", 4))]
    assert advise(swarm, 8).moves == ()
    assert advise(swarm, 8).move_of(peer_of("a")) is None


def test_who_is_leaving_is_advised_nothing() -> None:
    assert advise([serving("a", 0, 4), serving("b", 0, 4, state="leaving")], 8, wanted=1).moves == ()


def test_a_swarm_of_nobody_lacks_everything() -> None:
    found = advise([], 8)
    assert found.moves == ()
    assert found.lacking == [Stretch(0, 8, 0)]


def test_a_part_of_a_hole_is_better_than_none_of_it() -> None:
    swarm = [serving("a", 0, 2), serving("b", 0, 2), serving("c", 0, 2)]
    found = advise(swarm, 8, wanted=1)
    assert [move.to for move in found.moves] == [(2, 4), (4, 6)]
    assert found.lacking == [Stretch(6, 8, 0)]


def _score(covered: list[int]) -> tuple[int, int]:
    return min(covered), -covered.count(min(covered))


def _all_single_moves(swarm: list[Announcement]) -> Iterator[list[int]]:
    for place, about in enumerate(swarm):
        length = about.end_block - about.first_block
        for first in range(8 - length + 1):
            moved = about.model_copy(update={"first_block": first, "end_block": first + length})
            yield coverage([*swarm[:place], moved, *swarm[place + 1 :]], 8)


@pytest.mark.parametrize("seed", range(20))
def test_every_move_makes_it_better_and_the_coverage_afterwards_is_what_is_said(seed: int) -> None:
    chance = random.Random(seed)
    swarm = []
    for number in range(chance.randint(1, 12)):
        first = chance.randint(0, 7)
        swarm.append(serving(f"n{number}", first, chance.randint(first + 1, 8), load=chance.random()))
    found = advise(swarm, 8)
    assert len({move.peer_id for move in found.moves}) == len(found.moves)
    there, scores = list(swarm), []
    for move in (None, *found.moves):
        if move is not None:
            assert move.to[1] - move.to[0] == move.blocks[1] - move.blocks[0]
            place = next(i for i, about in enumerate(there) if about.peer_id == move.peer_id)
            assert there[place].blocks == move.blocks
            there[place] = there[place].model_copy(update={"first_block": move.to[0], "end_block": move.to[1]})
        covered = coverage(there, 8)
        scores.append(_score(covered))
    assert scores == sorted(set(scores))
    if found.moves:
        assert scores[1] == max(_score(moved) for moved in _all_single_moves(swarm))
    assert tuple(covered) == found.after
    assert advise(chance.sample(swarm, len(swarm)), 8) == found
