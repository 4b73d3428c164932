"""What is decided when nodes are lost: whom to suspect, what to replace, when to wonder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import DeadlineExceeded, FarError, PeerUnavailable, ProtocolViolation, RemoteError
from discovery.protocol.messages import Pong
from far_mesh.mending import Pace, Shunned, StandStill, can_mend, first_gap, transfer_seconds
from far_node.errors import BadPosition, Busy, ComputeFailed, Leaving, SessionTooLong, SessionUnknown

PEERS = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("kind", "reported", "found"),
    [
        (PeerUnavailable, True, True),
        (Busy, True, True),
        (Leaving, True, True),
        (DeadlineExceeded, True, True),
        (ComputeFailed, True, True),
        (RemoteError, True, True),
        (SessionUnknown, True, True),
        (ProtocolViolation, False, True),
        (BadPosition, False, False),
        (SessionTooLong, False, False),
    ],
)
def test_another_node_is_tried_where_it_may_do_better(kind: type[FarError], reported: bool, found: bool) -> None:
    assert can_mend(kind("why"), is_own_finding=False) == reported
    assert can_mend(kind("why"), is_own_finding=True) == found


@given(st.sets(st.integers(0, 8), min_size=1), st.integers(1, 9))
def test_the_first_gap_is_a_whole_run_of_lost_ones(lost: set[int], count: int) -> None:
    lost = {index % count for index in lost}
    first, end = first_gap(lost, count)
    assert set(range(first, end)) <= lost
    assert first == min(lost)
    assert end == count or end not in lost


class TestPace:
    """When an answer takes long."""

    def test_nobody_is_suspected_before_the_least_time(self) -> None:
        pace = Pace(0.5)
        assert pace.patience(1) == 0.5
        pace.learn(1, 0.001)
        assert pace.patience(1) == 0.5

    def test_what_took_long_may_take_long_again(self) -> None:
        pace = Pace(0.5)
        pace.learn(1, 2.0)
        assert pace.patience(1) == 8.0
        assert pace.patience(512) == 0.5, "steps of another size have a pace of their own"
        pace.learn(700, 5.0)
        assert pace.patience(513) == 20.0

    @given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=50))
    def test_it_lies_between_what_was_measured(self, seconds: list[float]) -> None:
        pace = Pace(0.0)
        for one in seconds:
            pace.learn(1, one)
        assert min(seconds) * 3.999 <= pace.patience(1) <= max(seconds) * 4.001


def test_a_transfer_takes_as_long_as_its_bytes() -> None:
    assert transfer_seconds(0) == 0
    assert transfer_seconds(20_000_000) == 10 * transfer_seconds(2_000_000) > 1


def pongs(*far: tuple[int, int]) -> list[Pong]:
    return [Pong(1, taken, given) for taken, given in far]


class TestStandStill:
    """Steps that vanish between two who answer."""

    def test_who_does_not_get_what_was_given_out_is_found_after_a_while(self) -> None:
        still = StandStill(1.0)
        stuck = pongs((5, 5), (4, 4), (4, 4), (4, 4))
        assert still.suspects(PEERS, stuck, 10.0) == set()
        assert still.suspects(PEERS, stuck, 10.9) == set()
        assert still.suspects(PEERS, stuck, 11.1) == {1}

    def test_who_computes_long_is_not_suspected(self) -> None:
        still = StandStill(1.0)
        for now in range(100):
            assert still.suspects(PEERS, pongs((5, 5), (5, 4), (4, 4), (4, 4)), float(now)) == set()

    def test_a_link_on_which_something_moves_is_not_still(self) -> None:
        still = StandStill(1.0)
        for now in range(100):
            assert still.suspects(PEERS, pongs((now, now + 1), (now, now), (now, now), (now, now)), float(now)) == set()

    def test_a_gap_that_closed_begins_anew(self) -> None:
        still, stuck = StandStill(1.0), pongs((5, 5), (4, 4))
        assert still.suspects(PEERS[:2], stuck, 0.0) == set()
        assert still.suspects(PEERS[:2], pongs((5, 5), (5, 4)), 0.5) == set()
        assert still.suspects(PEERS[:2], stuck, 1.2) == set()
        assert still.suspects(PEERS[:2], stuck, 2.3) == {1}

    def test_large_steps_are_given_the_time_they_take(self) -> None:
        still, stuck = StandStill(1.0), pongs((5, 5), (4, 4))
        still.suspects(PEERS[:2], stuck, 0.0, 3.0)
        assert still.suspects(PEERS[:2], stuck, 3.9, 3.0) == set()
        assert still.suspects(PEERS[:2], stuck, 4.1, 3.0) == {1}

    def test_several_links_may_stand_still(self) -> None:
        still, stuck = StandStill(1.0), pongs((5, 5), (4, 4), (3, 3), (3, 3))
        still.suspects(PEERS, stuck, 0.0)
        assert still.suspects(PEERS, stuck, 1.1) == {1, 2}

    def test_who_took_anothers_place_has_its_own_time(self) -> None:
        still, stuck = StandStill(1.0), pongs((5, 5), (4, 4))
        still.suspects(["a", "b"], stuck, 0.0)
        assert still.suspects(["a", "new"], stuck, 1.1) == set()


class TestShunned:
    """Who failed is left alone for a while."""

    def test_until_the_time_is_over(self) -> None:
        shunned = Shunned(5.0)
        shunned.add("a", 10.0)
        shunned.add("b", 12.0)
        assert shunned.at(14.9) == {"a", "b"}
        assert shunned.at(15.1) == {"b"}
        assert shunned.at(17.1) == set()

    def test_of_those_who_do_not_matter_any_more_no_failure_is_kept(self) -> None:
        shunned = Shunned(5.0)
        for name in ("a", "a", "b", "b"):
            shunned.add(name, 0.0)
        shunned.forget_others({"a"})
        assert shunned.at(9.9) == {"a"}
        shunned.add("b", 0.0)
        assert shunned.at(5.1) == {"a"}, "its first failure, as far as we know"

    def test_who_says_when_to_come_back_is_taken_at_its_word_within_bounds(self) -> None:
        shunned = Shunned(5.0)
        shunned.add("soon", 0.0, 1.0)
        shunned.add("never", 0.0, 10_000.0)
        assert shunned.at(1.1) == {"never"}
        assert shunned.at(5.1) == set()
