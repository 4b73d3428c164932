"""How far a long piece of work on models is: told to programs as events, shown to people as a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from discovery.console import Console

_EVENT_SECONDS = 0.5

Work = Literal["pulling", "verifying", "copying"]


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` bytes of some work on a model; ``file`` is the one at hand."""

    work: Work
    model: str
    file: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Tell nobody."""


class Counter:
    """Adds up bytes over several files and tells of each step."""

    def __init__(self, work: Work, model: str, total: int, on_progress: OnProgress) -> None:
        self._work, self._model, self._total, self._on_progress = work, model, total, on_progress
        self._done = 0
        self.file = ""

    def __call__(self, count: int) -> None:
        """``count`` more bytes; fewer, if it is negative and some must be done again."""
        self._done += count
        self._on_progress(Progress(self._work, self._model, self.file, self._done, self._total))


@contextmanager
def shown(console: Console) -> Iterator[OnProgress]:
    """A function to tell progress to, until the context ends: JSON events on stdout, or a bar on stderr."""
    if console.as_json:
        yield _Events(console)
        return
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=False),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=RichConsole(stderr=True), transient=True) as bars:
        tasks: dict[tuple[str, str], int] = {}

        def show(now: Progress) -> None:
            key = now.work, now.model
            if key not in tasks:
                tasks[key] = bars.add_task(f"{now.work} {now.model}", total=now.total)
            bars.update(tasks[key], completed=now.done, total=now.total)  # type: ignore[arg-type]

        yield show


class _Events:
    def __init__(self, console: Console) -> None:
        self._console, self._last, self._file = console, 0.0, ""

    def __call__(self, now: Progress) -> None:
        due = time.monotonic() - self._last >= _EVENT_SECONDS
        if due or now.done == now.total or now.file != self._file:
            self._last, self._file = time.monotonic(), now.file
            self._console.event(now.work, model=now.model, file=now.file, done_bytes=now.done, total_bytes=now.total)
