"""Observations by the hour, and what they say together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.probe.history import HOUR, Hour, hours_of, observed, summaries
from discovery.probe.observation import Fate, Observation, Reach, Verdict
from discovery.score import HALF_LIFE_SECONDS, score_of
from tests.support.documents import DIGEST, OTHER_DIGEST, peer_of

AT = 500_000 * HOUR
DAY = 24 * HOUR


def seen(at: int = AT, **changes: Any) -> Observation:
    fields: dict[str, Any] = {
        "peer_id": peer_of("node"),
        "model_digest": DIGEST,
        "at": at,
        "reach": "direct",
        "fate": "completed",
        "verdict": "right",
        "round_trip_ms": 40.0,
        "block_ms": 2.0,
        "claimed_block_ms": 1.0,
        "token_layers": 100,
        "receipt": True,
    }
    return Observation.model_validate(fields | changes)


def unreached(at: int = AT, **changes: Any) -> Observation:
    nothing = {"verdict": None, "round_trip_ms": None, "block_ms": None, "token_layers": 0, "receipt": None}
    return seen(at, reach="none", fate="unasked", **nothing, **changes)


def test_an_hour_is_counted_for_each_node_model_and_prober() -> None:
    hours = hours_of("p", [seen(), seen(AT + 5, round_trip_ms=30.0), seen(AT + HOUR), seen(model_digest=OTHER_DIGEST)])
    assert [(one.model_digest, one.hour, one.probes) for one in hours] == [
        (DIGEST, AT, 2),
        (DIGEST, AT + HOUR, 1),
        (OTHER_DIGEST, AT, 1),
    ]
    first = hours[0]
    assert (first.direct, first.completed, first.right, first.token_layers) == (2, 2, 2, 200)
    assert (first.round_trip_ms, first.timed, first.block_ms, first.last_at) == (30.0, 2, 4.0, AT + 5)


@given(
    st.lists(st.sampled_from(["right", "wrong", "undecided", "refused", "failed", "timed_out", "gone"]), max_size=30)
)
def test_nothing_is_lost_or_counted_twice(kinds: list[str]) -> None:
    def made(kind: str) -> Observation:
        if kind == "gone":
            return unreached()
        return seen(verdict=kind) if kind in set(Verdict) else seen(fate=kind, verdict=None)

    hours = hours_of("p", map(made, kinds))
    assert len(hours) == bool(kinds)
    for hour in hours:
        assert hour.probes == len(kinds) == hour.direct + hour.relay + hour.unreached
        assert hour.probes == sum(getattr(hour, fate.value) for fate in Fate)
        assert hour.completed == sum(getattr(hour, verdict.value) for verdict in Verdict)
        assert hour.wrong == kinds.count("wrong")


def test_each_vantage_point_says_what_it_has_seen() -> None:
    hours = [
        *hours_of("far", [seen(reach="relay", round_trip_ms=200.0, claimed_block_ms=0.2)]),
        *hours_of("near", [unreached(AT - HOUR), seen(AT, verdict="wrong")]),
        *hours_of("cut off", [unreached(), unreached(AT + 1)]),
    ]
    cut_off, far, near = summaries(hours)
    assert (cut_off.reach, cut_off.probes, cut_off.overclaims) == (Reach.NONE, 2, None)
    assert (far.reach, far.round_trip_ms, far.overclaims) == (Reach.RELAY, 200.0, True)
    assert (near.reach, near.probes, near.wrong, near.overclaims) == (Reach.DIRECT, 2, 1, False)
    assert summaries([]) == []


def test_that_one_cannot_reach_it_whom_another_reaches_is_not_the_nodes_failure() -> None:
    there, gone = hours_of("a", [seen()]), hours_of("b", [unreached()])
    assert observed([*there, *gone], AT).failed == 0
    assert observed(gone, AT).failed == 1
    assert observed([*there, *hours_of("b", [unreached(AT + HOUR)])], AT + HOUR).failed > 0


def test_what_is_older_counts_less_and_wrong_answers_cost_the_score() -> None:
    old = observed(hours_of("a", [seen(), seen(verdict="wrong", receipt=False)]), AT + HALF_LIFE_SECONDS, 0.9, 3 * DAY)
    assert old.probes_right == pytest.approx(0.5, rel=1e-3)
    assert (old.probes_wrong, old.receipts_rejected) == pytest.approx((0.5, 0.5), rel=1e-3)
    assert (old.uptime, old.age) == (0.9, 3 * DAY)
    honest = [one for day in range(7) for one in hours_of("a", [seen(AT + day * DAY)] * 20)]
    liar = [one for day in range(7) for one in hours_of("a", [seen(AT + day * DAY, verdict="wrong")] * 20)]
    now = AT + 6 * DAY
    assert score_of(observed(honest, now, 1.0, 7 * DAY)).value > 0.95
    assert score_of(observed(liar, now, 1.0, 7 * DAY)).value < 0.05
    assert not observed([], now).anything


def test_sums_do_not_depend_on_their_order() -> None:
    one, other = (
        Hour("n", "m", "p", 0, probes=1, round_trip_ms=None),
        Hour("n", "m", "p", 0, probes=2, round_trip_ms=7.0),
    )
    assert one + other == other + one
    assert (one + other).round_trip_ms == 7.0
