"""Times between tokens are the mesh's own, and what a missed promise gives back is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from far_mesh.marketplace.tiers.promise import TokenTimes, credit_for, is_met, percentile_ms


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds


async def tokens(clock: Clock, *taken: tuple[int, float]) -> AsyncIterator[int]:
    """The text of each token, after so many seconds of work."""
    for text, seconds in taken:
        clock.seconds += seconds
        yield text


async def times_of(*taken: tuple[int, float], reader: float = 0.0) -> TokenTimes:
    """``reader``: how long it takes for each."""
    clock = Clock()
    times, items = TokenTimes(clock.now), tokens(clock, *taken)
    while (text := await times.wait_for(items)) is not None:
        times.came(text)
        clock.seconds += reader
    return times


async def test_the_first_token_of_a_text_is_apart() -> None:
    assert (await times_of((0, 5.0))).p95_ms is None
    assert (await times_of((0, 5.0), (0, 0.1), (0, 0.1))).p95_ms == 100
    assert (await times_of()).p95_ms is None


async def test_a_slow_reader_does_not_count() -> None:
    assert (await times_of((0, 1.0), *[(0, 0.05)] * 10, reader=3.0)).p95_ms == 50


async def test_texts_that_come_side_by_side_have_times_of_their_own() -> None:
    times = await times_of(*[(0, 0.05), (1, 0.05)] * 20)
    assert times.p95_ms == 100


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        ([0.2], 200),
        ([0.2001], 201),
        ([0.1] * 19 + [0.9], 100),
        ([0.1] * 18 + [0.9] * 2, 900),
        ([0.9, 0.1], 900),
        ([0.001 * place for place in range(100, 0, -1)], 95),
    ],
    ids=str,
)
def test_of_a_hundred_times_the_ninety_fifth_decides(seconds: list[float], milliseconds: int) -> None:
    assert percentile_ms(seconds) == milliseconds


@pytest.mark.parametrize(
    ("promised", "measured", "met"),
    [(200, 200, True), (200, 201, False), (200, None, None), (None, 5_000, None)],
)
def test_a_promise_is_kept_missed_or_there_is_nothing_to_judge(
    promised: int | None, measured: int | None, met: bool | None
) -> None:
    assert is_met(promised, measured) is met


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 10_000))
def test_a_credit_is_a_part_of_the_cost_and_at_most_the_fee(cost: int, fee: int, credit_bps: int) -> None:
    credit = credit_for(cost, fee, credit_bps)
    assert 0 <= credit <= fee
    assert credit * 10_000 <= cost * credit_bps
    assert credit == fee or (credit + 1) * 10_000 > cost * credit_bps
