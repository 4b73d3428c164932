"""Progress on the screen: a line for each thing that is being started, with a spinner and its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

T = TypeVar("T")


class Steps:
    """Owner of the progress display."""

    def __init__(self, screen: Console) -> None:
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=screen)

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    async def show(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` under a line of its own."""
        line = self._progress.add_task(what, total=1)
        result = await work
        self._progress.update(line, completed=1)
        return result


async def gather_or_cancel(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Results in order; when one fails the others are cancelled before its error goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
