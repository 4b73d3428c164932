"""Requests for inference from outside: each is counted when it ends, and is a span from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from discovery.tracing import Span, here, inside
from far_mesh.marketplace.telemetry.metrics import OTHER, Metrics

if TYPE_CHECKING:
    from far_mesh.marketplace.inference.run import Answer, Run

Started = Callable[["Run"], "Run"]


class RequestWatch:
    """Looks on, whichever door they come through."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @contextmanager
    def starting(self, request_id: str, model_id: str, tier: str | None) -> Iterator[Started]:
        """A request is being started inside of this; the run that comes of it is watched by what this gives."""
        # Names that do not exist here are a stranger's words.
        model, tier = self._metrics.known_model(model_id), self._metrics.known_tier(tier or OTHER)
        span = here().below("distributed_inference", {"far.request_id": request_id, "far.model_id": model})
        try:
            with inside(span):
                yield partial(self._started, span)
        except BaseException as error:
            self._metrics.refused(model, tier)
            span.end(error)
            raise

    def _started(self, span: Span, run: Run) -> Run:
        run.task.add_done_callback(partial(self._ended, span, run))
        return run

    def _ended(self, span: Span, run: Run, task: asyncio.Task[Answer]) -> None:
        if run.queued_seconds is not None:
            self._metrics.waited(run.model_id, run.tier, run.queued_seconds)
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            answer = task.result()
            self._metrics.completed(answer, run.tier)
            span.set(
                {
                    "far.tier": run.tier,
                    "far.prompt_tokens": answer.prompt_tokens,
                    "far.cached_tokens": answer.cached_tokens,
                    "far.completion_tokens": answer.completion_tokens,
                    "far.finish_reason": answer.finish_reason,
                }
            )
            if answer.time_to_first_token_ms is not None:
                span.set({"far.time_to_first_token_ms": answer.time_to_first_token_ms})
        else:
            self._metrics.failed(run.model_id, run.tier)
        span.end(error)
