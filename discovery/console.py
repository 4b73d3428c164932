"""What every command shares: one JSON object per line where scripts read, one clear sentence where people do."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from discovery.protocol.errors import FarError

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
"""Typer's own, for a command line that it does not understand."""
EXIT_FOUND = 3
"""The command did what it was asked, and what it looked at is not as it should be."""
EXIT_INTERRUPTED = 130


class Console:
    """Writes events. ``as_json``: one object per line; otherwise sentences."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def event(self, event: str, sentence: str | None = None, **facts: Any) -> None:
        """Tell of something that happened; ``sentence`` is what a person reads."""
        if self.as_json:
            self._write(json.dumps({"event": event, **facts}))
        elif sentence is not None:
            self._write(sentence)

    def token(self, token_id: int, text: str, **facts: Any) -> None:
        """A piece of text as it is generated."""
        if self.as_json:
            self._write(json.dumps({"event": "token", "id": token_id, "text": text, **facts}))
        else:
            print(text, end="", flush=True)

    def aside(self, event: str, sentence: str, **facts: Any) -> None:
        """Something by the way, in the middle of a text: for people on stderr, so that the text stays whole."""
        if self.as_json:
            self.event(event, **facts)
        else:
            print(f"\n[{sentence}]", file=sys.stderr, flush=True)

    def error(self, error: FarError) -> None:
        """Tell of a failure, on stderr for people."""
        if self.as_json:
            self._write(
                json.dumps({"event": "error", "code": error.code, "message": error.message, "retry": error.retry})
            )
        else:
            print(f"error: {error.message}", file=sys.stderr, flush=True)

    def _write(self, line: str) -> None:
        print(line, flush=True)


def quiet_libraries(level: int = logging.WARNING) -> None:
    """Our own logs at ``level`` on stderr, those of libraries at ERROR, so that output stays readable."""
    import structlog

    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=json_lines(),
        cache_logger_on_first_use=False,  # who runs a command in a process of his own may set up the logs again
    )


def json_lines() -> list[Any]:
    """What makes a line of JSON of something that is logged."""
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        # without local variables: they may hold what a user wrote
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(),
    ]


def run(console: Console, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command's coroutine; a :class:`FarError` becomes a sentence and exit code 1, Ctrl-C exit code 130."""
    import uvloop

    try:
        uvloop.run(main())
    except FarError as error:
        fail(console, error)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def settle_memory() -> None:
    """Once everything is loaded: the collector need not look at it again.

    A walk over the objects of torch and transformers takes tens of milliseconds and empties the caches of the core;
    measured on a ring of three, a token takes 0.86 of the time without it (median of seven pairs).
    """
    gc.collect()
    gc.freeze()


def fail(console: Console, error: FarError) -> NoReturn:
    """Tell of the failure and leave with exit code 1."""
    console.error(error)
    sys.exit(EXIT_FAILED)


async def until_stopped(stop: Callable[[], Awaitable[None]]) -> None:
    """Wait for SIGTERM or SIGINT, then run ``stop``."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    await asked.wait()
    await stop()
