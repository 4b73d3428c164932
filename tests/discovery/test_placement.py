"""Which blocks are thin, who would do more good elsewhere, and who goes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from benchmarks.support.throughput import most_tokens
from discovery.balance import Balance, Choice, Machine, Model, Option, Seat
from discovery.placement import (
    NAMED_IN_VAIN,
    PROMISE_SECONDS,
    Decision,
    Move,
    Patience,
    Promises,
    Stretch,
    advise,
    choose,
    coverage,
    decide,
    place,
    plan,
    planned,
    site_at,
    stretches,
    thin,
)
from discovery.protocol.announcement import Announcement
from discovery.protocol.ids import PeerId
from far_node.capacity import share_blocks
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


def test_a_hot_spot_gets_another_node() -> None:
    """Where nodes are busy one more is needed, though as many are there as elsewhere."""
    there = [serving(name, 0, 4, load=1.0) for name in ("a", "b", "c")]
    swarm = [*there, *(serving(name, 4, 8, load=0.0) for name in ("d", "e", "f", "g", "h", "i"))]
    assert {move.to for move in advise(swarm, 8).moves} == {(0, 4)}


def test_holes_that_no_single_move_closes_are_closed_by_several() -> None:
    """Three nodes have just enough, but two overlap, and the one that is not needed is too short for the hole."""
    swarm = [serving("short", 0, 2), serving("a", 0, 3), serving("b", 2, 5)]
    found = advise(swarm, 8, wanted=1)
    assert found.lacking == []
    assert min(found.after) == 1


def test_a_node_under_way_counts_where_it_goes() -> None:
    swarm = [serving("a", 0, 4), serving("b", 0, 4, state="leaving", moving_to=(4, 8)), serving("c", 0, 4)]
    found = advise(swarm, 8, wanted=1)
    assert found.moves == ()
    assert found.now == (2, 2, 2, 2, 0, 0, 0, 0)
    assert found.after == (2, 2, 2, 2, 1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_moves_are_of_the_same_length_open_no_hole_and_are_the_same_for_everybody(seed: int) -> None:
    chance = random.Random(seed)
    swarm = []
    for number in range(chance.randint(1, 12)):
        first = chance.randint(0, 7)
        swarm.append(serving(f"n{number}", first, chance.randint(first + 1, 8), load=chance.random()))
    found = advise(swarm, 8)
    assert len({move.peer_id for move in found.moves}) == len(found.moves)
    there = {about.peer_id: about for about in swarm}
    for move in found.moves:
        assert there[move.peer_id].blocks == move.blocks
        assert move.to[1] - move.to[0] == move.blocks[1] - move.blocks[0]
        moved = {"first_block": move.to[0], "end_block": move.to[1]}
        there[move.peer_id] = there[move.peer_id].model_copy(update=moved)
    assert tuple(coverage(swarm, 8)) == found.now
    assert tuple(coverage(there.values(), 8)) == found.after
    assert found.after.count(0) <= found.now.count(0)
    assert advise(chance.sample(swarm, len(swarm)), 8) == found


# ---- a node for itself


def going(name: str, first: int, end: int, **more: object) -> Announcement:
    return serving(name, first, end, auto_place=True, **more)


def decided(name: str, swarm: list[Announcement], excluded: tuple[str, ...] = ()) -> Decision:
    return decide(peer_of(name), swarm, 8, [peer_of(one) for one in excluded], wanted=1)


def test_of_all_that_could_close_a_hole_one_goes_and_the_others_know_it() -> None:
    names = [f"n{number}" for number in range(3)]
    swarm = [going(name, 0, 4) for name in names]
    found = {name: decided(name, swarm) for name in names}
    [goes] = [name for name in names if found[name].move is not None]
    assert found[goes].move == Move(peer_of(goes), (0, 4), (4, 8))
    for name in set(names) - {goes}:
        assert found[name].others == (found[goes].move,)
        assert found[name].why == "others go where it would be needed"


def test_who_was_to_go_and_does_not_is_not_waited_for() -> None:
    names = ["a", "b", "c"]
    swarm = [going(name, 0, 4) for name in names]
    [first] = [name for name in names if decided(name, swarm).move]
    [second] = [name for name in names if decided(name, swarm, (first,)).move]
    assert second != first


def test_who_does_not_move_by_itself_is_not_in_the_plan() -> None:
    swarm = [serving("a", 0, 4), serving("b", 0, 4), going("me", 0, 4)]
    assert decided("me", swarm).move == Move(ME, (0, 4), (4, 8))


def test_a_hole_that_somebody_is_on_the_way_to_is_none() -> None:
    on_the_way = going("a", 0, 4, state="leaving", moving_to=(4, 8))
    assert decided("me", [on_the_way, serving("b", 0, 4), going("me", 0, 4)]).move is None


def test_a_node_that_would_leave_a_hole_stays_and_hears_why() -> None:
    found = decided("me", [going("me", 0, 4), *(serving(name, 4, 8) for name in "abcdef")])
    assert found == Decision(None, "nobody else serves blocks 0:4")


def test_nobody_reloads_for_a_few_percent() -> None:
    left = [going(f"l{number}", 0, 4) for number in range(10)]
    right = [going(f"r{number}", 4, 8) for number in range(9)]
    found = decided("l0", [*left, *right[:8]])
    assert found.move is None
    assert found.why == "another place would be better, but is not worth loading other blocks"
    assert any(decided(f"l{number}", [*left, *right[:5]]).move for number in range(10))
    assert decided("l0", [*left, *right]).why == "it is best where it is"


def test_where_no_hole_is_one_of_fifty_goes_at_a_time() -> None:
    swarm = [*(going(f"l{number}", 0, 4) for number in range(80)), *(going(f"r{number}", 4, 8) for number in range(20))]
    found = decided("l0", swarm)
    assert len({*found.others, *([found.move] if found.move else [])}) == 2
    on_the_way = [about.model_copy(update={"moving_to": (4, 8)}) for about in swarm[:2]]
    nobody = decided("l5", [*on_the_way, *swarm[2:]])
    assert (nobody.move, nobody.others) == (None, ())


def test_a_node_of_which_the_swarm_does_not_know_stays() -> None:
    assert decided("me", [serving("a", 0, 4)]).why == "the swarm does not know of it yet"


# ---- a newcomer


@pytest.mark.parametrize(
    ("swarm", "size", "chosen"),
    [
        ([], 2, (0, 2)),
        ([(0, 6)], 2, (6, 8)),
        ([(0, 4), (0, 4), (4, 8)], 4, (4, 8)),
        ([(0, 8)], 8, (0, 8)),
        ([(0, 4), (1, 5), (1, 5)], 3, (5, 8)),
        ([(1, 4), (1, 4), (5, 8)], 2, (4, 6)),
    ],
    ids=["an empty swarm", "a hole", "the thinner half", "all", "all of a hole", "a hole with the thinner neighbour"],
)
def test_a_newcomer_goes_where_blocks_are_rare(
    swarm: list[tuple[int, int]], size: int, chosen: tuple[int, int]
) -> None:
    others = [serving(f"n{number}", *blocks) for number, blocks in enumerate(swarm)]
    candidates = [(first, first + size) for first in range(8 - size + 1)]
    assert choose(candidates, others, 8) == chosen
    assert choose(candidates[::-1], others[::-1], 8) == chosen


def test_a_newcomer_only_gets_what_fits_it() -> None:
    assert choose([(0, 3), (2, 5)], [serving("a", 0, 5)], 8) in ((0, 3), (2, 5))


# ---- a swarm from nothing


def fleet(count: int, blocks: int, seed: int) -> list[Machine]:
    dice = random.Random(seed)
    return [
        Machine(f"m{number}", {"one": Choice(dice.randint(2, blocks // 4), dice.uniform(0.2, 2.0))})
        for number in range(count)
    ]


def test_shares_by_memory_tile_the_model_without_a_gap() -> None:
    """What a reserve of 2 GB leaves of 11, 32 and 32 GB, for 32 blocks: 5, 13 and 14 of them."""
    shares = share_blocks([900, 3000, 3000], 32, 180)
    assert shares == (5, 13, 14)
    machines = [Machine(f"gpu {number}", {"one": Choice(share, 1.0)}) for number, share in enumerate(shares)]
    balance = place(machines, [Model("one", 32)], wanted=1)
    assert list(balance.seats.values()) == [Seat("one", 0, 5), Seat("one", 5, 18), Seat("one", 18, 32)]
    assert balance.replicas("one") == [1] * 32


def test_machines_as_fast_for_each_byte_that_come_one_after_the_other_divide_a_model_in_order() -> None:
    swarm: list[Announcement] = []
    for name, length in zip("abc", share_blocks([900, 3000, 3000], 32, 180), strict=True):
        candidates = [(first, first + length) for first in range(33 - length)]
        first, end = choose(candidates, swarm, 32)
        swarm.append(going(name, first, end, block_count=32))
    assert [about.blocks for about in swarm] == [(0, 5), (5, 18), (18, 32)]
    assert planned(swarm, 32) == ()


def test_500_machines_are_placed_on_80_blocks_and_nobody_wants_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    best = Balance.best

    def counted(self: Balance, name: str, starts: Sequence[int] | None = None) -> tuple[float, Option | None]:
        looks.append(name)
        return best(self, name, starts)

    monkeypatch.setattr(Balance, "best", counted)
    balance = place(fleet(500, 80, 1), [Model("one", 80)])
    assert len(looks) <= 5 * 500, "a fraction of a millisecond each, and no more looks than a few at everybody"
    placed = [
        (seat.first, seat.end, 1000.0 / balance.machines[name].choices["one"].block_ms)
        for name, seat in balance.seats.items()
    ]
    assert len(placed) == 500
    assert most_tokens(placed, 80) > 0.95 * sum(speed for _, _, speed in placed) / 80
    assert min(balance.replicas("one")) > 20
    assert plan(balance, 500) == []


def test_models_get_machines_in_proportion_to_what_is_asked_of_them() -> None:
    choices = {"hot": Choice(4, 1.0), "cold": Choice(4, 1.0)}
    machines = [Machine(f"m{number}", choices) for number in range(80)]
    balance = place(machines, [Model("hot", 16, demand=3.0), Model("cold", 16)])
    hot, cold = (min(balance.replicas(name)) for name in ("hot", "cold"))
    assert 2.0 < hot / cold < 4.0


def test_machines_that_cannot_cover_a_model_leave_its_rest_open() -> None:
    balance = place([Machine("m", {"one": Choice(3, 1.0)})], [Model("one", 8)])
    assert balance.holes("one") == 5


def test_who_holds_nothing_that_is_wanted_is_left_where_it_is() -> None:
    balance = Balance([Machine("m", {}, Seat("other", 0, 4))], [Model("one", 8)], wanted=1)
    assert (balance.seats, balance.best("m")) == ({}, (0.0, None))


# ---- parts of the world


@pytest.mark.parametrize(
    ("location", "region", "site"),
    [
        ((52, 13), None, "eu"),
        ((33, -97), "eu-west", "na"),
        ((36, 140), None, "asia"),
        (None, "eu-west", "eu"),
        (None, "us-east", "na"),
        (None, "moon", None),
        (None, None, None),
    ],
)
def test_where_a_node_is_in_the_world(location: tuple[int, int] | None, region: str | None, site: str | None) -> None:
    assert site_at(location, region) == site


def goes_where(promises: Promises, now: float, **more: object) -> tuple[int, int] | None:
    """Where it is believed that a node goes."""
    (about,) = promises.believed([serving("a", 0, 4, **more)], now)
    return about.moving_to


def test_who_says_that_it_comes_is_believed_for_some_minutes() -> None:
    promises = Promises()
    for now in (0.0, 60.0, PROMISE_SECONDS - 1):
        assert goes_where(promises, now, moving_to=(4, 8)) == (4, 8)
    assert goes_where(promises, PROMISE_SECONDS, moving_to=(4, 8)) is None


def test_to_say_it_again_and_again_does_not_help() -> None:
    promises, believed, now = Promises(), 0, 0.0
    for round_number in range(12 * 60):
        to = (4 - round_number % 2, 8 - round_number % 2) if round_number % 10 else None
        believed += goes_where(promises, now, moving_to=to) is not None
        now += 60.0
    assert believed / (12 * 60) < 1 / 6 + PROMISE_SECONDS / now


def test_who_arrives_has_kept_its_word_and_who_takes_a_step_back_at_once_has_lost_little() -> None:
    promises = Promises()
    goes_where(promises, 0.0, moving_to=(4, 8))
    goes_where(promises, 500.0, state="leaving", moving_to=(4, 8))
    promises.believed([serving("a", 4, 8)], 520.0)
    assert goes_where(promises, 600.0, moving_to=(2, 6)) == (2, 6)
    assert goes_where(promises, 600.0 + PROMISE_SECONDS - 1, moving_to=(2, 6)) == (2, 6)
    hesitant = Promises()
    for number in range(20):
        assert goes_where(hesitant, 60.0 * number, moving_to=(4, 8)) == (4, 8)
        assert goes_where(hesitant, 60.0 * number + 3, moving_to=None) is None
    assert goes_where(hesitant, 1300.0, moving_to=(4, 8)) == (4, 8)


def test_to_arrive_somewhere_does_not_pay_for_what_was_promised_elsewhere() -> None:
    promises = Promises()
    goes_where(promises, 0.0, moving_to=(4, 8))
    goes_where(promises, PROMISE_SECONDS - 10, moving_to=(0, 4))
    goes_where(promises, PROMISE_SECONDS - 5)
    assert goes_where(promises, PROMISE_SECONDS, moving_to=(4, 8)) == (4, 8)
    assert goes_where(promises, PROMISE_SECONDS + 120, moving_to=(4, 8)) is None


def test_a_hole_that_a_liar_keeps_is_closed_by_somebody_else() -> None:
    promises = Promises()
    swarm = [
        serving("me", 0, 4, auto_place=True),
        serving("a", 0, 4),
        serving("liar", 0, 4, moving_to=(4, 8)),
    ]
    assert decide(ME, promises.believed(swarm, 0.0), 8).move is None
    assert decide(ME, promises.believed(swarm, PROMISE_SECONDS), 8).move == Move(ME, (0, 4), (4, 8))


def test_who_is_not_believed_is_not_sent_either() -> None:
    names = ["a", "b", "c"]
    swarm = [going(name, 0, 4) for name in names]
    [liar] = [name for name in names if decided(name, swarm).move]
    swarm = [going(name, 0, 4, moving_to=(4, 8) if name == liar else None) for name in names]
    promises = Promises()
    assert planned(promises.believed(swarm, 0.0), 8) == ()
    [move] = planned(promises.believed(swarm, PROMISE_SECONDS), 8)
    assert move.peer_id != peer_of(liar)
    swarm = [going(name, 0, 4) for name in names]
    [move] = planned(promises.believed(swarm, PROMISE_SECONDS + 7 * 3600), 8)
    assert move.peer_id == peer_of(liar), "what is long ago is forgotten"


def test_who_was_named_some_times_and_did_not_go_is_not_counted_on_until_there_is_nothing_to_do() -> None:
    patience, others = Patience(), Decision(None, "others go", (Move(ME, (0, 4), (4, 8)),))
    for number in range(NAMED_IN_VAIN):
        assert patience.in_vain == set(), number
        patience.note(others)
    assert patience.in_vain == {ME}
    patience.note(Decision(Move(peer_of("a"), (0, 4), (4, 8)), "now it is for us"))
    assert patience.in_vain == {ME}
    patience.note(Decision(None, "it is best where it is"))
    assert patience.in_vain == set()


@pytest.mark.parametrize("seed", range(4))
def test_the_plan_is_by_whom_each_of_them_goes(seed: int) -> None:
    dice = random.Random(seed)
    firsts = [dice.randrange(9) for _ in range(12)]
    swarm = [going(f"n{number}", first, first + 4, block_count=12) for number, first in enumerate(firsts)]
    moves = planned(swarm, 12)
    assert moves
    named = {about.peer_id: decide(PeerId(about.peer_id), swarm, 12) for about in swarm}
    for move in moves:
        assert named[move.peer_id].move in (move, None)
        assert set(named[move.peer_id].others) == set(moves) - {move}
    assert {decision.others for peer_id, decision in named.items() if peer_id not in {m.peer_id for m in moves}} == {
        moves
    }


def test_who_is_not_trusted_does_not_count_for_the_speed_it_announces() -> None:
    swarm = [
        serving("liar", 0, 4, block_ms=0.1),
        *(serving(name, 4, 8, block_ms=1.0) for name in ("a", "b", "c", "d")),
        serving("e", 0, 4, block_ms=1.0),
    ]
    assert {move.to for move in advise(swarm, 8, wanted=1).moves} <= {(4, 8)}
    assert {move.to for move in advise(swarm, 8, wanted=1, trust={peer_of("liar"): 0.02}).moves} == {(0, 4)}
