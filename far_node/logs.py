"""The log of a node: one JSON object per line, in a file for its owner alone that is divided when it gets long."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

import structlog

from discovery.console import Console, json_lines
from discovery.protocol.errors import FarError, InvalidArgument

MAX_FILE_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5
POLL_SECONDS = 0.2
LEVELS = ("debug", "info", "warning", "error", "critical")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TO_STDERR = logging.WARNING
_LIBRARIES = ("", "hivemind")
"""Loggers of libraries: all of them, and the one that hands nothing on."""


def log_path(identity: Path) -> Path:
    """Where the node with this identity file writes its log."""
    identity = identity.expanduser()
    return identity.parent / "logs" / f"{identity.name}.log"


class NodeLog:
    """The file that is written while a node runs."""

    def __init__(self, path: Path, level: str) -> None:
        """
        Raises:
            OSError: the file cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handler = _OwnersFile(path, maxBytes=MAX_FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
        self._handler.setFormatter(_AsJson())
        self._handler.setLevel(logging.ERROR)  # of libraries; our own lines do not come by their loggers
        self._level = _number(level)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """All logs of this process go here as well as to stderr, where only warnings and worse are written."""
        before = structlog.get_config()
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(min(self._level, _TO_STDERR)),
            logger_factory=lambda *_: _Lines(self),
            processors=json_lines(),
        )
        for library in _LIBRARIES:
            logging.getLogger(library).addHandler(self._handler)
        try:
            yield
        finally:
            for library in _LIBRARIES:
                logging.getLogger(library).removeHandler(self._handler)
            structlog.configure(**before)
            self._handler.close()

    def note(self, level: str, event: str, facts: Mapping[str, Any]) -> None:
        """Write an event here and nowhere else."""
        now = datetime.now().astimezone().isoformat()
        self.write(_number(level), json.dumps({**facts, "event": event, "level": level, "timestamp": now}, default=str))

    def write(self, level: int, line: str) -> None:
        """Write a line, if its level is among those that are written."""
        if level >= self._level:
            self._handler.handle(logging.makeLogRecord({"levelno": level, "msg": line, "is_json": True}))


class KeptConsole(Console):
    """Tells as ever, and keeps what was told in the log; how far a download is not among it."""

    def __init__(self, as_json: bool, log: NodeLog) -> None:
        super().__init__(as_json)
        self._log = log

    def event(self, event: str, sentence: str | None = None, **facts: Any) -> None:
        """Tell, and write down."""
        super().event(event, sentence, **facts)
        if event != "progress":
            self._log.note("info", event, facts)


@contextlib.contextmanager
def kept(console: Console, path: Path, level: str) -> Iterator[Console]:
    """A console whose events are kept in the log at ``path``, together with all that this process logs.

    A log that cannot be written is no reason not to serve: that is said once, and the node goes on without.
    """
    try:
        log = NodeLog(path, level)
    except OSError as error:
        print(f"warning: no log is kept: {path}: {error.strerror}", file=sys.stderr, flush=True)
        yield console
        return
    with log.listening():
        try:
            yield KeptConsole(console.as_json, log)
        except FarError as error:
            log.note("error", "error", {"code": error.code, "message": error.message})
            raise
        except Exception as error:
            log.note("critical", "crashed", {"kind": type(error).__name__, "message": str(error)})
            raise


class _OwnersFile(RotatingFileHandler):
    """A file with mode 0600 from its first moment on."""

    _fails = _is_told = False
    _last: logging.LogRecord | None = None

    def _open(self) -> Any:
        return open(  # the handler closes it
            self.baseFilename, self.mode, encoding=self.encoding, opener=lambda path, how: os.open(path, how, 0o600)
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write, once; of failures one after the other the first is told."""
        if record is self._last:
            return
        self._last = record
        self._fails = False
        super().emit(record)
        self._is_told = self._fails

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk does not end a node, nor fill its terminal."""
        self._fails = True
        if not self._is_told:
            error = sys.exc_info()[1]
            print(f"warning: the log {self.baseFilename} cannot be written: {error}", file=sys.stderr, flush=True)


class _AsJson(logging.Formatter):
    """Lines that are JSON already as they are, and records of libraries as such lines."""

    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, "is_json", False):
            return str(record.msg)
        said = {"event": record.getMessage(), "logger": record.name, "level": record.levelname.lower()}
        said["timestamp"] = datetime.fromtimestamp(record.created).astimezone().isoformat()
        return json.dumps(said)


