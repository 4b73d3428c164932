"""A gateway in a process of its own that works on jobs and kills itself after a named step; one that comes after it.

The steps are patched in from here: production code knows nothing of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from discovery.web.outbound import Outbound
from far_mesh.marketplace.app import open_rooms
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.jobs import webhooks
from far_mesh.marketplace.jobs.schemas import DeliveryStatus, JobRequest
from far_mesh.marketplace.jobs.service import JobService
from far_mesh.marketplace.jobs.webhooks import Postman
from far_mesh.marketplace.jobs.worker import Ends, Kept, Worker
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble, meshes_of
from tests.far_mesh.marketplace.settlement.kill import after, before


@dataclass(frozen=True)
class Shift:
    """What a gateway is to do: hand a job in, unless it was before, and work until it has ended and was told."""

    settings: dict[str, Any]
    wallet: str
    url: str
    die: str = ""


def _alone(step: Callable[[], None]) -> None:
    """While nobody takes jobs: they could be begun before the step is over."""

    async def take(_: Worker) -> None: ...

    setattr(Worker, "take", take)  # noqa: B010 - a method of another's
    step()


STEPS: dict[str, Callable[[], None]] = {
    "queued": lambda: _alone(lambda: after(JobService, "submit")),
    "inside the transaction that leases": lambda: before(Worker, "_begin"),
    "leased": lambda: before(Worker, "_work"),
    "inside the transaction that holds": lambda: after(Kept, "held"),
    "held": lambda: after(Run, "_hold"),
    "running": lambda: after(Run, "_begin"),
    "all said, nothing captured": lambda: before(Run, "_capture"),
    "inside the transaction that captures and writes the result": lambda: after(Ends, "write"),
    "captured, result written": lambda: after(Run, "_capture"),
    "webhook to be sent": lambda: before(Postman, "send"),
    "webhook sent and not noted": lambda: after(Outbound, "post"),
    "webhook noted": lambda: after(Postman, "send"),
}


def work(shift: Shift) -> None:
    """Until the job has ended and was told, or until the step at which to die."""
    webhooks.LEASE_LIFETIME = timedelta(seconds=1)  # whoever comes next need not wait long for what we had in hand
    STEPS.get(shift.die, lambda: None)()
    asyncio.run(_work(shift))


async def _work(shift: Shift) -> None:
    settings = Settings.read(**shift.settings)
    async with open_rooms(settings, meshes_of(MeshDouble())) as rooms:  # type: ignore[arg-type]
        assert rooms.jobs is not None
        if await rooms.jobs._secrets.of(shift.wallet) is None:
            await rooms.jobs.new_secret(shift.wallet)  # type: ignore[arg-type]
        body = JobRequest.model_validate(
            {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "webhook": {"url": shift.url}}
        )
        made = await rooms.jobs.submit(shift.wallet, None, "once", body)  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            while not (await rooms.jobs.wait(made.job.wallet_address, made.job.id, 5)).job.is_over:  # type: ignore[arg-type]
                pass
            while not await _was_told(rooms.jobs, made.job.wallet_address, made.job.id):
                await asyncio.sleep(0.02)


async def _was_told(jobs: JobService, wallet: str, job_id: str) -> bool:
    found = await jobs.deliveries(wallet, job_id)  # type: ignore[arg-type]
    return bool(found) and all(delivery.status is DeliveryStatus.DELIVERED for delivery, _ in found)
