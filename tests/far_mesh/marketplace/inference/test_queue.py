"""Whose turn it is: nobody starves, weights and turns are kept, no free session is left lying."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from far_mesh.marketplace.inference.queue import Claim, Entry, Full, Queue, sessions_of
from tests.support.documents import announcement

WEIGHTS = {"standard": 1, "premium": 4, "enterprise": 8}
WIDEST = 4


def asked(account: str, lane: str = "standard", **more: int | None) -> Entry:
    """A request."""
    return Entry(Claim(account, lane, WEIGHTS[lane], **more))  # type: ignore[arg-type]


def one_by_one(queue: Queue, turns: int) -> list[Entry]:
    """Who goes in when the one session becomes free, so many times."""
    went: list[Entry] = []
    inside = queue.resize(1)
    for turn in range(turns):
        (entry,) = inside
        went.append(entry)
        queue.resize(turn < turns - 1)
        inside = queue.end(entry)
    return went


def test_who_finds_a_session_free_goes_in_at_once() -> None:
    queue = Queue(2, size=0, size_per_account=0)
    first, second = asked("ann"), asked("bob")
    assert queue.add(first) == [first]
    assert queue.add(second) == [second]
    with pytest.raises(Full) as full:
        queue.add(asked("cid"))
    assert full.value.for_account


def test_a_full_queue_takes_nobody_and_one_account_does_not_fill_it() -> None:
    queue = Queue(0, size=3, size_per_account=2)
    for entry in (asked("ann"), asked("ann"), asked("bob")):
        assert queue.add(entry) == []
    with pytest.raises(Full) as full:
        queue.add(asked("ann"))
    assert full.value.for_account
    with pytest.raises(Full) as full:
        queue.add(asked("cid"))
    assert not full.value.for_account


def test_the_requests_of_an_account_go_in_in_their_order() -> None:
    queue = Queue(0, 100, 100)
    entries = [asked("ann") for _ in range(10)]
    for entry in entries:
        queue.add(entry)
    assert one_by_one(queue, 10) == entries


def test_accounts_take_turns_however_much_one_asks_for() -> None:
    queue = Queue(0, 100, 100)
    for account, count in (("ann", 20), ("bob", 3), ("cid", 3)):
        for _ in range(count):
            queue.add(asked(account))
    went = [entry.claim.account for entry in one_by_one(queue, 26)]
    assert went[:9] == ["ann", "bob", "cid"] * 3
    assert went[9:] == ["ann"] * 17


def test_who_asks_for_four_sessions_at_once_waits_for_four_turns() -> None:
    queue = Queue(0, 100, 100)
    for _ in range(5):
        queue.add(asked("ann", width=4))
    for _ in range(20):
        queue.add(asked("bob"))
    sessions: Counter[str] = Counter()
    for entry in one_by_one(queue, 20):
        sessions[entry.claim.account] += entry.claim.width
        assert abs(sessions["ann"] - sessions["bob"]) <= WIDEST


def test_sessions_are_shared_by_weight_and_the_least_does_not_starve() -> None:
    queue = Queue(0, 1000, 1000)
    for lane in WEIGHTS:
        for _ in range(300):
            queue.add(asked(f"{lane} user", lane))
    went = [entry.claim.lane for entry in one_by_one(queue, 13 * 20)]
    assert Counter(went) == {"standard": 20, "premium": 80, "enterprise": 160}
    for start in range(len(went) - 26):
        assert "standard" in went[start : start + 26]


def test_who_comes_back_after_being_idle_has_saved_up_nothing() -> None:
    queue = Queue(0, 1000, 1000)
    for _ in range(100):
        queue.add(asked("ann", "enterprise"))
    one_by_one(queue, 50)
    for _ in range(50):
        queue.add(asked("bob", "standard"))
    went = [entry.claim.lane for entry in one_by_one(queue, 27)]
    assert 3 <= Counter(went)["standard"] <= 4


def test_an_account_at_its_limit_lets_others_pass_and_loses_nothing() -> None:
    queue = Queue(10, 100, 100)
    mine = [asked("ann", concurrency=2) for _ in range(3)]
    assert [queue.add(entry) for entry in mine] == [[mine[0]], [mine[1]], []]
    other = asked("bob")
    assert queue.add(other) == [other]
    assert queue.end(mine[0]) == [mine[2]]


def test_who_leaves_makes_room_wherever_they_stand() -> None:
    queue = Queue(1, 2, 2)
    inside, waits, follows = asked("ann"), asked("bob"), asked("cid")
    queue.add(inside)
    queue.add(waits)
    queue.add(follows)
    assert queue.end(waits) == []
    assert queue.end(waits) == []
    assert {entry: place.position for entry, place in queue.standings().items()} == {follows: 1}
    assert queue.end(inside) == [follows]


def test_fewer_sessions_send_nobody_away() -> None:
    queue = Queue(3, 10, 10)
    entries = [asked(f"user {number}") for number in range(4)]
    for entry in entries:
        queue.add(entry)
    assert queue.resize(1) == []
    assert queue.in_use == 3
    assert queue.end(entries[0]) == queue.end(entries[1]) == []
    assert queue.end(entries[2]) == [entries[3]]


def test_the_place_that_is_told_is_the_one_that_is_kept() -> None:
    queue = Queue(0, 100, 100)
    for lane in WEIGHTS:
        for account in ("ann", "bob"):
            for _ in range(5):
                queue.add(asked(f"{account} {lane}", lane))
    told = list(queue.standings())
    own = [place.own for place in queue.standings().values()]
    assert one_by_one(queue, 30) == told
    assert Counter(own) == {number: 6 for number in range(1, 6)}


lanes = st.sampled_from(sorted(WEIGHTS))
claims = st.builds(
    lambda account, lane, concurrency, width: Claim(f"{account}", lane, WEIGHTS[lane], concurrency, width),
    st.integers(0, 4),
    lanes,
    st.one_of(st.none(), st.integers(1, 3)),
    st.integers(1, WIDEST),
)


@given(st.lists(st.tuples(lanes, st.integers(1, WIDEST)), min_size=2, max_size=40))
@settings(max_examples=40)
def test_no_two_lanes_that_wait_drift_apart(wanted: list[tuple[str, int]]) -> None:
    queue = Queue(0, 10_000, 10_000)
    for lane, width in wanted:
        for number in range(3):
            queue.add(asked(f"{lane} {number}", lane, width=width))
    left = Counter(lane for lane, _ in wanted for _ in range(3))
    had: Counter[str] = Counter()
    for entry in one_by_one(queue, sum(left.values())):
        lane = entry.claim.lane
        had[lane] += entry.claim.width
        left[lane] -= 1
        if any(left[other] == 0 for other in left):
            return
        for other in left:
            apart = abs(had[lane] / WEIGHTS[lane] - had[other] / WEIGHTS[other])
            assert apart <= WIDEST / WEIGHTS[lane] + WIDEST / WEIGHTS[other] + 1e-6


class AnyHistory(RuleBasedStateMachine):
    """Requests come, go in, end and leave in any order, and sessions come and go."""

    @initialize(capacity=st.integers(0, 6))
    def open(self, capacity: int) -> None:
        self.queue = Queue(capacity, size=12, size_per_account=5)
        self.waiting: list[Entry] = []
        self.inside: list[Entry] = []

    def went_in(self, entries: list[Entry]) -> None:
        for entry in entries:
            same = [one for one in self.waiting if _kind(one) == _kind(entry)]
            assert same[0] is entry, "in the order in which they came"
            self.waiting.remove(entry)
            self.inside.append(entry)

    @rule(claim=claims)
    def come(self, claim: Claim) -> None:
        entry = Entry(claim)
        try:
            self.waiting.append(entry)
            self.went_in(self.queue.add(entry))
        except Full:
            self.waiting.remove(entry)
            own = sum(one.claim.account == claim.account for one in self.waiting)
            assert len(self.waiting) == 12 or own == 5

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.inside))
        self.inside.remove(entry)
        self.went_in(self.queue.end(entry))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        self.went_in(self.queue.end(entry))

    @rule(capacity=st.integers(0, 6))
    def resize(self, capacity: int) -> None:
        self.went_in(self.queue.resize(capacity))

    @invariant()
    def nobody_is_lost_and_nobody_is_there_twice(self) -> None:
        assert set(self.queue.standings()) == set(self.waiting)
        assert len(self.queue) == len(self.waiting)
        assert self.queue.in_use == sum(entry.claim.width for entry in self.inside)

    @invariant()
    def no_session_is_free_while_somebody_could_have_it(self) -> None:
        served = Counter(entry.claim.account for entry in self.inside)
        first: dict[tuple[str, str], Entry] = {}
        for entry in self.waiting:
            first.setdefault(_kind(entry), entry)
        able = [one for one in first.values() if _below(one.claim.concurrency, served[one.claim.account])]
        assert not able or self.queue.in_use >= self.queue.capacity


def _kind(entry: Entry) -> tuple[str, str]:
    return entry.claim.account, entry.claim.lane


def _below(most: int | None, count: int) -> bool:
    return most is None or count < most


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyHistory = AnyHistory.TestCase


def test_the_block_that_has_least_room_says_how_many_sessions_there_are() -> None:
    nodes = [
        announcement("ann", first_block=0, end_block=5, sessions=4),
        announcement("bob", first_block=3, end_block=8, sessions=2),
        announcement("cid", first_block=0, end_block=8, sessions=1),
    ]
    assert sessions_of(nodes, 8) == 3
    assert sessions_of(nodes[:2], 8) == 2
    assert sessions_of(nodes[:1], 8) == 0
    assert sessions_of([], 8) == 0
