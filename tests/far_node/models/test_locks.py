"""Locks between processes end with the process, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from far_node.models.locks import FileLock, locked

_HOLD = """
import sys
from pathlib import Path
from far_node.models.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire(shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


def holding(path: Path, how: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.parametrize(
    ("theirs", "ours", "granted"),
    [("shared", True, True), ("shared", False, False), ("alone", True, False), ("alone", False, False)],
)
def test_a_lock_is_shared_or_not(tmp_path: Path, theirs: str, ours: bool, granted: bool) -> None:
    with holding(tmp_path / "lock", theirs) as process:
        lock = FileLock(tmp_path / "lock")
        assert lock.acquire(shared=ours, wait=False) == granted
        lock.release()
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lock_of_a_process_that_was_killed_is_free(tmp_path: Path, number: signal.Signals) -> None:
    with holding(tmp_path / "lock", "alone") as process:
        process.send_signal(number)
        process.wait(10)
    with locked(tmp_path / "lock"):
        pass


def test_a_lock_is_free_after_its_context(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "deep" / "lock"):
            other = FileLock(tmp_path / "deep" / "lock")
            assert not other.acquire(wait=False)
            other.release()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "lock")
