"""Jobs as their owners see them: handed in, looked at, waited for, cancelled."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet
from discovery.web.outbound import Outbound
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict, Forbidden, JobUnknown, TooManyJobs, WebhookSecretMissing
from far_mesh.marketplace.inference.endpoints import wish_of
from far_mesh.marketplace.inference.payment import PARAM, Way, wanted
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.jobs import repository
from far_mesh.marketplace.jobs.schemas import Delivery, Job, JobOutcome, JobRequest, JobStatus, Tried, Webhook
from far_mesh.marketplace.jobs.sealing import Seals
from far_mesh.marketplace.jobs.webhooks import Postman, SecretRoom, Secrets, about_webhook
from far_mesh.marketplace.jobs.worker import Bells, Ends, about_request, about_result
from far_mesh.marketplace.settlement.bell import either
from far_mesh.marketplace.tiers.service import TierService

JOB_ID = re.compile(r"job_[0-9a-f]{24}\Z")
HEAD_START = timedelta(minutes=1)
"""A job stands so far ahead for each part that its tier has of the queue beyond the first."""
SPACING = timedelta(seconds=10)
"""And so far behind, divided by those parts, for each job that its wallet has waiting already."""
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Rules:
    """``per_wallet``: jobs that a wallet may have waiting or running. ``seconds``: after so long a job is not begun."""

    per_wallet: int
    seconds: float


@dataclass(frozen=True)
class Seen:
    """A job with what its owner may read of it."""

    job: Job
    outcome: JobOutcome
    webhook: Webhook | None


class JobService:
    """The jobs of all wallets."""

    def __init__(
        self,
        database: Database,
        inference: InferenceService,
        tiers: TierService,
        seals: Seals,
        ends: Ends,
        secret_room: SecretRoom,
        postman: Postman,
        outbound: Outbound,
        rules: Rules,
        bells: Bells,
    ) -> None:
        self._database = database
        self._inference = inference
        self._tiers = tiers
        self._seals = seals
        self._ends = ends
        self._secrets = secret_room
        self._postman = postman
        self._outbound = outbound
        self._rules = rules
        self._bells = bells

    async def submit(self, wallet: Wallet, key_id: str | None, name: str | None, body: JobRequest) -> Seen:
        """A job waits from now on. With a ``name`` of its caller's it is handed in once, however often it is sent.

        Raises:
            Forbidden: it is to be somebody else's.
            InvalidArgument, UrlRefused, WebhookSecretMissing, ModelUnknown, TierForbidden, UnsupportedParameter,
                ContextLengthExceeded: it would never be served, or nobody could be told.
            Conflict: another one was handed in by this name.
            TooManyJobs: the wallet has as many as it may have.
        """
        if body.user_pubkey not in (None, wallet):
            raise Forbidden("user_pubkey is not the wallet that asks", param="user_pubkey")
        if None not in (body.est_tokens, body.max_tokens) and body.est_tokens != body.max_tokens:
            raise InvalidArgument("est_tokens is another name of max_tokens: send one of them", param="est_tokens")
        if wanted(body.payment).way is Way.CHANNEL:
            raise InvalidArgument("nobody is there to sign vouchers: pay by balance or escrow", param=PARAM)
        tier = await self._tiers.choose(wallet, body.tier)
        request = body.request(tier.name)
        await self._inference.check(wallet, wish_of(request))
        job_id = _job_id(wallet, name)
        said = body.model_dump_json(by_alias=True).encode()
        asked = request.model_dump_json(by_alias=True, exclude_unset=True).encode()
        at = now()
        values = {
            "id": job_id,
            "wallet_address": wallet,
            "api_key_id": key_id,
            "model_id": body.model_id,
            "tier": tier.name.value,
            "created_at": at,
            "due_at": at,
            "deadline_at": at + timedelta(seconds=self._rules.seconds),
            "fingerprint": self._seals.fingerprint(said, job_id),
            "sealed_request": self._seals.seal(asked, about_request(job_id)),
            "sealed_webhook": await self._webhook(wallet, job_id, body.webhook),
        }
        async with self._database.writing() as connection:
            await repository.one_at_a_time(connection, wallet)
            known = await repository.find(connection, job_id)
            if known is None:
                waiting = await repository.count(connection, wallet)
                if waiting >= self._rules.per_wallet:
                    raise TooManyJobs(
                        f"you have {waiting} jobs waiting or running; more are taken when some have ended",
                        retry_after=10.0,
                    )
                rank = at - HEAD_START * (tier.queue_weight - 1) + SPACING * waiting / tier.queue_weight
                await repository.add(connection, {**values, "rank_at": rank})
        if known is not None and not self._seals.is_of(known.fingerprint, said, job_id):
            raise Conflict("another job was handed in with this Idempotency-Key", param="idempotency-key")
        self._bells.waiting.ring()
        return await self.see(wallet, job_id)

    async def _webhook(self, wallet: str, job_id: str, webhook: Webhook | None) -> bytes | None:
        if webhook is None:
            return None
        self._outbound.target(webhook.url, "webhook.url")
        if await self._secrets.of(wallet) is None:
            raise WebhookSecretMissing(
                "messages are signed: make a secret first, with POST /api/account/webhook-secret", param="webhook"
            )
        return self._seals.seal(webhook.model_dump_json().encode(), about_webhook(job_id))

    async def see(self, wallet: Wallet, job_id: str) -> Seen:
        """A job of ``wallet``.

        Raises:
            JobUnknown: there is none, or it is somebody else's, or it was forgotten.
            SealBroken: it was encrypted with a key that is gone.
        """
        return self._seen(await self._find(wallet, job_id))

    async def wait(self, wallet: Wallet, job_id: str, seconds: float) -> Seen:
        """The same, once it has ended, or after so many seconds."""
        give_up = asyncio.get_running_loop().time() + seconds
        while True:
            rung = self._bells.ended.listen()
            job = await self._find(wallet, job_id)
            left = give_up - asyncio.get_running_loop().time()
            if job.is_over or left <= 0:
                return self._seen(job)
            await either(rung, min(left, LOOK_SECONDS))

    async def cancel(self, wallet: Wallet, job_id: str) -> Seen:
        """A job is not wanted any more. One that waits ends at once and costs nothing; one that runs ends after its
        present token, and costs what was generated. One that has ended stays as it is.

        Raises:
            JobUnknown: see :meth:`see`.
        """
        await self._find(wallet, job_id)
        async with self._database.writing() as connection:
            job = await repository.ask_to_cancel(connection, job_id)
            if job.status is JobStatus.QUEUED:
                await self._ends.cancel(connection, job)
        self._bells.unwanted.ring()
        self._bells.ended.ring()
        return await self.see(wallet, job_id)

    async def page(
        self, wallet: Wallet, status: JobStatus | None, cursor: str | None, limit: int
    ) -> tuple[list[Job], str | None]:
        """Jobs of ``wallet``, the newest first, and where the next page begins.

        Raises:
            InvalidArgument: the cursor is none of ours.
        """
        before = None if cursor is None else _from_cursor(cursor)
        async with self._database.reading() as connection:
            found = await repository.page(connection, wallet, status, before, limit + 1)
        more = len(found) > limit
        return found[:limit], _cursor(found[limit - 1]) if more else None

    async def deliveries(self, wallet: Wallet, job_id: str) -> list[tuple[Delivery, list[Tried]]]:
        """What was sent of a job.

        Raises:
            JobUnknown: see :meth:`see`.
        """
        job = await self._find(wallet, job_id)
        async with self._database.reading() as connection:
            return await repository.deliveries_of(connection, job.id)

    async def new_secret(self, wallet: Wallet) -> Secrets:
        """Another secret to sign messages with."""
        return await self._secrets.renew(wallet)

    async def _find(self, wallet: Wallet, job_id: str) -> Job:
        job = await self._read(job_id) if JOB_ID.match(job_id) else None
        if job is None or job.wallet_address != wallet:
            raise JobUnknown("you have no such job, or its time to be read is over", param="job_id")
        return job

    async def _read(self, job_id: str) -> Job | None:
        async with self._database.reading() as connection:
            return await repository.find(connection, job_id)

    def _seen(self, job: Job) -> Seen:
        webhook = None if job.sealed_webhook is None else self._postman.webhook_of(job)
        if job.sealed_result is None:
            return Seen(job, JobOutcome(), webhook)
        sealed = self._seals.open(job.sealed_result, about_result(job.id))
        return Seen(job, JobOutcome.model_validate_json(sealed), webhook)


def _job_id(wallet: str, name: str | None) -> str:
    """The same for ever for the same wallet and name."""
    if name is None:
        return "job_" + secrets.token_hex(12)
    return "job_" + hashlib.sha256(f"{wallet}/{name}".encode()).hexdigest()[:24]


def _cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(json.dumps([job.created_at.isoformat(), job.id]).encode()).decode()


def _from_cursor(text: str) -> tuple[datetime, str]:
    try:
        at, job_id = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        before = datetime.fromisoformat(at).astimezone(UTC)
        if not JOB_ID.match(job_id):
            raise ValueError
    except (binascii.Error, ValueError, TypeError, OverflowError):
        raise InvalidArgument("the cursor is not one of ours", param="cursor") from None
    return before, job_id
