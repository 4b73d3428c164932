"""Messages that tell of a job's end, signed as https://www.standardwebhooks.com says, sent until they arrive or for as
long as it is worth it.

    webhook-id: msg_…                      the same each time, so that who gets it twice can tell
    webhook-timestamp: 1767225600          when it was signed, to refuse what is old
    webhook-signature: v1,<base64>         HMAC-SHA256 of "id.timestamp.body"; several while a secret is replaced
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import random
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from discovery.protocol.errors import FarError
from discovery.web.outbound import Outbound
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable, OutboundFailed, SealBroken
from far_mesh.marketplace.jobs import repository
from far_mesh.marketplace.jobs.schemas import (
    Delivery,
    DeliveryStatus,
    Job,
    JobOutcome,
    Tried,
    Webhook,
    WebhookData,
    WebhookMessage,
)
from far_mesh.marketplace.jobs.sealing import Seals
from far_mesh.marketplace.jobs.worker import about_result
from far_mesh.marketplace.logs import broke
from far_mesh.marketplace.settlement.bell import Bell, either

SECRET_PREFIX = "whsec_"  # noqa: S105  # how the standard marks one
SECRET_BYTES = 32
PREVIOUS_COUNTS = timedelta(days=1)
LEASE_LIFETIME = timedelta(seconds=30)
AT_ONCE = 8
LOOK_SECONDS = 1.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 6 * 3600.0
GONE = 410
USER_AGENT = "far-mesh-webhooks/1"

log = structlog.get_logger(__name__)


def about_webhook(job_id: str) -> str:
    """What a sealed webhook is sealed with."""
    return f"{job_id}/webhook"


@dataclass(frozen=True)
class Secrets:
    """The secrets of a wallet: the present one, and the one before it for a while. As text, with their prefix."""

    present: str
    previous: str | None = None
    previous_until: datetime | None = None

    @classmethod
    def from_bytes(cls, text: bytes) -> Secrets:
        """As they were written down."""
        present, previous, until = json.loads(text)
        return cls(present, previous, None if until is None else datetime.fromisoformat(until))

    def to_bytes(self) -> bytes:
        """To be written down."""
        until = None if self.previous_until is None else self.previous_until.isoformat()
        return json.dumps([self.present, self.previous, until]).encode()

    def that_count(self, at: datetime) -> list[str]:
        """Those with which a message is signed now."""
        if self.previous is None or self.previous_until is None or at >= self.previous_until:
            return [self.present]
        return [self.present, self.previous]


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a message, of version 1 of the standard."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    mac = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(mac).decode()


def pause(attempts: int, chance: float) -> timedelta:
    """How long to wait after so many attempts: five seconds, then four times as long each time, up to six hours; by
    ``chance`` (0 to 1) up to a half more or less, so that not all come back at once."""
    longest = min(FIRST_PAUSE_SECONDS * 4 ** (attempts - 1), LONGEST_PAUSE_SECONDS)
    return timedelta(seconds=longest * (0.5 + chance))


class SecretRoom:
    """The secrets with which messages are signed."""

    def __init__(self, database: Database, seals: Seals) -> None:
        self._database = database
        self._seals = seals

    async def renew(self, wallet: str) -> Secrets:
        """A new secret. The one before it counts for a day more."""
        new = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        async with self._database.writing() as connection:
            await repository.one_at_a_time(connection, wallet)
            sealed = await repository.secret_of(connection, wallet)
            old = None if sealed is None else self._opened(wallet, sealed)
            made = Secrets(new) if old is None else Secrets(new, old.present, now() + PREVIOUS_COUNTS)
            await repository.put_secret(connection, wallet, self._seals.seal(made.to_bytes(), _about_secret(wallet)))
        return made

    async def of(self, wallet: str) -> Secrets | None:
        """Those of ``wallet``, if it has any that can be read."""
        async with self._database.reading() as connection:
            sealed = await repository.secret_of(connection, wallet)
        return None if sealed is None else self._opened(wallet, sealed)

    def _opened(self, wallet: str, sealed: bytes) -> Secrets | None:
        try:
            return Secrets.from_bytes(self._seals.open(sealed, _about_secret(wallet)))
        except SealBroken:  # its key is gone: it is as if there were none, and its owner makes another
            return None


def _about_secret(wallet: str) -> str:
    return f"{wallet}/webhook-secret"


class Postman:
    """Sends the messages of all gateways' jobs, whoever gets to them first."""

    def __init__(self, database: Database, seals: Seals, room: SecretRoom, outbound: Outbound, attempts: int) -> None:
        self._database = database
        self._seals = seals
        self._room = room
        self._outbound = outbound
        self._attempts = attempts
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sent = Bell()

    async def run(self, ended: Bell) -> None:
        """Until cancelled. ``ended`` rings when there may be something to send."""
        try:
            while True:
                rung, sent = ended.listen(), self._sent.listen()
                try:
                    await self.send_due()
                except DatabaseUnavailable as error:
                    log.warning("webhooks_wait", code=error.code)
                await either(rung if len(self._tasks) < AT_ONCE else sent, LOOK_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def send_due(self) -> None:
        """Begin to send what is due: one message at a time to each wallet, so that a slow receiver holds up itself."""
        while len(self._tasks) < AT_ONCE:
            async with self._database.writing() as connection:
                delivery = await repository.claim_delivery(connection, LEASE_LIFETIME, list(self._tasks))
            if delivery is None:
                return
            wallet = delivery.wallet_address
            task = self._tasks[wallet] = asyncio.create_task(self.send(delivery), name=delivery.id)
            task.add_done_callback(partial(self._done, wallet))

    def _done(self, wallet: str, task: asyncio.Task[None]) -> None:
        del self._tasks[wallet]
        self._sent.ring()
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            broke("webhook_broke", error, webhook_id=task.get_name())  # it is due again when its lease is over

    async def send(self, delivery: Delivery) -> None:
        """Send a message once, and note what came of it."""
        at, began = now(), time.monotonic()
        status, error = None, None
        try:
            status = await self._post(delivery)
        except OutboundFailed as failed:
            error = str(failed.facts["reason"])
        except FarError as refused:
            error = refused.code
        tried = Tried(at, round((time.monotonic() - began) * 1000), status, error)
        outcome = self._outcome(delivery, status)
        again = pause(delivery.attempts + 1, random.random())  # noqa: S311  # it keeps nobody from guessing anything
        async with self._database.writing() as connection:
            await repository.note_attempt(connection, delivery, tried, outcome, again)
        log.info("webhook_sent", webhook_id=delivery.id, status=outcome, http_status=status, error=error)

    def _outcome(self, delivery: Delivery, status: int | None) -> DeliveryStatus:
        if status is not None and 200 <= status < 300:
            return DeliveryStatus.DELIVERED
        given_up = status == GONE or delivery.attempts + 1 >= self._attempts
        return DeliveryStatus.FAILED if given_up else DeliveryStatus.PENDING

    async def _post(self, delivery: Delivery) -> int:
        async with self._database.reading() as connection:
            job = await repository.find(connection, delivery.job_id)
        known = await self._room.of(delivery.wallet_address)
        if job is None or job.sealed_webhook is None or known is None:
            raise SealBroken("there is nothing to send, or nothing to sign it with")
        webhook = self.webhook_of(job)
        body = self._body(job, delivery.event, webhook)
        timestamp = int(time.time())
        signatures = [signature(one, delivery.id, timestamp, body) for one in known.that_count(now())]
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
        return await self._outbound.post(self._outbound.target(webhook.url), body, headers)

    def webhook_of(self, job: Job) -> Webhook:
        """Where to tell of a job.

        Raises:
            SealBroken: it cannot be read any more.
        """
        assert job.sealed_webhook is not None
        return Webhook.model_validate_json(self._seals.open(job.sealed_webhook, about_webhook(job.id)))

    def _body(self, job: Job, event: str, webhook: Webhook) -> bytes:
        result = None
        if webhook.include_result and job.sealed_result is not None:
            sealed = self._seals.open(job.sealed_result, about_result(job.id))
            result = JobOutcome.model_validate_json(sealed).result
        data = WebhookData(
            job_id=job.id,
            status=job.status,
            model_id=job.model_id,
            request_id=job.request_id,
            tokens=job.tokens,
            error_code=job.error_code,
            result=result,
        )
        message = WebhookMessage.model_validate({"type": event, "timestamp": job.ended_at, "data": data})
        return message.model_dump_json(exclude_none=True).encode()
