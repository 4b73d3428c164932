"""A gateway killed between any two steps of a job, and another one after it: one charge, one result, and it is told."""

from __future__ import annotations

import asyncio
import signal

import pytest

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.jobs import repository
from far_mesh.marketplace.jobs.schemas import JobOutcome, JobStatus
from far_mesh.marketplace.jobs.sealing import Seals
from far_mesh.marketplace.jobs.service import _job_id
from far_mesh.marketplace.jobs.worker import about_result
from tests.far_mesh.marketplace.doubles import STORY
from tests.far_mesh.marketplace.jobs import kill
from tests.far_mesh.marketplace.jobs.conftest import InAProcess
from tests.far_mesh.marketplace.jobs.office import DEPOSIT, KEY, money, pay_in, receiver, settings_of
from tests.support.documents import wallet_of

ON_POSTGRESQL = ("held", "inside the transaction that captures and writes the result")
CASES = [*(("sqlite", step) for step in kill.STEPS), *(("postgresql", step) for step in ON_POSTGRESQL)]
LOST = ("held", "running", "all said, nothing captured", "inside the transaction that captures and writes the result")
"""Died with money held: that attempt is refunded, and there is another."""
BEGUN = ("leased", "inside the transaction that holds")
"""Died with an attempt that held nothing."""


@pytest.mark.parametrize(("database_url", "step"), CASES, indirect=["database_url"])
async def test_killed_while_it_works(database_url: str, in_a_process: InAProcess, step: str) -> None:
    wallet = wallet_of("who hands jobs in")
    database = Database(database_url)
    await pay_in(database, wallet, DEPOSIT)
    async with receiver() as hooks:
        settings = settings_of(database_url, outbound_ports=[hooks.port])
        shift = kill.Shift(settings, wallet, hooks.url)
        killed = await asyncio.to_thread(in_a_process, kill.Shift(settings, wallet, hooks.url, step))
        assert killed == -signal.SIGKILL
        assert await asyncio.to_thread(in_a_process, shift) == 0
        await hooks.messages(1)
    async with database.reading() as connection:
        job = await repository.find(connection, _job_id(wallet, "once"))
    assert job is not None
    assert job.status is JobStatus.COMPLETED
    assert job.attempts == (2 if step in LOST + BEGUN else 1)
    assert job.sealed_result is not None
    outcome = JobOutcome.model_validate_json(Seals([bytes.fromhex(KEY)]).open(job.sealed_result, about_result(job.id)))
    assert outcome.result is not None
    assert outcome.result.text == "".join(STORY)
    assert outcome.result.request_id == job.request_id
    assert await money(database, wallet) == {
        "available": DEPOSIT - outcome.result.cost_units,
        "held": 0,
        "captures": 1,
        "requests": 2 if step in LOST else 1,
    }
    ids = {headers["webhook-id"] for headers, _ in hooks.got}
    assert len(ids) == 1
    assert len(hooks.got) == (2 if step == "webhook sent and not noted" else 1)
    await database.close()
