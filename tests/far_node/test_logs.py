"""The log of a node: what goes into it, for whom it is, and how it is read."""

from __future__ import annotations

import json
import logging
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

import far_node.cli
from discovery.console import Console
from discovery.protocol.errors import InvalidArgument
from far_node import logs
from far_node.logs import Entry, LogReader, NodeLog, Wanted, kept, log_path, parse_since
from tests.support.swarm import run_here


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log_path(tmp_path / "identity")


def events(path: Path) -> list[str]:
    return [str(json.loads(line)["event"]) for line in path.read_text().splitlines()]


def line(event: str, minutes_ago: int = 0, level: str = "info") -> str:
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return json.dumps({"event": event, "level": level, "timestamp": at.isoformat()}) + "\n"


class TestWriting:
    """What a node writes while it runs."""

    def test_all_that_is_logged_and_told_is_kept_and_only_warnings_are_seen(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with kept(Console(True), path, "info") as console:
            log = structlog.get_logger("far_node.test")
            log.debug("quiet")
            log.info("refused", peer="12D3")
            log.warning("loud")
            logging.getLogger("hivemind").error("of a library")
            logging.getLogger("another").error("of another")
            logging.getLogger("another").info("at length")
            console.event("ready", peer_id="12D3")
            console.event("progress", done=1)
        structlog.get_logger().warning("afterwards")
        assert events(path)[-1] == "ready"
        assert "refused" in path.read_text()
        assert [event for event in events(path) if "of a" in event] == ["of a library", "of another"]
        assert "at length" not in path.read_text()
        assert "quiet" not in path.read_text()
        assert "afterwards" not in path.read_text()
        assert "progress" not in path.read_text()
        seen = capsys.readouterr()
        assert "loud" in seen.err
        assert "refused" not in seen.err
        assert json.loads(seen.out.splitlines()[0]) == {"event": "ready", "peer_id": "12D3"}

    def test_a_failure_is_kept_and_told_by_others(self, path: Path) -> None:
        def fail() -> None:
            with kept(Console(True), path, "error") as console:
                console.event("starting")
                raise InvalidArgument("no such thing")

        with pytest.raises(InvalidArgument):
            fail()
        (entry,) = (Entry.read(one) for one in path.read_text().splitlines())
        assert (entry.event, entry.level, entry.facts) == (
            "error",
            "error",
            {"code": "invalid_argument", "message": "no such thing"},
        )

    def test_a_bug_that_ends_a_node_is_kept(self, path: Path) -> None:
        def fail() -> None:
            with kept(Console(True), path, "error"):
                raise ZeroDivisionError("of all things")

        with pytest.raises(ZeroDivisionError):
            fail()
        assert events(path) == ["crashed"]

    def test_it_is_for_its_owner_alone_also_when_it_is_divided(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_FILE_BYTES", 1000)
        log = NodeLog(path, "info")
        with log.listening():
            for number in range(200):
                log.note("info", "step", {"number": number})
        files = list(path.parent.iterdir())
        assert len(files) == 1 + logs.KEPT_FILES
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        numbers = [(entry.facts or {})["number"] for entry in LogReader(path).so_far()]
        assert numbers == list(range(200 - len(numbers), 200))

    def test_a_log_that_cannot_be_kept_keeps_no_node_from_serving(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path.parent.write_text("in the way")
        with kept(Console(True), path, "info") as console:
            console.event("ready")
        seen = capsys.readouterr()
        assert json.loads(seen.out) == {"event": "ready"}
        assert "no log is kept" in seen.err

    def test_a_full_disk_is_said_once(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log = NodeLog(path, "info")
        with log.listening():
            log._handler.close()
            log._handler.stream = full = Path("/dev/full").open("w")  # noqa: SIM115  # closing it fails
            for _ in range(3):
                log.note("info", "step", {})
            log._handler.stream = None
            with pytest.raises(OSError, match="No space"):
                full.close()
        assert capsys.readouterr().err.count("cannot be written") == 1


class TestReading:
    """What its owner reads."""

    @pytest.fixture
    def reader(self, path: Path) -> Iterator[LogReader]:
        path.parent.mkdir()
        path.with_name(path.name + ".1").write_text(line("first", 200))
        path.write_text(line("second", 100, "warning") + "not ours\n" + line("third"))
        reader = LogReader(path)
        yield reader
        reader.close()

    def test_it_is_read_from_its_oldest_piece_on(self, reader: LogReader) -> None:
        assert [entry.event for entry in reader.so_far()] == ["first", "second", "not ours", "third"]

    @pytest.mark.parametrize(
        ("since", "level", "left"),
        [
            ("150m", "debug", ["second", "not ours", "third"]),
            ("1h", "debug", ["not ours", "third"]),
            (None, "warning", ["second", "not ours"]),
            ("2h", "error", ["not ours"]),
        ],
    )
    def test_older_and_lesser_lines_are_left_out(
        self, reader: LogReader, since: str | None, level: str, left: list[str]
    ) -> None:
        wanted = Wanted(None if since is None else parse_since(since), level)
        assert [entry.event for entry in reader.so_far() if wanted.has(entry)] == left

    def test_it_is_followed_over_a_division_and_half_a_line_is_waited_for(self, reader: LogReader, path: Path) -> None:
        assert len(list(reader.so_far())) == 4
        seen = list[str]()
        enough = threading.Event()

        def follow() -> None:
            for entry in reader.follow():
                seen.append(entry.event)
                if len(seen) == 3:
                    enough.set()
                    return

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        whole = line("fourth")
        with path.open("a") as file:
            file.write(whole[:10])
            file.flush()
            file.write(whole[10:] + line("fifth"))
        path.rename(path.with_name(path.name + ".1"))
        path.write_text(line("sixth"))
        assert enough.wait(60)
        assert seen == ["fourth", "fifth", "sixth"]

    def test_words_of_strangers_do_not_move_the_cursor(self) -> None:
        text = json.dumps(
            {"event": "\x1b[2Jhello", "level": "info", "timestamp": "2026-03-01T12:00:00Z", "reason": "\x07 x"}
        )
        words = Entry.read(text).in_words()
        assert words.isprintable()
        assert "hello" in words
        assert Entry.read("\x1b[2J").in_words().isprintable()

    @pytest.mark.parametrize("text", ["", "10", "10 m", "yesterday", "9999999d", "999999d", "2026-13-01", "٣m"])
    def test_what_is_no_time_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidArgument, match="--since"):
            parse_since(text)

    def test_times(self) -> None:
        now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        assert parse_since("90s", now) == now - timedelta(seconds=90)
        assert parse_since("3d", now) == now - timedelta(days=3)
        assert parse_since("2026-03-01T12:00:00Z") == now
        assert parse_since("2026-03-01T12:00").tzinfo is not None


class TestCommand:
    """``far-node logs``."""

    def test_the_last_lines_are_shown(self, path: Path, tmp_path: Path) -> None:
        path.parent.mkdir()
        path.write_text("".join(line(f"event{number}") for number in range(5)))
        shown = run_here(far_node.cli.app, "logs", "--identity", str(tmp_path / "identity"), "-n", "2")
        assert [one.split()[-1] for one in shown.out.splitlines()] == ["event3", "event4"]
        raw = run_here(far_node.cli.app, "logs", "--identity", str(tmp_path / "identity"), "-n", "0", "--json")
        assert raw.out == path.read_text()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "has the node run?"),
            (["--since", "x"], "--since"),
            (["--level", "loud"], "--level 'loud' is not one of"),
        ],
    )
    def test_what_cannot_be_shown_is_an_error(self, tmp_path: Path, arguments: list[str], words: str) -> None:
        ended = run_here(far_node.cli.app, "logs", "--identity", str(tmp_path / "identity"), *arguments)
        assert ended.status == 1
        assert words in ended.err