class _Lines:
    """What structlog writes to."""

    def __init__(self, log: NodeLog) -> None:
        self._log = log

    def _write(self, level: int, line: str) -> None:
        self._log.write(level, line)
        if level >= _TO_STDERR:
            print(line, file=sys.stderr, flush=True)

    def debug(self, line: str) -> None:
        self._write(logging.DEBUG, line)

    def info(self, line: str) -> None:
        self._write(logging.INFO, line)

    def warning(self, line: str) -> None:
        self._write(logging.WARNING, line)

    def error(self, line: str) -> None:
        self._write(logging.ERROR, line)

    def critical(self, line: str) -> None:
        self._write(logging.CRITICAL, line)


@dataclass(frozen=True)
class Entry:
    """A line of a log. One that is not ours, or damaged, has its text as ``event`` and nothing else."""

    line: str
    event: str
    level: str = ""
    at: datetime | None = None
    facts: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, line: str) -> Entry:
        """What a line says."""
        try:
            said = json.loads(line)
            facts = {key: value for key, value in said.items() if key not in ("event", "level", "timestamp")}
            at = datetime.fromisoformat(said["timestamp"]).astimezone()
            return cls(line, str(said["event"]), str(said.get("level", "")), at, facts)
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError, OverflowError):
            return cls(line, line)

    def in_words(self) -> str:
        """For people, in their time. Strangers' words cannot move a terminal's cursor."""
        when = "" if self.at is None else self.at.strftime("%Y-%m-%d %H:%M:%S ")
        facts = "".join(f" {key}={_plain(value)}" for key, value in (self.facts or {}).items())
        return f"{when}{self.level or '-':<8} {_printable(self.event)}{facts}"


def parse_since(text: str, now: datetime | None = None) -> datetime:
    """``10m``, ``2h``, ``3d`` ago, or a date and time as ISO 8601 writes it, here where nothing else is said.

    Raises:
        InvalidArgument: neither.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    try:
        if match:
            now = now or datetime.now().astimezone()
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise InvalidArgument(f"--since {text!r} is neither like 10m, 2h, 3d nor like 2026-03-01T12:00") from None


def parse_level(text: str) -> str:
    """The name of a level.

    Raises:
        InvalidArgument: there is none of this name.
    """
    if text not in LEVELS:
        raise InvalidArgument(f"--level {text!r} is not one of {', '.join(LEVELS)}")
    return text


@dataclass(frozen=True)
class Wanted:
    """Which lines are wanted."""

    since: datetime | None = None
    level: str = "debug"

    def has(self, entry: Entry) -> bool:
        """Whether this one is. Of a line that does not say when, or how bad it is, nobody can tell, so it is."""
        if self.since is not None and entry.at is not None and entry.at < self.since:
            return False
        return entry.level not in LEVELS or LEVELS.index(entry.level) >= LEVELS.index(self.level)


class LogReader:
    """Reads a log from its oldest file on, and goes on with what is written later."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InvalidArgument: there is no log, or it cannot be read.
        """
        self._path = path
        try:
            self._file: IO[str] = self._opened()
        except OSError as error:
            reason = "has the node run?" if isinstance(error, FileNotFoundError) else error.strerror
            raise InvalidArgument(f"there is no log to read at {path}: {reason}") from None
        self._rest = ""

    def so_far(self) -> Iterator[Entry]:
        """Everything that is there."""
        for number in range(KEPT_FILES, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            with contextlib.suppress(FileNotFoundError), older.open(encoding="utf-8", errors="replace") as file:
                yield from (Entry.read(line.rstrip("\n")) for line in file)
        yield from self._more()

    def follow(self) -> Iterator[Entry]:
        """What is written from now on, for ever, also when the file is divided."""
        while True:
            yield from self._more()
            try:
                is_another = os.fstat(self._file.fileno()).st_ino != self._path.stat().st_ino
            except FileNotFoundError:
                is_another = False
            if is_another:
                yield from self._more()
                self._file.close()
                self._file = self._opened()
            else:
                time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _opened(self) -> IO[str]:
        return self._path.open(encoding="utf-8", errors="replace")

    def _more(self) -> Iterator[Entry]:
        while piece := self._file.readline():
            self._rest += piece
            if self._rest.endswith("\n"):
                line, self._rest = self._rest[:-1], ""
                yield Entry.read(line)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _plain(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[!-~]+", value) and '"' not in value:
        return value
    return json.dumps(value)


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
