"""What is right, by distances."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.probe.judge import Answer, block_ms_of, by_majority, is_right, tolerance, typical
from discovery.probe.observation import Verdict

RIGHT, WRONG, UNDECIDED = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED


def verdicts(truth: dict[str, float], owners: dict[str, str] | None = None) -> str:
    """What is said of answers that are numbers, in the order of their names: their distance is their difference."""
    answers = [Answer(name, (owners or {}).get(name, name), "none") for name in truth]
    between = {(one, other): [abs(truth[one] - truth[other])] * 4 for one, other in permutations(truth, 2)}
    found = by_majority(answers, between)
    return "".join({RIGHT: "r", WRONG: "w", UNDECIDED: "?"}[found[name]] for name in sorted(truth))


def test_most_positions_must_be_near() -> None:
    assert is_right([0.0, 0.1, 0.05, 0.1], 0.1)
    assert is_right([0.0, 9.0, 0.0, 0.0], 0.1), "a single one may be far off"
    assert not is_right([0.0, 9.0, 9.0, 0.0], 0.1)
    assert not is_right([1.0] * 8, tolerance("none", "nf4")), "who gives back what came in has done nothing"
    assert not is_right([], 0.1)


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_what_is_no_number_is_not_right(nothing: float) -> None:
    assert not is_right([nothing] * 4, 10.0)
    assert typical([nothing] * 3) == math.inf


def test_weights_of_different_forms_may_be_further_apart() -> None:
    assert tolerance("none", "none") == tolerance("nf4", "nf4") < tolerance("none", "nf4") < 1.0


def test_most_owners_are_right() -> None:
    assert verdicts({"a": 0.0, "b": 0.01, "c": 5.0}) == "rrw"
    assert verdicts({"a": 0.0, "b": 0.01, "c": 5.0, "d": 5.0}) == "????", "two against two"
    assert verdicts({"a": 0.0, "b": 0.01}) == "??", "two are too few, though they agree"
    assert verdicts({"a": 0.0, "b": 5.0, "c": 9.0}) == "???"
    assert verdicts({}) == ""


def test_nodes_of_one_owner_have_one_voice() -> None:
    sybils = dict.fromkeys("xyz", "one owner")
    assert verdicts({"a": 0.0, "b": 0.0, "x": 5.0, "y": 5.0, "z": 5.0}, sybils) == "rrwww"
    assert verdicts({"a": 0.0, "x": 5.0, "y": 5.0, "z": 5.0}, sybils) == "????"


@given(st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from([0.0, 5.0, 9.0]), max_size=7))
def test_nobody_is_wrong_who_agrees_with_most(truth: dict[str, float]) -> None:
    found = dict(zip(sorted(truth), verdicts(truth), strict=True))
    for name, value in truth.items():
        same = sum(other == value for other in truth.values())
        assert found[name] == ("?" if "?" in found.values() else "r" if 2 * same > len(truth) else "w")


def test_what_a_block_takes_is_without_the_way_and_without_what_came_between() -> None:
    assert block_ms_of([0.050] * 6 + [3.0, 4.0], 10.0, 4) == pytest.approx(10.0)
    assert block_ms_of([0.005], 10.0, 4) == 0.0
    assert block_ms_of([], 10.0, 4) is None
