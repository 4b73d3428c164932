"""Promises of cache: never more than there is, never one row for two, and all of it back in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from discovery.protocol.ids import SessionId
from far_node.cache import CacheBudget, CacheCost, Lease, capacity_class
from far_node.errors import Busy, OutOfCache

COST = CacheCost(first_block=2, fixed_bytes=(3, 0, 200), position_bytes=(5, 8, 1))
CAPACITY = 8000
SPANS = ((2, 3), (2, 5), (3, 5))


def session(number: int) -> SessionId:
    return SessionId(bytes([number]) * 16)


@given(st.integers(1, 256), st.integers(1, 2**24))
def test_the_cost_is_that_of_the_blocks_asked_for(rows: int, positions: int) -> None:
    assert COST.of(rows, positions, (2, 3)) == rows * (3 + 5 * positions)
    assert COST.of(rows, positions, (3, 5)) == rows * (200 + 9 * positions)
    assert COST.of(rows, positions, (2, 5)) == rows * (203 + 14 * positions)


@given(st.integers(1, 2**24), st.none() | st.integers(1, 2**20))
def test_a_capacity_holds_what_is_asked_and_little_more(positions: int, longest: int | None) -> None:
    capacity = capacity_class(positions, longest)
    assert capacity >= positions
    assert capacity <= max(64, positions * 3 // 2)
    assert longest is None or capacity <= max(longest, positions)


def test_capacities_are_few() -> None:
    assert sorted({capacity_class(positions, None) for positions in range(1, 400)}) == [64, 96, 128, 192, 256, 384, 512]


class Promises(RuleBasedStateMachine):
    """Any order of admitting and freeing, against a plain ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = CacheBudget(CAPACITY, COST, rows_together=4, longest=200)
        self.ledger: dict[SessionId, tuple[Lease, tuple[int, int]]] = {}

    @rule(number=st.integers(0, 9), rows=st.integers(1, 6), positions=st.integers(1, 200), span=st.sampled_from(SPANS))
    def admit(self, number: int, rows: int, positions: int, span: tuple[int, int]) -> None:
        name = session(number)
        if name in self.ledger:
            with pytest.raises(Busy) as taken:
                self.budget.admit(name, rows, positions, span)
            assert taken.value.retry_after is not None
            return
        needed = COST.of(rows, capacity_class(positions, 200), span)
        free = CAPACITY - self.budget.used_bytes
        try:
            lease = self.budget.admit(name, rows, positions, span)
        except OutOfCache as error:
            refusal = error
        else:
            assert (lease.count, lease.slab.capacity >= positions) == (rows, True)
            self.ledger[name] = lease, span
            return
        assert (refusal.facts["needed_bytes"], refusal.facts["free_bytes"]) == (needed, free)
        assert needed > free
        assert refusal.retry_after is not None

    @rule(number=st.integers(0, 9))
    def free(self, number: int) -> None:
        self.budget.free(session(number))
        self.ledger.pop(session(number), None)

    def teardown(self) -> None:
        for number in range(10):
            self.budget.free(session(number))
        assert (self.budget.used_bytes, self.budget.sessions) == (0, 0)
        assert all(lease.slab.rows == 0 for lease, _ in self.ledger.values())

    @invariant()
    def nobody_shares_a_row(self) -> None:
        taken = [(id(lease.slab), row) for lease, _ in self.ledger.values() for row in range(lease.first, lease.end)]
        assert len(taken) == len(set(taken))

    @invariant()
    def ranges_of_blocks_do_not_share_a_slab(self) -> None:
        spans: dict[int, set[tuple[int, int]]] = {}
        for lease, span in self.ledger.values():
            spans.setdefault(id(lease.slab), set()).add(span)
        assert all(len(of_slab) == 1 for of_slab in spans.values())

    @invariant()
    def bytes_are_those_of_the_rows_up_to_the_last_one_promised(self) -> None:
        last: dict[int, tuple[int, int, tuple[int, int]]] = {}
        for lease, span in self.ledger.values():
            rows = max(lease.end, last.get(id(lease.slab), (0, 0, span))[0])
            last[id(lease.slab)] = rows, lease.slab.capacity, span
            assert lease.end <= lease.slab.rows <= lease.slab.max_rows
        assert self.budget.used_bytes == sum(COST.of(*slab) for slab in last.values()) <= CAPACITY
        assert self.budget.sessions == len(self.ledger)


TestPromises = Promises.TestCase


def test_a_session_that_never_fits_is_told_what_it_needs_and_what_there_is() -> None:
    with pytest.raises(OutOfCache, match="needs 2572 bytes of cache and 1000 are free") as refusal:
        CacheBudget(1000, COST).admit(session(0), 4, 100, (2, 3))
    assert refusal.value.facts["needed_bytes"] == 4 * (3 + 5 * 128)
    assert refusal.value.facts["free_bytes"] == 1000


def test_sessions_of_a_kind_stand_side_by_side_and_a_gap_is_filled_first() -> None:
    budget = CacheBudget(CAPACITY, COST)
    leases = [budget.admit(session(number), 1, 60, (2, 3)) for number in range(4)]
    assert len({id(lease.slab) for lease in leases}) == 1
    assert [lease.first for lease in leases] == [0, 1, 2, 3]
    budget.free(session(1))
    before = budget.used_bytes
    assert budget.admit(session(9), 1, 50, (2, 3)).first == 1
    assert budget.used_bytes == before


def test_a_short_session_takes_a_free_row_of_a_longer_kind_rather_than_none() -> None:
    budget = CacheBudget(COST.of(2, 128, (2, 3)), COST, longest=128)
    first, second = (budget.admit(session(number), 1, 128, (2, 3)) for number in range(2))
    with pytest.raises(OutOfCache):
        budget.admit(session(2), 1, 10, (2, 3))
    budget.free(session(0))
    short = budget.admit(session(2), 1, 10, (2, 3))
    assert (short.slab, short.first) == (second.slab, first.first)


def test_how_many_sessions_find_room_is_what_is_admitted() -> None:
    budget = CacheBudget(CAPACITY, COST)
    count = budget.how_many(60, (2, 5))
    for number in range(count):
        budget.admit(session(number), 1, 60, (2, 5))
    with pytest.raises(OutOfCache):
        budget.admit(session(count), 1, 60, (2, 5))
