"""Progress is told to programs as events, not too many, and shown to people as a bar where there is a screen."""

from __future__ import annotations

import io
import json

import pytest

from discovery.console import Console
from far_node.models.progress import Counter, Progress, shown, silent


def test_bytes_add_up_over_files() -> None:
    seen: list[Progress] = []
    counter = Counter("pulling", "tiny", 100, seen.append)
    counter.file = "a"
    counter(60)
    counter(-60)
    counter.file = "b"
    counter(100)
    assert seen == [
        Progress("pulling", "tiny", "a", 60, 100),
        Progress("pulling", "tiny", "a", 0, 100),
        Progress("pulling", "tiny", "b", 100, 100),
    ]


def test_programs_get_each_file_and_the_end_and_little_between(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(Console(as_json=True)) as tell:
        for done in range(1001):
            tell(Progress("pulling", "tiny", "a" if done < 500 else "b", done, 1000))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(events) < 10
    assert next(event["done_bytes"] for event in events if event["file"] == "b") == 500
    assert events[-1] == {"event": "pulling", "model": "tiny", "file": "b", "done_bytes": 1000, "total_bytes": 1000}


def test_without_a_screen_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(Console(as_json=False)) as tell:
        assert tell is silent
        tell(Progress("pulling", "tiny", "a", 1, 2))
    assert capsys.readouterr() == ("", "")


def test_people_see_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with shown(Console(as_json=False)) as tell:
        tell(Progress("pulling", "far/tiny", "a", 500_000, 2_000_000))
    assert "pulling far/tiny" in screen.getvalue()
    assert "2.0 MB" in screen.getvalue()
    assert capsys.readouterr().out == "", "stdout is for what the command has to say"
