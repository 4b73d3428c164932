"""Spans: stretches of work that belong to a trace, sent to a collector over OTLP where somebody wants them.

A span begins at a door (:meth:`Tracing.begin`), and whatever is done below may open spans under it with :func:`span`.
Where nothing is recorded that costs a look at a variable, and OpenTelemetry need not be installed.

Nothing here is global: other libraries of the process find no tracer and record nothing, so what they would put into a
span of their own (addresses with their query, texts of exceptions) is told to nobody. For the same reason a span that
fails keeps the code of the error and not its words.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from discovery.protocol.errors import FarError
from discovery.protocol.trace import TraceParent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Values = Mapping[str, str | int | float | bool]
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FAREWELL_SECONDS = 3.0
_TRACED = "far-mesh"

log = structlog.get_logger(__name__)


class Span:
    """A stretch of work, and this one is recorded nowhere. ``parent`` is what work in other processes belongs to: the
    span of a client that traces what we do not."""

    __slots__ = ("parent",)

    def __init__(self, parent: TraceParent | None = None) -> None:
        self.parent = parent

    def set(self, values: Values) -> None:
        """Note facts about it. Never what somebody said, nor who."""

    def below(self, name: str, values: Values) -> Span:
        """A span under it."""
        return self

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""


class _Recorded(Span):
    """A span of OpenTelemetry."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        context = span.get_span_context()
        sampled = bool(context.trace_flags & 1)
        super().__init__(TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled))
        self._tracer, self._span = tracer, span

    def set(self, values: Values) -> None:
        self._span.set_attributes(values)

    def below(self, name: str, values: Values) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(self._span, Context())
        return _Recorded(self._tracer, self._tracer.start_span(name, context, attributes=values))

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", _kind_of(error))
            if isinstance(error, Exception):
                self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


_NOTHING = Span()
_here: ContextVar[Span] = ContextVar("far_mesh_span", default=_NOTHING)


class Within:
    """``with`` this, work is done inside a span, which ends with it."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Span] | None = None

    def __enter__(self) -> Span:
        self._token = _here.set(self._span)
        return self._span

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        _here.reset(self._token)
        self._span.end(error)


class _Nowhere(Within):
    """The same where nothing is recorded: nothing changes."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return _NOTHING

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Nothing has begun."""


_NOWHERE = _Nowhere(_NOTHING)


def span(name: str, values: Values = {}) -> Within:  # noqa: B006  # never changed
    """A span under the present one, if that is recorded.

    Not around a ``yield`` of an asynchronous generator: who reads it may leave it in another task.
    """
    here = _here.get()
    return Within(here.below(name, values)) if isinstance(here, _Recorded) else _NOWHERE


def here() -> Span:
    """The present span."""
    return _here.get()


@contextmanager
def inside(span: Span) -> Iterator[None]:
    """Work, and tasks that begin here, are done inside a span that somebody else ends."""
    token = _here.set(span)
    try:
        yield
    finally:
        _here.reset(token)


P = ParamSpec("P")
T = TypeVar("T")
Act = Callable[P, Coroutine[Any, Any, T]]


def traced(name: str, values: Values = {}) -> Callable[[Act[P, T]], Act[P, T]]:  # noqa: B006  # never changed
    """What is decorated with this is done inside a span under the present one."""

    def around(work: Act[P, T]) -> Act[P, T]:
        @wraps(work)
        async def within(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name, values):
                return await work(*args, **kwargs)

        return within

    return around


class Tracing:
    """Where spans go. Without a provider nowhere."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer(_TRACED)

    @classmethod
    def from_environment(cls, service: str) -> Tracing:
        """As the variables of OpenTelemetry say: to their endpoint, or nowhere if they name none. ``service`` is who we
        are, if they do not say it. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
        """
        if not any(map(os.environ.get, ENDPOINTS)) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            log.warning("tracing_not_installed", install="far-mesh[otel]")
            return cls()
        name = os.environ.get("OTEL_SERVICE_NAME") or service
        provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def begin(self, name: str, parent: TraceParent | None, values: Values = {}) -> Within:  # noqa: B006
        """Something comes in at a door: a span under ``parent``, which is whoever asked."""
        if self._tracer is None:
            return Within(Span(parent)) if parent is not None else _NOWHERE
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

        context = Context()
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
            ids = int(parent.trace_id, 16), int(parent.span_id, 16)
            context = set_span_in_context(
                NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=flags)), context
            )
        span = self._tracer.start_span(name, context, kind=SpanKind.SERVER, attributes=values)
        return Within(_Recorded(self._tracer, span))

    def close(self) -> None:
        """Send what has not been sent. Blocks for some seconds at most: a collector that is away holds nobody up."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, daemon=True)
            sending.start()
            sending.join(FAREWELL_SECONDS)


def _kind_of(error: BaseException) -> str:
    return error.code if isinstance(error, FarError) else type(error).__name__
