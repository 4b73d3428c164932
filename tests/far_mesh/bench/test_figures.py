"""Times made into figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from far_mesh.bench.figures import Timed, longest_pause, percentile, share, speeds, spread_ms
from far_mesh.trace import Trace

times = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=50)


def timed(*arrivals: float) -> Timed:
    return Timed(0.1, arrivals, tuple(range(len(arrivals))), Trace(0.0, ()), True)


@given(times, st.floats(0, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) <= percent / 100 * len(values)


def test_a_spread_is_in_milliseconds() -> None:
    spread = spread_ms([0.001 * value for value in range(1, 101)])
    assert spread == {"min": 1, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100, "mean": 50.5}
    assert spread_ms([]) is None


def test_speed_is_that_after_the_first_token() -> None:
    answer = timed(0.5, 0.6, 0.7)
    assert answer.first == 0.5
    assert answer.gaps == pytest.approx([0.1, 0.1])
    assert answer.tokens_per_second == pytest.approx(10.0)


@pytest.mark.parametrize("arrivals", [(), (0.5,), (0.5, 0.5)])
def test_an_answer_without_time_has_no_speed(arrivals: tuple[float, ...]) -> None:
    assert timed(*arrivals).tokens_per_second is None
    assert speeds([timed(*arrivals)]) == []


@pytest.mark.parametrize(("since", "pause"), [(0.0, 0.8), (0.25, 0.75), (1.2, 0.7), (2.0, None), (3.0, None)])
def test_a_pause_is_counted_from_the_loss_on(since: float, pause: float | None) -> None:
    found = longest_pause([0.1, 0.2, 1.0, 1.1, 1.3, 2.0], since)
    assert found == (None if pause is None else pytest.approx(pause))


def test_a_share_of_nothing_is_nothing() -> None:
    assert (share(1, 3), share(0, 2), share(0, 0)) == (0.3333, 0.0, None)
