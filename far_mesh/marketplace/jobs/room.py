"""The room of jobs, put together from the settings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from discovery.web.outbound import Outbound, Policy
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.jobs.sealing import Seals
from far_mesh.marketplace.jobs.service import JobService
from far_mesh.marketplace.jobs.service import Rules as ServiceRules
from far_mesh.marketplace.jobs.webhooks import Postman, SecretRoom
from far_mesh.marketplace.jobs.worker import Bells, Ends, Rules, Worker
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement.bell import Bell
from far_mesh.marketplace.tiers.service import TierService


@dataclass(frozen=True)
class JobRoom:
    """``tasks`` run as long as the gateway does."""

    service: JobService
    worker: Worker
    tasks: Mapping[str, Callable[[], Coroutine[Any, Any, None]]]


def job_room(
    settings: Settings, database: Database, gateway: Gateway, inference: InferenceService, tiers: TierService
) -> JobRoom | None:
    """The room, or None: there is no key to encrypt jobs with."""
    keys = settings.job_keys()
    if not keys:
        return None
    seals, bells, outbound = Seals(keys), Bells(Bell(), Bell(), Bell()), Outbound(outbound_policy(settings))
    secret_room = SecretRoom(database, seals)
    postman = Postman(database, seals, secret_room, outbound, settings.webhook_attempts)
    ends, rules = Ends(seals, settings.jobs_result_seconds), Rules(settings.jobs_at_once, settings.jobs_attempts)
    worker = Worker(database, gateway, inference, seals, ends, rules, bells)
    service_rules = ServiceRules(settings.jobs_per_wallet, settings.jobs_seconds)
    service = JobService(database, inference, tiers, seals, ends, secret_room, postman, outbound, service_rules, bells)
    return JobRoom(service, worker, {"jobs": worker.run, "webhooks": lambda: postman.run(bells.ended)})


def outbound_policy(settings: Settings) -> Policy:
    """Which URLs of users may be asked."""
    return Policy(frozenset(settings.outbound_ports), settings.outbound_networks, settings.outbound_http)
