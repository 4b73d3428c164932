"""Who works on jobs: of all gateways that share a database, whoever takes one first.

    queued ▸ leased (an attempt with a request of its own) ▸ held ▸ running ▸ captured, with the result in it

A request is named after its job and the number of its attempt. An attempt begins in the transaction that ends the one
before it: what that had held is refunded there, so it can charge nothing any more. The result is written in the
transaction that captures the money, so there is never one without the other. Whoever was frozen and wakes up has an old
token, and writes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.errors import FarError
from discovery.protocol.ids import Wallet
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable, JobAbandoned, JobTimedOut, LeaseLost, ShuttingDown
from far_mesh.marketplace.http import error_body
from far_mesh.marketplace.inference.endpoints import whole_answer, wish_of
from far_mesh.marketplace.inference.run import Answer, Item, Run
from far_mesh.marketplace.inference.schemas import GenerateRequest
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.jobs import repository
from far_mesh.marketplace.jobs.schemas import Job, JobOutcome, JobStatus
from far_mesh.marketplace.jobs.sealing import Seals
from far_mesh.marketplace.logs import broke
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import OPEN, Gateway
from far_mesh.marketplace.settlement.bell import Bell, either
from far_mesh.marketplace.settlement.requests import refund_request

LEASE_LIFETIME = timedelta(seconds=20)
BEAT_SECONDS = 2.0
LOOK_SECONDS = 1.0
SWEEP_SECONDS = 5.0
CLOSE_SECONDS = 25.0
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rules:
    """``at_once``: jobs that this gateway works on. ``attempts``: how often a job is begun."""

    at_once: int
    attempts: int


@dataclass(frozen=True)
class Bells:
    """``waiting``: there may be something to work on. ``unwanted``: a job is to stop. ``ended``: one has ended."""

    waiting: Bell
    unwanted: Bell
    ended: Bell


def about_request(job_id: str) -> str:
    """What a sealed request is sealed with."""
    return f"{job_id}/request"


def about_result(job_id: str) -> str:
    """What a sealed result is sealed with."""
    return f"{job_id}/result"


def name_of_attempt(job_id: str, attempt: int) -> str:
    """The request with which a job is tried for this time. The same whoever asks."""
    return "req_" + hashlib.sha256(f"{job_id}/{attempt}".encode()).hexdigest()[:24]


class Ends:
    """Writes the ends of jobs: the result, which is kept for ``result_seconds``, and the message to the webhook."""

    def __init__(self, seals: Seals, result_seconds: float) -> None:
        self._seals = seals
        self._kept = timedelta(seconds=result_seconds)

    async def write(
        self,
        connection: AsyncConnection,
        job: Job,
        status: JobStatus,
        outcome: JobOutcome,
        **values: Any,
    ) -> bool:
        """A job has ended. False: something else has become of it meanwhile."""
        at = now()
        ended = await repository.end(
            connection,
            job,
            status=status.value,
            sealed_result=self._seals.seal(outcome.model_dump_json().encode(), about_result(job.id)),
            error_code=None if outcome.error is None else outcome.error.code,
            ended_at=at,
            expires_at=at + self._kept,
            **values,
        )
        if ended is None:
            return False
        if job.sealed_webhook is not None:
            await repository.add_delivery(connection, ended, f"job.{status.value}")
        return True

    async def fail(self, connection: AsyncConnection, job: Job, error: FarError) -> bool:
        """A job has failed, and nothing was charged."""
        return await self.write(connection, job, JobStatus.FAILED, JobOutcome(error=error_body(error).error))

    async def cancel(self, connection: AsyncConnection, job: Job) -> bool:
        """A job was cancelled before anything was charged."""
        return await self.write(connection, job, JobStatus.CANCELLED, JobOutcome())


class Kept:
    """Takes the answer of a job, and writes it together with its money (:class:`~..inference.run.Keeper`)."""

    def __init__(self, job: Job, body: GenerateRequest, ends: Ends) -> None:
        self._job, self._body, self._ends = job, body, ends
        self._items: list[Item] = []
        self.is_cancelled = False

    @property
    def tokens(self) -> int:
        """So many came."""
        return len(self._items)

    def said(self, item: Item) -> None:
        """One more."""
        self._items.append(item)

    async def held(self, connection: AsyncConnection) -> None:
        """Only while the job is ours, and wanted.

        Raises:
            LeaseLost: it is not.
        """
        if (await repository.hold(connection, self._job)).cancel_asked_at is not None:
            raise _nobody_waits(self._job)

    async def captured(self, connection: AsyncConnection, run: Run, answer: Answer) -> None:
        """Write the result.

        Raises:
            ShuttingDown: it was cut short, and not by the one who wanted it.
            LeaseLost: the job is not ours any more.
        """
        is_cut = run.was_stopped and "stopped" in answer.finish_reasons
        if is_cut and not self.is_cancelled:
            raise ShuttingDown("this gateway stops; the job begins again")
        status = JobStatus.CANCELLED if is_cut else JobStatus.COMPLETED
        outcome = JobOutcome(result=whole_answer(self._body, self._items, answer, run.tool_format))
        if not await self._ends.write(connection, self._job, status, outcome, tokens=answer.completion_tokens):
            raise _nobody_waits(self._job)


class Worker:
    """Works on jobs in this gateway."""

    def __init__(
        self,
        database: Database,
        gateway: Gateway,
        inference: InferenceService,
        seals: Seals,
        ends: Ends,
        rules: Rules,
        bells: Bells,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._inference = inference
        self._seals = seals
        self._ends = ends
        self._rules = rules
        self._bells = bells
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self) -> None:
        """Until cancelled."""
        swept = -SWEEP_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            rung = self._bells.waiting.listen()
            try:
                if loop.time() - swept >= SWEEP_SECONDS:
                    swept = loop.time()
                    await self.sweep()
                await self.take()
            except DatabaseUnavailable as error:
                log.warning("jobs_wait", code=error.code)
            await either(rung, LOOK_SECONDS)

    async def close(self) -> None:
        """Take no more jobs. Those under way end, or are given back."""
        self._closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def sweep(self) -> None:
        """End what waits for too long, and forget what was kept for long enough."""
        async with self._database.writing() as connection:
            for job in await repository.late(connection):
                await self._ends.fail(connection, job, JobTimedOut("the job could not begin in its time"))
            await repository.forget(connection)
        self._bells.ended.ring()

    async def take(self) -> None:
        """Begin as many jobs as there is room for."""
        while len(self._tasks) < self._rules.at_once and not self._closing:
            async with self._database.writing() as connection:
                job = await repository.claim(connection, self._gateway, LEASE_LIFETIME)
                begun = None if job is None else await self._begin(connection, job)
            if job is None:
                return
            if begun is None:
                self._bells.ended.ring()
                continue
            task = asyncio.create_task(self._work(begun), name=begun.id)
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._bells.waiting.ring()
        self._bells.ended.ring()
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            broke("job_broke", error, job_id=task.get_name())  # whoever takes it next ends what it has left

    async def _begin(self, connection: AsyncConnection, job: Job) -> Job | None:
        """The next attempt, once nothing of the one before can be charged any more. None: there is none."""
        if job.request_id is not None:
            await _refund(connection, job.request_id, LeaseLost.code)
        if job.cancel_asked_at is not None:
            await self._ends.cancel(connection, job)
            return None
        if job.attempts >= self._rules.attempts:
            await self._ends.fail(connection, job, JobAbandoned(f"the job was begun {job.attempts} times and lost"))
            return None
        attempt = job.attempts + 1
        return await repository.change(
            connection, job, attempts=attempt, request_id=name_of_attempt(job.id, attempt), tokens=0
        )

    # ---- one job

    async def _work(self, job: Job) -> None:
        with structlog.contextvars.bound_contextvars(job_id=job.id, request_id=job.request_id):
            watch = _Watch()
            beat = asyncio.create_task(self._beat(job, watch))
            try:
                await self._answer(job, watch)
                log.info("job_ended")
            except FarError as error:
                await self._not_done(job, error)
            finally:
                beat.cancel()
                with suppress(asyncio.CancelledError):
                    await beat

    async def _answer(self, job: Job, watch: _Watch) -> None:
        assert job.sealed_request is not None
        assert job.request_id is not None
        body = GenerateRequest.model_validate_json(self._seals.open(job.sealed_request, about_request(job.id)))
        watch.kept = kept = Kept(job, body, self._ends)
        wish = replace(wish_of(body), api_key_id=job.api_key_id, keeper=kept)
        starting = asyncio.create_task(self._inference.start(Wallet(job.wallet_address), job.request_id, wish))
        run = await watch.begun(job, starting)
        await asyncio.shield(run.task)  # until it is written, which takes longer than the answer where no database is

    async def _beat(self, job: Job, watch: _Watch) -> None:
        """Keep the job in hand, say how far it is, and notice that nobody wants it any more."""
        while True:
            rung = self._bells.unwanted.listen()
            try:
                async with self._database.writing() as connection:
                    kept = await repository.renew(connection, job, watch.tokens, LEASE_LIFETIME)
            except DatabaseUnavailable:
                kept = job
            if kept is None:
                watch.stop(is_cancelled=False)
                return
            if kept.cancel_asked_at is not None:
                watch.stop(is_cancelled=True)
                rung = asyncio.Event()  # there is nothing more to notice
            await either(rung, BEAT_SECONDS)

    async def _not_done(self, job: Job, error: FarError) -> None:
        """Nothing was charged. Try again, or let it be."""
        async with self._database.writing() as connection:
            try:
                held = await repository.hold(connection, job)
            except LeaseLost:
                log.warning("job_lost", code=error.code)
                return
            assert job.request_id is not None
            was_held = await _refund(connection, job.request_id, error.code)
            again = self._again(job, error, was_held)
            if held.cancel_asked_at is not None:
                await self._ends.cancel(connection, job)
            elif again is None:
                await self._ends.fail(connection, job, error)
            else:
                # An attempt that held nothing does not count, and its name can be used again.
                attempts = job.attempts if was_held else job.attempts - 1
                queued = {"status": JobStatus.QUEUED.value, "due_at": again, "attempts": attempts}
                await repository.change(connection, job, **queued, lease_until=None)
        log.info("job_not_done", code=error.code)

    def _again(self, job: Job, error: FarError, was_held: bool) -> datetime | None:
        """When to try again: later, the longer it has waited. Never, where that is of no use."""
        if not error.retry or (was_held and job.attempts >= self._rules.attempts):
            return None
        at = now()
        waits = min(max((at - job.created_at) / 4, FIRST_PAUSE), LONGEST_PAUSE)
        again = at + max(waits, timedelta(seconds=error.retry_after or 0))
        if isinstance(error, ShuttingDown):
            self._closing, again = True, at  # for others, or for our next life
        return again if again < job.deadline_at else None


class _Watch:
    """What is known of a job's run by those who watch it."""

    def __init__(self) -> None:
        self.kept: Kept | None = None
        self.run: Run | None = None
        self._starting: asyncio.Task[Run] | None = None
        self._is_to_stop = False

    @property
    def tokens(self) -> int:
        """So many came."""
        return 0 if self.kept is None else self.kept.tokens

    async def begun(self, job: Job, starting: asyncio.Task[Run]) -> Run:
        """The run, once it has begun.

        Raises:
            LeaseLost: it was not to begin any more.
            FarError: whatever stood in its way.
        """
        self._starting = starting
        try:
            self.run = await starting
        except asyncio.CancelledError:
            starting.cancel()
            if not self._is_to_stop:
                raise
            raise _nobody_waits(job) from None
        if self._is_to_stop:
            self.run.stop()
        return self.run

    def stop(self, *, is_cancelled: bool) -> None:
        """End it after its present token, or before it begins."""
        self._is_to_stop = True
        if self.kept is not None:
            self.kept.is_cancelled = self.kept.is_cancelled or is_cancelled
        if self.run is not None:
            self.run.stop()
        elif self._starting is not None:
            self._starting.cancel()


def _nobody_waits(job: Job) -> LeaseLost:
    return LeaseLost(f"the job {job.id} is somebody else's by now, or nobody's", job_id=job.id)


async def _refund(connection: AsyncConnection, request_id: str, code: str) -> bool:
    """What an attempt has held and not given back goes back. Whether it had held anything."""
    session = await sessions.find(connection, request_id, lock=True)
    if session is not None and session.status in OPEN:
        await refund_request(connection, request_id, code)
    return session is not None
