"""Server-sent events, and how a reader's going away is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from discovery.protocol.errors import FarError
from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.http import error_body
from far_mesh.marketplace.inference.admission import Place
from far_mesh.marketplace.inference.jobs import Embedded, Said
from far_mesh.marketplace.inference.run import Answer, Run

KEEP_ALIVE_SECONDS = 15.0
TELL_SECONDS = 1.0
REQUEST_HEADER, COST_HEADER = "x-far-request-id", "x-far-cost-units"


class EventStream(StreamingResponse):
    """A stream that tells the run when its reader is gone, however it ended."""

    media_type = "text/event-stream"

    def __init__(self, run: Run, events: AsyncIterator[str]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", REQUEST_HEADER: run.request_id}
        super().__init__(kept_alive(events, run), headers=headers | run.grant.headers)
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.reader_left()


def answer_headers(run: Run, answer: Answer) -> dict[str, str]:
    """Which request it was, what it cost and what may still be asked for, for the headers of an answer in one piece."""
    bill = {REQUEST_HEADER: answer.request_id, COST_HEADER: str(answer.outcome.cost_units)}
    return bill | run.grant.headers


def event(content: BaseModel | str) -> str:
    """One event on the wire."""
    text = content if isinstance(content, str) else content.model_dump_json()
    return f"data: {text}\n\n"


def error_event(error: FarError) -> str:
    """A failure in the middle of a stream, in the shape that errors have everywhere."""
    return event(error_body(error).model_dump_json())


async def events_of(
    run: Run,
    said: Callable[[Said], list[str]],
    done: Callable[[Answer], list[str]],
    needed: Callable[[VoucherNotice], str],
) -> AsyncIterator[str]:
    """The tokens of a run as events, and the vouchers that it waits for, then its end or its failure."""
    async for item in run:
        if isinstance(item, VoucherNotice):
            yield needed(item)
        elif isinstance(item, Said):
            for text in said(item):
                yield text
    try:
        answer = await run.answer()
    except FarError as error:
        yield error_event(error)
        return
    for text in done(answer):
        yield text


async def kept_alive(events: AsyncIterator[str], run: Run) -> AsyncIterator[str]:
    """The same events, with comments while nothing happens: now and then, so that nobody in between hangs up, and where
    the run waits for its turn, each time that changes."""
    told, told_at = "", time.monotonic()
    while True:
        next_event = asyncio.ensure_future(anext(events, None))
        try:
            while not next_event.done():
                place, silent = run.place, time.monotonic() - told_at
                comment = _comment(place)
                if silent >= KEEP_ALIVE_SECONDS or (place is not None and comment != told):
                    yield comment
                    told, told_at, silent = comment, time.monotonic(), 0.0
                patience = KEEP_ALIVE_SECONDS - silent
                await asyncio.wait([next_event], timeout=patience if place is None else min(TELL_SECONDS, patience))
            found = next_event.result()
        finally:
            next_event.cancel()
        if found is None:
            return
        yield found
        told_at = time.monotonic()


def _comment(place: Place | None) -> str:
    if place is None:
        return ": waiting\n\n"
    where = f"queued {place.position}" if place.position else "queued at the nodes"
    return f": {where}\n\n" if place.obstacle is None else f": {where}, {place.obstacle}\n\n"


async def started(request: Request, starting: Coroutine[Any, Any, Run]) -> Run:
    """A run that is about to begin. Who hangs up while it waits for its turn leaves the queue.

    Raises:
        GenerationFailed: the caller hung up.
        FarError: it did not begin.
    """
    beginning, hung_up = asyncio.create_task(starting), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([beginning, hung_up], return_when=asyncio.FIRST_COMPLETED)
        if beginning.done():
            return beginning.result()
        raise GenerationFailed("the reader left before the answer began")
    except BaseException:
        beginning.cancel()
        await asyncio.wait([beginning])
        if not beginning.cancelled() and beginning.exception() is None:  # it began in the moment in which they left
            beginning.result().reader_left()
        raise
    finally:
        hung_up.cancel()
        await asyncio.wait([hung_up])


async def all_of(request: Request, run: Run) -> tuple[list[Said | Embedded], Answer]:
    """All of an answer at once. A reader who hangs up stops it.

    Raises:
        FarError: it failed, and nothing was charged.
    """
    watch = asyncio.create_task(_hang_up(request, run))
    try:
        items = [item async for item in run if not isinstance(item, VoucherNotice)]
        return items, await run.answer()
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _hang_up(request: Request, run: Run) -> None:
    await _disconnected(request)
    run.reader_left()


async def _disconnected(request: Request) -> None:
    # The body was read already: what can still come is the news that the connection is gone.
    while (await request.receive())["type"] != "http.disconnect":
        pass
