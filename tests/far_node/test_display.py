"""What a node tells while it works: to programs as JSON, to people in sentences."""

from __future__ import annotations

import json
from typing import Any

import pytest

from discovery.console import Console
from discovery.dht.reach import NOT_ASKED, Reach, of_relays
from far_node.display import Story, print_status
from far_node.standing import Known, Standing
from tests.support.node_status import STATUS

LOADING: dict[str, Any] = {
    "model_id": "tiny",
    "blocks": (0, 3),
    "quantization": "int8",
    "bytes": 3 << 30,
    "tight": True,
}
READY: dict[str, Any] = {
    "model_id": "tiny",
    "blocks": (0, 3),
    "block_count": 6,
    "quantization": "int8",
    "dtype": "float32",
    "parameter_bytes": 3 << 30,
    "cache_budget_bytes": 1 << 30,
    "expected_sessions": 12,
    "expected_session_length": 2048,
}


@pytest.mark.parametrize(
    ("event", "facts", "sentence"),
    [
        ("starting", {"model": "tiny"}, "looking for tiny …"),
        ("loading", LOADING | {"tight": False}, "loading blocks 0:3 of tiny (int8, 3.00 GiB) …"),
        ("leaving", {"sessions": 2}, "waiting for 2 open sessions to end; once more, and they are cut off"),
        ("leaving", {"sessions": 0}, ""),
        ("progress", {"work": "reading", "done": 1, "total": 2, "unit": "tensors"}, ""),
        ("an event of a later version", {"more": 1}, ""),
    ],
)
def test_people_read_sentences_and_programs_the_same_as_json(
    capsys: pytest.CaptureFixture[str], event: str, facts: dict[str, Any], sentence: str
) -> None:
    with Story(Console(False)) as story:
        story.tell(event, **facts)
    assert capsys.readouterr().out == (f"{sentence}\n" if sentence else "")
    with Story(Console(True)) as story:
        story.tell(event, **facts)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps({"event": event, **facts}))


def test_memory_that_gets_tight_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    Story(Console(False)).tell("loading", **LOADING)
    assert "warning: that leaves less memory free" in capsys.readouterr().out


def test_ready_says_what_is_served_and_how_many_find_room(capsys: pytest.CaptureFixture[str]) -> None:
    Story(Console(False)).ready(READY, NOT_ASKED, None, ("/ip4/0.0.0.0/tcp/31330",), peer_id="12D3", wallet="0x1")
    assert capsys.readouterr().out.splitlines() == [
        "serving blocks 0:3 of 6 of tiny (int8, float32): 3.00 GiB of weights, "
        "1.00 GiB of cache for about 12 sessions of 2048 tokens",
        "as 12D3, paid to 0x1",
    ]


def test_a_node_behind_a_relay_says_so_and_what_would_be_better(capsys: pytest.CaptureFixture[str]) -> None:
    where = ("/ip4/0.0.0.0/tcp/31330",)
    Story(Console(False)).ready(READY, of_relays(["12D3R"]), ("12D3R",), where, peer_id="12D3", wallet="0x1")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "reached through the relay 12D3R, which is slower; "
        "open port 31330 and start without --relay to be reached directly"
    )
    Story(Console(False)).ready(READY, of_relays([]), (), where, peer_id="12D3", wallet="0x1")
    assert "reached by nobody: no relay answers, trying again" in capsys.readouterr().out


def test_a_node_that_nobody_gets_through_to_says_so_at_once_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    closed = Reach("none", "12D3B dialed 203.0.113.7:31330, and nothing answered")
    Story(Console(False)).ready(READY, closed, None, ("/ip4/0.0.0.0/tcp/31330",), peer_id="12D3", wallet="0x1")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "reached by nobody: 12D3B dialed 203.0.113.7:31330, and nothing answered; "
        "let the router forward port 31330 (TCP), or start with --relay"
    )


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        ({"way": "direct", "why": "12D3B got through"}, "directly: 12D3B got through"),
        ({"way": None, "why": "nobody was asked yet"}, "directly, as far as is known: nobody was asked yet"),
        (
            {"way": "none", "why": "12D3B was refused"},
            "by nobody: 12D3B was refused; let the router forward port 31330",
        ),
    ],
    ids=["direct", "unknown", "none"],
)
def test_the_status_says_how_a_node_is_reached_and_why(
    reach: dict[str, str | None], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    print_status(STATUS | {"reached": reach}, Standing(Known.NOWHERE, why="no service [is] known"))
    shown = capsys.readouterr().out
    assert words in shown
    assert "no service [is] known" in shown


def test_sessions_that_were_cut_off_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    Story(Console(False)).changed("unload", {"drained": False})
    Story(Console(False)).stopped({"drained": True, "token_layers_served": 6})
    assert capsys.readouterr().out.splitlines() == [
        "the model is unloaded; sessions that had not ended were cut off",
        "stopped",
    ]


def test_a_terminal_sees_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with Story(Console(False)) as story:
        story.tell("progress", work="pulling", done=1 << 30, total=4 << 30, unit="bytes", file="model.safetensors")
        bar = story._bar
        assert bar is not None
        assert [(task.description, task.completed, task.total) for task in bar.tasks] == [("pulling", 1 << 30, 4 << 30)]
        story.tell("progress", work="reading", done=2, total=3, unit="tensors")
        assert len(bar.tasks) == 2
