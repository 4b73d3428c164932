"""What every command shares."""

from __future__ import annotations

import json
import subprocess
import sys

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
