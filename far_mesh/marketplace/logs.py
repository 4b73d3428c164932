"""Logs: one JSON object per line, with the request they belong to. Never a prompt, a completion or a secret.

For that reason an unexpected exception is logged as its type and the places it went through: its message may quote
what somebody said. And what looks like a credential is struck out wherever it stands, as in the path of a request whose
sender put it there.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from typing import Any, TextIO

import structlog

from discovery.protocol.errors import FarError

LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}

CREDENTIAL = re.compile(r"sk-far-[0-9A-Za-z]{20,}|eyJ[\w-]{10,}\.[\w-]+\.[\w-]*|0x[0-9a-fA-F]{130,}")
"""API keys, bearer tokens and signatures of wallets, or the most of one."""


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all logs, those of libraries too (from WARNING up), to ``stream`` (standard error by default)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_exception_text,
        _without_credentials,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def where_it_failed(error: BaseException) -> dict[str, Any]:
    """The type of an exception and the places it went through, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    found: dict[str, Any] = {
        "error": f"{type(error).__module__}.{type(error).__qualname__}",
        "places": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    return found if cause is None else {**found, "cause": where_it_failed(cause)}


def broke(event: str, error: Exception, **facts: Any) -> FarError:
    """Log a bug at the edge of a door, and give what a stranger may know of it: nothing."""
    structlog.get_logger(__name__).error(event, **facts, **where_it_failed(error))
    return FarError("something went wrong on our side")


def _without_exception_text(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    raised = event.pop("exc_info", None)
    error = raised[1] if isinstance(raised, tuple) else sys.exc_info()[1] if raised is True else raised
    return {**event, **where_it_failed(error)} if isinstance(error, BaseException) else event


def _without_credentials(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        name: CREDENTIAL.sub("[credential]", said) if isinstance(said, str) else said for name, said in event.items()
    }
