"""Every millisecond of an answer belongs to somebody, and no node can claim more than there was."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from far_mesh.trace import NodeTime, Parts, StepTrace, Trace, as_facts, median, plot, table, total

NODES = (NodeTime("peer-a", 0.001, 0.010), NodeTime("peer-b", 0.002, 0.020))

durations = st.floats(0, 2, allow_nan=False)
nodes = st.lists(st.builds(NodeTime, st.sampled_from(["peer-a", "peer-b", "peer-c"]), durations, durations), max_size=5)


def step(
    at: float, *, positions: int = 1, tokens: int = 1, took: float = 0.050, on: tuple[NodeTime, ...] = NODES
) -> StepTrace:
    """Under way for ``took`` from ``at`` on, and 2 ms for a token."""
    return StepTrace(positions, tokens, at, at + took, at + took, at + took + 0.002, on)


def plain(count: int) -> Trace:
    """A prompt of 10 positions, then one step after the other, 1 ms apart."""
    steps = [step(0.005, positions=10, took=0.100)]
    while len(steps) < count:
        steps.append(step(steps[-1].chosen_at + 0.001))
    return Trace(0.0, tuple(steps))


def shown(renderable: object, width: int = 120) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(renderable)
    return file.getvalue()


def test_a_step_is_queue_and_compute_and_links_and_client() -> None:
    prompt, first, second = plain(3).parts()
    for one in (first, second):
        assert one.queue == pytest.approx(0.003)
        assert one.compute == pytest.approx({"peer-a": 0.010, "peer-b": 0.020})
        assert one.links == pytest.approx(0.050 - 0.033)
        assert one.client == pytest.approx(0.001 + 0.002)
        assert one.until_token == pytest.approx(0.053)
    assert prompt.client == pytest.approx(0.005 + 0.002)
    assert prompt.until_token == pytest.approx(0.107)


@given(st.integers(1, 40))
def test_without_guesses_the_parts_are_the_whole_time(count: int) -> None:
    trace = plain(count)
    whole = total(trace.parts())
    assert whole.queue + whole.computed + whole.links + whole.client == pytest.approx(trace.steps[-1].chosen_at)
    assert whole.until_token == pytest.approx(trace.steps[-1].chosen_at)


@given(nodes, durations)
def test_nobody_claims_more_than_the_step_was_under_way(claims: list[NodeTime], took: float) -> None:
    (parts,) = Trace(0.0, (step(0.0, took=took, on=tuple(claims)),)).parts()
    assert parts.queue + parts.computed + parts.links == pytest.approx(took)
    assert min(parts.queue, parts.links, *parts.compute.values(), 0.0) == 0.0


def test_a_step_of_which_no_node_says_anything_is_all_links() -> None:
    (parts,) = Trace(0.0, (step(0.0, on=()),)).parts()
    assert parts.queue == parts.computed == 0
    assert parts.links == pytest.approx(0.050)


def test_guesses_that_were_right_make_tokens_come_sooner_than_a_round() -> None:
    trace = Trace(0.0, (step(0.0, positions=10), step(0.053), step(0.055, tokens=2), step(0.057, tokens=0)))
    _, first, second = trace.parts()
    assert second.until_token == pytest.approx(0.002)
    assert second.queue + second.computed + second.links == pytest.approx(0.050)
    assert first.client == pytest.approx(0.003)
    assert second.client == pytest.approx(0.002), "it left before the token was there"
    assert (trace.tokens, trace.void_steps) == (4, 1)


def test_a_prompt_in_parts_is_one_row_whose_parts_overlap() -> None:
    parts = [step(0.005 + 0.010 * number, positions=64, tokens=0) for number in range(3)]
    trace = Trace(0.0, (*parts, step(0.040, positions=9), step(0.100), step(0.110, tokens=0), step(0.160)))
    prompt, *rest = trace.parts()
    assert prompt.compute == pytest.approx({"peer-a": 0.040, "peer-b": 0.080})
    assert prompt.links == pytest.approx(0.050 - 0.033)
    assert prompt.client == pytest.approx(0.005 + 0.002)
    assert prompt.until_token == pytest.approx(0.092)
    assert len(rest) == 2
    assert (trace.tokens, trace.void_steps) == (3, 1)
    assert as_facts(trace)["prompt_positions"] == [64, 64, 64, 9]


def test_a_prompt_whose_answer_never_came_has_no_parts() -> None:
    trace = Trace(0.0, (step(0.0, positions=64, tokens=0), step(0.1, positions=64, tokens=0)))
    assert trace.parts() == []
    assert (trace.tokens, trace.void_steps) == (0, 0)


def test_a_node_that_replaced_another_has_a_median_of_its_own() -> None:
    other = (NODES[0], NodeTime("peer-c", 0.0, 0.030))
    trace = Trace(0.0, (step(0.0), step(0.06), step(0.12), step(0.18, on=other)))
    assert trace.peers == ("peer-a", "peer-b", "peer-c")
    assert median(trace.parts()[1:]).compute == pytest.approx({"peer-a": 0.010, "peer-b": 0.020, "peer-c": 0.030})


def test_the_table_names_prompt_median_and_total() -> None:
    text = shown(table(plain(4)))
    assert [word in text for word in ("queue", "…peer-a", "…peer-b", "links", "client", "until token")] == [True] * 6
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["median"].split("│")[1:-1]] == [
        *("median", "3.0", "10.0", "20.0", "17.0", "3.0", "53.0"),
    ]
    assert set(rows) == {"prompt", "median", "total"}


def test_an_answer_of_one_token_has_no_median_and_no_plot() -> None:
    trace = plain(1)
    assert "median" not in shown(table(trace))
    assert str(plot(trace)) == ""
    assert as_facts(trace)["median_step"] is None


def test_an_answer_that_never_came_is_shown_without_complaint() -> None:
    trace = Trace(0.0, ())
    assert as_facts(trace)["total"]["until_token_ms"] == 0
    assert "total" in shown(table(trace))
    assert str(plot(trace)) == ""


@pytest.mark.parametrize("count", [2, 5, 17, 18, 200])
def test_the_plot_has_bars_for_all_tokens(count: int) -> None:
    lines = str(plot(plain(count), width=53)).splitlines()
    *bars, legend = lines
    assert len(bars) <= 16
    assert bars[0].split()[0].split("–")[0] == "1"
    assert bars[-1].split()[0].split("–")[-1] == str(count - 1)
    for bar in bars:
        _, cells, milliseconds, unit = bar.split()
        assert cells == "█" * 30 + "▓" * 3 + "░" * 17 + "▒" * 3
        assert (milliseconds, unit) == ("53.0", "ms")
    assert legend.split() == ["█", "compute", "▓", "queue", "░", "links", "▒", "client"]


def test_facts_are_milliseconds_by_name() -> None:
    facts = json.loads(json.dumps(as_facts(plain(3))))
    assert facts["peers"] == ["peer-a", "peer-b"]
    assert (facts["tokens"], facts["void_steps"]) == (3, 0)
    assert facts["prompt"]["until_token_ms"] == 107
    assert facts["median_step"] == {
        "queue_ms": 3,
        "compute_ms": {"peer-a": 10, "peer-b": 20},
        "links_ms": 17,
        "client_ms": 3,
        "until_token_ms": 53,
    }
    assert facts["prompt_positions"] == [10]
    assert [(one["positions"], one["tokens"]) for one in facts["steps"]] == [(1, 1), (1, 1)]


def test_the_median_of_nothing_is_nothing() -> None:
    assert median([]) == total([]) == Parts()
