"""A score says what was seen, is never better for worse news, and forgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.score import (
    COUNTS,
    EPOCH,
    HALF_LIFE_SECONDS,
    HONEST_ENOUGH,
    Observations,
    Outcome,
    chance_of_loss,
    grown,
    score_of,
    what_helps,
)

DAY, YEAR = 86_400.0, 365 * 86_400.0
GOOD = ("completed", "probes_right")
counts = st.floats(0, 1e9)
observations = st.builds(
    Observations,
    uptime=st.none() | st.floats(0, 1),
    age=st.floats(0, 10 * YEAR),
    **dict.fromkeys(COUNTS, counts),
)


def value(**seen: float) -> float:
    return score_of(Observations(**{"age": YEAR, **seen})).value


@given(observations)
def test_a_score_and_its_parts_are_between_nothing_and_one(seen: Observations) -> None:
    score = score_of(seen)
    for part in (score.value, score.dependability, score.honesty, score.presence, score.standing):
        assert 0.0 <= part <= 1.0


@given(observations, st.sampled_from(COUNTS), st.floats(0, 1e6))
def test_good_news_never_lower_a_score_and_bad_news_never_raise_it(seen: Observations, name: str, more: float) -> None:
    before, after = score_of(seen).value, score_of(replace(seen, **{name: getattr(seen, name) + more})).value
    assert after >= before * (1 - 1e-12) if name in GOOD else after <= before * (1 + 1e-12)


@given(observations, st.floats(0, 1), st.floats(0, 1))
def test_who_is_there_more_of_the_time_is_never_worse_for_it(seen: Observations, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert score_of(replace(seen, uptime=less)).value <= score_of(replace(seen, uptime=more)).value * (1 + 1e-12)


@given(observations, st.floats(0, YEAR))
def test_nobody_is_better_for_being_younger_where_nobody_has_watched(seen: Observations, more: float) -> None:
    seen = replace(seen, uptime=None)
    assert score_of(replace(seen, age=seen.age + more)).value >= score_of(seen).value * (1 - 1e-12)


@given(observations, st.floats(0, YEAR), st.floats(0, YEAR))
def test_to_forget_twice_is_to_forget_once_for_as_long(seen: Observations, one: float, other: float) -> None:
    twice, once = seen.faded(one).faded(other), seen.faded(one + other)
    for name in COUNTS:
        assert getattr(twice, name) == pytest.approx(getattr(once, name), rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 5 * YEAR), max_size=20))
def test_counts_that_grow_say_the_same_as_counts_that_fade(times: list[float]) -> None:
    now = 5 * YEAR
    faded = sum(Observations(failed=1.0).faded(now - at).failed for at in times)
    assert sum(grown(EPOCH + at) for at in times) / grown(EPOCH + now) == pytest.approx(faded)


def test_a_stranger_is_neither_trusted_nor_shut_out() -> None:
    stranger = score_of(Observations())
    assert 0.4 < stranger.value < 0.6
    assert stranger.is_honest_enough


def test_nobody_passes_for_reliable_within_the_first_hour_however_much_is_made_up() -> None:
    assert score_of(Observations(completed=1e6)).value < 0.951
    assert score_of(Observations(completed=1e6, age=DAY)).value > 0.99


def test_eighteen_hops_without_a_failure_make_an_old_node_reliable() -> None:
    assert value(completed=17) < 0.95
    assert value(completed=18) == pytest.approx(0.95)
    assert (
        value(completed=18, timed_out=1) == value(completed=18, pauses_caused=1) == value(completed=18, failed=1) < 0.95
    )


def test_who_comes_back_under_another_name_is_worse_off_than_who_works() -> None:
    assert score_of(Observations()).value < value(completed=30, failed=10)


def test_one_wrong_answer_weighs_more_than_a_failure_and_a_liar_is_not_used() -> None:
    assert value(completed=50, probes_wrong=1) < value(completed=50, failed=5)
    assert not score_of(Observations(completed=10, probes_right=2, probes_wrong=1)).is_honest_enough
    assert not score_of(Observations(probes_right=90, probes_wrong=10)).is_honest_enough
    assert score_of(Observations(probes_right=100, receipts_rejected=1)).honesty > 0.8 > HONEST_ENOUGH


def test_nobody_saves_up_for_lies() -> None:
    assert score_of(Observations(completed=1e9, probes_right=1e9, probes_wrong=6)).honesty < HONEST_ENOUGH


def test_a_stranger_is_tried_and_who_breaks_off_is_a_risk() -> None:
    assert chance_of_loss(Observations()) == 0.0
    assert chance_of_loss(Observations(failed=1)) == pytest.approx(1 / 6)
    assert chance_of_loss(Observations(completed=14, pauses_caused=1)) == pytest.approx(1 / 20)


@given(observations, st.sampled_from(COUNTS), st.floats(0, 1e6))
def test_good_work_never_makes_a_node_a_greater_risk_and_bad_never_a_smaller(
    seen: Observations, name: str, more: float
) -> None:
    before, after = chance_of_loss(seen), chance_of_loss(replace(seen, **{name: getattr(seen, name) + more}))
    assert after <= before * (1 + 1e-12) if name in GOOD else after >= before * (1 - 1e-12)


def test_old_failures_do_not_count_for_ever() -> None:
    broken = Observations(completed=100, failed=900, age=YEAR)
    after_a_month = replace(broken.faded(4 * 7 * DAY), completed=broken.faded(4 * 7 * DAY).completed + 1500)
    assert score_of(broken).value < 0.15
    assert score_of(after_a_month).value > 0.95
    assert score_of(broken.faded(20 * HALF_LIFE_SECONDS)).value == pytest.approx(0.5, abs=0.01)


def test_what_two_have_seen_is_the_sum_of_it() -> None:
    gateway = Observations(age=100.0).plus(Outcome.COMPLETED).plus(Outcome.TIMED_OUT, 2.0)
    prober = Observations(probes_right=5.0, uptime=0.5, age=50.0)
    both = Observations(completed=1.0, timed_out=2.0, probes_right=5.0, uptime=0.5, age=100.0)
    assert gateway + prober == prober + gateway == both
    assert gateway.anything
    assert not Observations(uptime=1.0, age=5.0).anything


@given(observations, st.sampled_from(["completed", "failed", "timed_out", "pauses_caused"]), st.floats(0, 1e6))
def test_where_work_counts_so_much_at_most_better_news_is_still_better(
    seen: Observations, name: str, more: float
) -> None:
    before, after = seen.at_most(10.0), replace(seen, **{name: getattr(seen, name) + more}).at_most(10.0)
    done = after.completed + after.failed + after.timed_out + after.pauses_caused
    assert done <= 10.0 * (1 + 1e-9)
    assert (after.receipts_rejected, after.probes_right, after.probes_wrong, after.uptime, after.age) == (
        *(seen.receipts_rejected, seen.probes_right, seen.probes_wrong, seen.uptime, seen.age),
    )
    one, other = score_of(before).dependability, score_of(after).dependability
    assert other >= one * (1 - 1e-9) if name == "completed" else other <= one * (1 + 1e-9)


def test_little_work_counts_as_it_is() -> None:
    seen = Observations(completed=3.0, failed=1.0, pauses_caused=6.0)
    assert seen.at_most(10.0) == seen
    assert seen.at_most(5.0) == Observations(completed=1.5, failed=0.5, pauses_caused=3.0)
    assert score_of(Observations(completed=1e6, probes_right=1e6, age=YEAR).at_most(10.0)).value < 0.95


@pytest.mark.parametrize("name", [*COUNTS, "uptime", "age"])
def test_what_cannot_have_been_seen_is_refused(name: str) -> None:
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=name):
            Observations(**{name: wrong})


def test_time_that_goes_back_makes_nothing_more() -> None:
    assert Observations(failed=1.0).faded(-DAY).failed == 1.0


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"failed": 9.0}, "far-node doctor"),
        ({"timed_out": 9.0}, "too late"),
        ({"pauses_caused": 9.0}, "far-node stop"),
        ({"receipts_rejected": 3.0}, "receipts contradict"),
        ({"probes_wrong": 3.0, "receipts_rejected": 1.0}, "known answer"),
        ({"uptime": 0.3}, "always there"),
    ],
)
def test_an_owner_hears_first_what_would_help_most(seen: dict[str, float], words: str) -> None:
    advice = what_helps(Observations(**{"completed": 50.0, "age": YEAR, **seen}))
    assert words in advice[0]
    assert len(advice) == len(set(advice))


def test_who_has_nothing_to_mend_hears_nothing_and_a_newcomer_that_it_passes() -> None:
    assert what_helps(Observations(completed=1000.0, probes_right=40.0, uptime=1.0, age=YEAR)) == ()
    assert [sentence.partition(":")[0] for sentence in what_helps(Observations())] == [
        "not much was seen of it yet",
        "it is in its first hours",
    ]


@given(observations)
def test_where_a_score_lacks_something_there_is_advice(seen: Observations) -> None:
    advice = what_helps(seen)
    assert len(advice) <= 8
    assert advice or score_of(seen).value > 0.95
