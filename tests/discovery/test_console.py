"""What every command shares."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from discovery.console import Console

SCRIPT = """
import structlog
from discovery.console import quiet_libraries
quiet_libraries()
def work(prompt):
    try:
        1 // 0
    except ZeroDivisionError:
        structlog.get_logger().error("compute_failed", exc_info=True)
work("CANARY")
"""


def test_a_logged_exception_says_where_but_never_with_what() -> None:
    """Local variables may hold what a user wrote (X1)."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    line = json.loads(ended.stderr)
    assert line["event"] == "compute_failed"
    assert "ZeroDivisionError" in ended.stderr
    assert '"name": "work"' in ended.stderr
    assert "CANARY" not in ended.stderr
    assert ended.stdout == ""


def test_what_is_told_by_the_way_leaves_the_text_whole(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=False)
    console.token(1, "Once upon")
    console.aside("mended", "blocks 0:3 were lost", blocks=(0, 3))
    console.token(2, " a time")
    told = capsys.readouterr()
    assert told.out == "Once upon a time"
    assert "blocks 0:3 were lost" in told.err


def test_scripts_read_it_among_the_other_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=True).aside("mended", "blocks 0:3 were lost", blocks=(0, 3))
    told = capsys.readouterr()
    assert json.loads(told.out) == {"event": "mended", "blocks": [0, 3]}
    assert told.err == ""
