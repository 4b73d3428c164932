"""Promises of cache: never more than there is, and all of it back in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from discovery.protocol.ids import SessionId
from far_node.cache import CacheBudget, CacheCost
from far_node.errors import Busy

COST = CacheCost(fixed_bytes=3, position_bytes=5)
CAPACITY, SESSIONS = 1000, 4


def session(number: int) -> SessionId:
    return SessionId(bytes([number]) * 16)


@given(st.integers(1, 256), st.integers(1, 2**24), st.integers(1, 200))
def test_the_cost_grows_with_rows_blocks_and_positions(rows: int, positions: int, blocks: int) -> None:
    assert COST.of(rows, positions, blocks) == rows * blocks * (3 + 5 * positions)


class Promises(RuleBasedStateMachine):
    """Any order of admitting and freeing, against a plain ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = CacheBudget(CAPACITY, COST, SESSIONS)
        self.ledger: dict[SessionId, int] = {}

    @rule(number=st.integers(0, 7), rows=st.integers(1, 3), positions=st.integers(1, 60), blocks=st.integers(1, 3))
    def admit(self, number: int, rows: int, positions: int, blocks: int) -> None:
        needed, name = COST.of(rows, positions, blocks), session(number)
        fits = sum(self.ledger.values()) + needed <= CAPACITY
        if fits and name not in self.ledger and len(self.ledger) < SESSIONS:
            self.budget.admit(name, rows, positions, blocks)
            self.ledger[name] = needed
            return
        with pytest.raises(Busy) as refusal:
            self.budget.admit(name, rows, positions, blocks)
        assert refusal.value.retry_after is not None

    @rule(number=st.integers(0, 7))
    def free(self, number: int) -> None:
        self.budget.free(session(number))
        self.ledger.pop(session(number), None)

    @invariant()
    def agrees(self) -> None:
        assert self.budget.used_bytes == sum(self.ledger.values()) <= CAPACITY
        assert self.budget.sessions == len(self.ledger) <= SESSIONS


TestPromises = Promises.TestCase


def test_a_session_that_never_fits_is_told_what_it_needs_and_what_there_is() -> None:
    with pytest.raises(Busy, match="needs 1006 bytes of cache and 1000 are free") as refusal:
        CacheBudget(CAPACITY, COST, SESSIONS).admit(session(0), 2, 100, 1)
    assert refusal.value.facts["needed_bytes"] == 1006
    assert refusal.value.facts["free_bytes"] == 1000
