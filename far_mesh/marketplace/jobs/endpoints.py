"""``/submit``, ``/results`` and ``/jobs``: answers that nobody waits for, and with what their webhooks are signed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from far_mesh.marketplace.auth.door import AccountWriter, ApiKeyId, InferenceCaller
from far_mesh.marketplace.errors import JobsClosed
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.jobs.schemas import (
    Attempt,
    Delivery,
    DeliveryList,
    DeliveryState,
    DeliveryStatus,
    Job,
    JobList,
    JobRequest,
    JobState,
    JobStatus,
    JobSummary,
    Tried,
    WebhookSecret,
)
from far_mesh.marketplace.jobs.service import JobService, Seen

LONGEST_WAIT, MOST_JOBS = 60.0, 200

router = APIRouter(tags=["jobs"])


async def job_service(request: Request, _wallet: InferenceCaller) -> JobService:
    """The room's service, made by the app, for those who may come in.

    Raises:
        JobsClosed: there is none.
    """
    return _open(request.app.state.rooms.jobs)


async def secret_service(request: Request, _wallet: AccountWriter) -> JobService:
    """The same for those who may change an account.

    Raises:
        JobsClosed: there is none.
    """
    return _open(request.app.state.rooms.jobs)


def _open(service: JobService | None) -> JobService:
    if service is None:
        raise JobsClosed("jobs are closed here: the operator has set no FAR_JOBS_KEYS to encrypt them with")
    return service


Service = Annotated[JobService, Depends(job_service)]


@router.post("/submit", status_code=202, responses=errors(403, 404, 409))
async def submit(
    response: Response,
    service: Service,
    wallet: InferenceCaller,
    key: ApiKeyId,
    body: JobRequest,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JobState:
    """Hand in a job. The answer is where to look for its result. With ``Idempotency-Key`` the same job is handed in
    once, however often it is sent."""
    seen = await service.submit(wallet, key, idempotency_key, body)
    response.headers["location"] = f"/results/{seen.job.id}"
    return _state(seen)


@router.get("/results/{job_id}")
async def result(
    service: Service,
    wallet: InferenceCaller,
    job_id: str,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0,
) -> JobState:
    """A job and, once it has ended, its result. With ``wait`` the answer comes when it has ended, or after so many
    seconds."""
    return _state(await service.wait(wallet, job_id, wait))


@router.delete("/results/{job_id}")
async def cancel(service: Service, wallet: InferenceCaller, job_id: str) -> JobState:
    """A job is not wanted any more. One that runs ends after its present token, and that much is charged; one that has
    ended stays as it is."""
    return _state(await service.cancel(wallet, job_id))


@router.get("/jobs")
async def jobs(
    service: Service,
    wallet: InferenceCaller,
    status: JobStatus | None = None,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_JOBS)] = 50,
) -> JobList:
    """The caller's jobs, the newest first, without what was said."""
    found, next_cursor = await service.page(wallet, status, cursor, limit)
    return JobList(jobs=[JobSummary(**_facts(job)) for job in found], next_cursor=next_cursor)


@router.get("/jobs/{job_id}/deliveries")
async def deliveries(service: Service, wallet: InferenceCaller, job_id: str) -> DeliveryList:
    """What was sent to the job's webhook, and what came of it each time."""
    found = await service.deliveries(wallet, job_id)
    return DeliveryList(deliveries=[_delivery(delivery, tried) for delivery, tried in found])


@router.post("/api/account/webhook-secret", status_code=201, tags=["account"])
async def webhook_secret(
    service: Annotated[JobService, Depends(secret_service)], wallet: AccountWriter
) -> WebhookSecret:
    """Another secret to sign messages to webhooks with. The answer is the only place where it is ever shown. The one
    before it counts for a day more."""
    made = await service.new_secret(wallet)
    return WebhookSecret(secret=made.present, previous_until=made.previous_until)


def _state(seen: Seen) -> JobState:
    outcome = seen.outcome
    return JobState(**_facts(seen.job), result=outcome.result, error=outcome.error, webhook=seen.webhook)


def _facts(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "status": job.status,
        "model_id": job.model_id,
        "tier": job.tier,
        "tokens": job.tokens,
        "attempts": job.attempts,
        "request_id": job.request_id,
        "cancel_requested": job.cancel_asked_at is not None,
        "error_code": job.error_code,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "expires_at": job.expires_at,
    }


def _delivery(delivery: Delivery, tried: list[Tried]) -> DeliveryState:
    return DeliveryState(
        webhook_id=delivery.id,
        type=delivery.event,
        status=delivery.status,
        created_at=delivery.created_at,
        next_at=delivery.due_at if delivery.status is DeliveryStatus.PENDING else None,
        attempts=[
            Attempt(at=one.at, ms=one.ms, http_status=one.http_status, error_code=one.error_code) for one in tried
        ],
    )
