"""Jobs: handed in, worked on, waited for, cancelled, and gone after a while. On both databases."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import select, update

from far_mesh.marketplace import logs
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.jobs import repository, worker
from far_mesh.marketplace.jobs.schemas import JobStatus
from far_mesh.marketplace.jobs.worker import name_of_attempt
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.tables import jobs
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.jobs.office import DEPOSIT, KEY, OTHER_KEY, money, office, receiver, some_id
from tests.far_mesh.marketplace.test_http import error

CANARY, SONG = "canary7f3a", "birdsong9c2e"


async def test_a_job_is_handed_in_and_its_result_waited_for(database_url: str) -> None:
    async with office(database_url) as here:
        user = await here.user()
        answer = await user.submit()
        assert answer.status_code == 202
        state = answer.json()
        assert state["status"] in ("queued", "running")
        assert answer.headers["location"] == f"/results/{state['job_id']}"
        ended = await user.result(state["job_id"])
        assert (ended["status"], ended["tokens"], ended["attempts"]) == ("completed", 12, 1)
        assert ended["request_id"] == name_of_attempt(state["job_id"], 1) == ended["result"]["request_id"]
        assert ended["result"]["text"] == "".join(STORY)
        assert ended["error"] is None
        told = (await user.http.get(f"/api/inference/requests/{ended['request_id']}")).json()
        assert told["cost_units"] == ended["result"]["cost_units"] > 0
        after = await money(here.rooms.database, user.wallet)
        assert after == {
            "available": DEPOSIT - ended["result"]["cost_units"],
            "held": 0,
            "captures": 1,
            "requests": 1,
        }


async def test_every_way_to_ask_is_one_of_a_job(sqlite_url: str) -> None:
    async with office(sqlite_url) as here:
        user = await here.user()
        chat = {"model_id": MODEL, "messages": [{"role": "user", "content": "a b"}], "n": 2, "logprobs": 1}
        made = await user.http.post("/submit", json=chat | {"est_tokens": 3, "user_pubkey": user.wallet})
        ended = await user.result(made.json()["job_id"])
        assert ended["status"] == "completed"
        assert len(ended["result"]["choices"]) == 2
        assert all(len(one["logprobs"]) == 3 for one in ended["result"]["choices"])
        assert {options.max_tokens for _, options in here.mesh.asked} == {3}


OUT_OF_TIME = base64.b64encode(f'["0001-01-01T00:00:00+23:59", "{some_id()}"]'.encode()).decode()
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"max_tokens": 10_000}, 400, "invalid_argument"),
    ({"prompt": "w " * 100}, 400, "context_length_exceeded"),
    ({"model_id": "nobody's"}, 404, "model_not_found"),
    ({"stream": True}, 400, "unsupported_parameter"),
    ({"quote_id": "x"}, 400, "unsupported_parameter"),
    ({"est_tokens": 5}, 400, "invalid_argument"),
    ({"user_pubkey": "0x" + "11" * 20}, 403, "forbidden"),
    ({"payment": "channel"}, 400, "invalid_argument"),
    ({"payment": "barter"}, 400, "invalid_argument"),
    ({"tier": "enterprise"}, 403, "tier_forbidden"),
    ({"webhook": {"url": "https://10.0.0.1/"}}, 400, "url_refused"),
    ({"webhook": {"url": "https://hooks.example:22/"}}, 400, "url_refused"),
    ({"webhook": {"url": "https://hooks.example/"}}, 409, "webhook_secret_missing"),
    ({"webhook": {"url": "https://hooks.example/", "secret": "x"}}, 400, "unsupported_parameter"),
    ({"webhook": "https://hooks.example/"}, 400, "invalid_argument"),
]


async def test_what_would_never_be_served_is_refused_at_once(sqlite_url: str) -> None:
    async with office(sqlite_url) as here:
        user = await here.user(deposit=0)
        for more, status, code in REFUSED:
            error(await user.submit(**more), status, code)
        for cursor in ("x", "e30=", "WzEsMl0=", "WyIyMDI2LTAxLTAxIiwgImEiXQ==", "é", OUT_OF_TIME):
            error(await user.http.get("/jobs", params={"cursor": cursor}), 400, "invalid_argument")
        assert (await user.http.get("/jobs")).json()["jobs"] == []


async def test_one_name_is_one_job_however_often_it_is_sent(database_url: str) -> None:
    async with office(database_url) as here:
        user, other = await here.user(), await here.user()
        answers = await asyncio.gather(*(user.submit(name="mine") for _ in range(8)))
        assert {answer.status_code for answer in answers} == {202}
        (job_id,) = {answer.json()["job_id"] for answer in answers}
        assert (await user.result(job_id))["status"] == "completed"
        assert await user.submitted(name="mine") == job_id  # its prompt is gone by now, and it is known again
        error(await user.submit("Something else", name="mine"), 409, "conflict")
        assert await other.submitted(name="mine") != job_id
        assert (await money(here.rooms.database, user.wallet))["requests"] == 1


async def test_jobs_of_others_are_not_there(sqlite_url: str) -> None:
    async with office(sqlite_url) as here:
        user, stranger = await here.user(), await here.user(deposit=0)
        job_id = await user.submitted()
        for one in (job_id, some_id(), "job_", "x" * 300):
            error(await stranger.http.get(f"/results/{one}"), 404, "job_not_found")
            error(await stranger.http.delete(f"/results/{one}"), 404, "job_not_found")
            error(await stranger.http.get(f"/jobs/{one}/deliveries"), 404, "job_not_found")
        assert (await stranger.http.get("/jobs")).json() == {"jobs": [], "next_cursor": None}
        assert (await user.result(job_id))["status"] == "completed"


async def test_without_a_key_jobs_are_closed_and_the_setting_is_named(sqlite_url: str) -> None:
    async with office(sqlite_url, jobs_keys=[]) as here:
        user = await here.user(deposit=0)
        for answer in (
            await user.submit(),
            await user.http.get("/jobs"),
            await user.http.get(f"/results/{some_id()}"),
            await user.http.post("/api/account/webhook-secret"),
        ):
            assert "FAR_JOBS_KEYS" in error(answer, 503, "jobs_closed")["message"]
        error(await here.nobody.get("/jobs"), 401, "unauthorized")


async def test_pages_of_jobs_have_each_of_them_once(database_url: str) -> None:
    async with office(database_url, jobs_at_once=0) as here:
        user = await here.user()
        made = [await user.submitted(f"number {number}") for number in range(5)]
        seen, cursor = list[str](), None
        for _ in range(3):
            page = (await user.http.get("/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            seen += [job["job_id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
        assert seen == made[::-1]
        assert cursor is None
        assert "result" not in page["jobs"][0]
        assert (await user.http.get("/jobs", params={"status": "completed"})).json()["jobs"] == []
        assert len((await user.http.get("/jobs", params={"status": "queued"})).json()["jobs"]) == 5


async def test_a_wallet_has_only_so_many_jobs(database_url: str) -> None:
    async with office(database_url, jobs_at_once=0, jobs_per_wallet=3) as here:
        user, other = await here.user(), await here.user()
        answers = await asyncio.gather(*(user.submit(f"number {number}") for number in range(8)))
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 5
        full = next(answer for answer in answers if answer.status_code == 429)
        error(full, 429, "too_many_jobs")
        assert int(full.headers["retry-after"]) > 0
        await other.submitted()
        first = next(answer for answer in answers if answer.status_code == 202).json()["job_id"]
        assert (await user.http.delete(f"/results/{first}")).json()["status"] == "cancelled"
        await user.submitted("there is room again")


# ---- cancelling


async def test_a_job_that_waits_is_cancelled_for_nothing(sqlite_url: str) -> None:
    async with office(sqlite_url, jobs_at_once=0) as here:
        user = await here.user()
        job_id = await user.submitted()
        ended = (await user.http.delete(f"/results/{job_id}")).json()
        assert (ended["status"], ended["cancel_requested"]) == ("cancelled", True)
        assert (ended["result"], ended["error"], ended["request_id"]) == (None, None, None)
        assert await money(here.rooms.database, user.wallet) == {
            "available": DEPOSIT,
            "held": 0,
            "captures": 0,
            "requests": 0,
        }


async def test_a_job_that_waits_for_room_on_the_nodes_is_cancelled_for_nothing(sqlite_url: str) -> None:
    gate = Turnstile()
    async with office(sqlite_url, MeshDouble(gate=gate), model_sessions=1) as here:
        user = await here.user()
        first = await user.submitted()
        await asyncio.wait_for(_until(lambda: here.mesh.generations), 60)
        second = await user.submitted("Another story")
        await user.until(second, lambda state: state["status"] == "running")
        await user.http.delete(f"/results/{second}")
        ended = await user.result(second)
        assert (ended["status"], ended["result"]) == ("cancelled", None)
        gate.let_through(asyncio.get_running_loop(), 12)
        assert (await user.result(first))["status"] == "completed"
        assert (await money(here.rooms.database, user.wallet))["requests"] == 1


async def test_a_job_that_runs_ends_after_its_present_token(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, stopped, stop = Turnstile(), asyncio.Event(), Run.stop

    def noticed(run: Run) -> None:
        stop(run)
        stopped.set()

    monkeypatch.setattr(Run, "stop", noticed)
    async with office(database_url, MeshDouble(gate=gate)) as here:
        user = await here.user()
        job_id = await user.submitted()
        gate.let_through(asyncio.get_running_loop(), 3)
        running = await user.until(job_id, lambda state: state["status"] == "running" and state["request_id"])
        assert running["result"] is None
        await asyncio.wait_for(_until(lambda: here.mesh.generations and here.mesh.generations[0]._done == 3), 60)
        assert (await user.http.delete(f"/results/{job_id}")).json()["cancel_requested"]
        await asyncio.wait_for(stopped.wait(), 60)
        gate.let_through(asyncio.get_running_loop(), 9)
        ended = await user.result(job_id)
        assert ended["status"] == "cancelled"
        assert ended["result"]["tokens_generated"] == 4
        assert ended["result"]["finish_reason"] == "stopped"
        after = await money(here.rooms.database, user.wallet)
        assert (after["held"], after["captures"]) == (0, 1)
        assert after["available"] == DEPOSIT - ended["result"]["cost_units"]
        again = (await user.http.delete(f"/results/{job_id}")).json()
        assert again["status"] == "cancelled"


async def test_what_has_ended_stays_as_it_is(sqlite_url: str) -> None:
    async with office(sqlite_url) as here:
        user = await here.user()
        job_id = await user.submitted()
        ended = await user.result(job_id)
        assert (await user.http.delete(f"/results/{job_id}")).json() == ended


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


# ---- what goes wrong


async def test_a_wallet_that_cannot_pay_is_told_so(sqlite_url: str) -> None:
    async with office(sqlite_url) as here:
        user = await here.user(deposit=1)
        ended = await user.result(await user.submitted())
        assert (ended["status"], ended["error_code"], ended["attempts"]) == ("failed", "insufficient_balance", 1)
        assert ended["error"]["code"] == "insufficient_balance"
        assert ended["result"] is None


async def test_an_answer_that_breaks_off_is_tried_again_and_charged_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FIRST_PAUSE", timedelta(milliseconds=10))
    mesh = MeshDouble(break_at=5)
    async with office(database_url, mesh) as here:
        user = await here.user()
        job_id = await user.submitted()
        await user.until(job_id, lambda state: state["attempts"] >= 1 and state["status"] == "queued")
        mesh.break_at = None
        ended = await user.result(job_id)
        assert ended["status"] == "completed"
        assert ended["attempts"] > 1
        assert ended["request_id"] == name_of_attempt(job_id, ended["attempts"])
        after = await money(here.rooms.database, user.wallet)
        assert after == {
            "available": DEPOSIT - ended["result"]["cost_units"],
            "held": 0,
            "captures": 1,
            "requests": ended["attempts"],
        }


async def test_it_is_not_tried_for_ever(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FIRST_PAUSE", timedelta(milliseconds=10))
    mesh = MeshDouble(break_at=5, breaks_with=GenerationFailed(f"lost after {SONG}"))
    async with office(sqlite_url, mesh, jobs_attempts=2) as here:
        user = await here.user()
        ended = await user.result(await user.submitted())
        assert (ended["status"], ended["error_code"], ended["attempts"]) == ("failed", "generation_failed", 2)
        assert (await money(here.rooms.database, user.wallet))["available"] == DEPOSIT


async def test_what_no_node_serves_now_waits_for_nodes(sqlite_url: str) -> None:
    mesh = MeshDouble()
    nodes, mesh.serving = mesh.serving, ()
    async with office(sqlite_url, mesh, queue_seconds=0.2) as here:
        user = await here.user()
        job_id = await user.submitted()
        waits = await user.until(job_id, lambda state: state["started_at"] is not None and state["status"] == "queued")
        assert waits["attempts"] == 0  # an attempt that held nothing does not count
        mesh.serving = nodes
        async with here.rooms.database.writing() as connection:
            assert (await connection.execute(select(jobs.c.due_at))).scalar_one() > now() + timedelta(seconds=5)
            await connection.execute(update(jobs).values(due_at=now()))
        ended = await user.result(job_id)
        assert (ended["status"], ended["attempts"]) == ("completed", 1)


async def test_a_job_that_could_not_begin_in_its_time_has_failed(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.05)
    async with office(sqlite_url, jobs_at_once=0, jobs_seconds=0.3) as here:
        user = await here.user()
        ended = await user.result(await user.submitted())
        assert (ended["status"], ended["error_code"]) == ("failed", "job_timed_out")


async def test_a_gateway_that_is_told_to_stop_gives_its_jobs_back(database_url: str) -> None:
    gate = Turnstile()
    async with office(database_url, MeshDouble(gate=gate), shutdown_seconds=0) as here:
        user = await here.user()
        job_id = await user.submitted()
        gate.let_through(asyncio.get_running_loop(), 3)
        await asyncio.wait_for(_until(lambda: here.mesh.generations and here.mesh.generations[0]._done == 3), 60)
        asyncio.get_running_loop().call_later(0.2, lambda: gate.let_through(asyncio.get_running_loop(), 9))
    async with office(database_url) as there:
        user.http._transport = there.client()._transport
        ended = await user.result(job_id)
        assert (ended["status"], ended["result"]["text"]) == ("completed", "".join(STORY))
        after = await money(there.rooms.database, user.wallet)
        assert (after["held"], after["captures"]) == (0, 1)


# ---- whose turn it is


async def test_better_tiers_stand_ahead_and_many_jobs_of_one_wallet_behind(sqlite_url: str) -> None:
    async with office(sqlite_url, jobs_at_once=0) as here:
        busy, other, premium = await here.user(), await here.user(), await here.user()
        await here.rooms.tiers.put(premium.wallet, here.rooms.tiers.table.premium.name)
        first = [await busy.submitted(f"number {number}") for number in range(3)]
        second, third = await other.submitted(), await premium.submitted()
        gateway, turns = Gateway("elsewhere", "life"), list[str]()
        for _ in range(5):
            async with here.rooms.database.writing() as connection:
                job = await repository.claim(connection, gateway, timedelta(minutes=1))
            assert job is not None
            turns.append(job.id)
        assert turns == [third, first[0], second, first[1], first[2]]


async def test_a_job_is_in_one_hand_until_its_lease_is_over(database_url: str) -> None:
    async with office(database_url, jobs_at_once=0) as here:
        user, database = await here.user(), here.rooms.database
        await user.submitted()
        ann, bob = Gateway("ann", "1"), Gateway("bob", "1")
        async with database.writing() as connection:
            first = await repository.claim(connection, ann, timedelta(minutes=1))
        assert first is not None
        for who, again in ((bob, False), (ann, False), (Gateway("ann", "2"), True)):
            async with database.writing() as connection:
                taken = await repository.claim(connection, who, timedelta(minutes=1))
            assert (taken is not None) is again
        async with database.writing() as connection:  # who had it before writes nothing any more
            assert await repository.change(connection, first, tokens=5) is None
            assert await repository.renew(connection, first, 5, timedelta(minutes=1)) is None
            assert await repository.end(connection, first, status=JobStatus.FAILED.value) is None
        async with database.writing() as connection:
            await connection.execute(update(jobs).values(lease_until=now() - timedelta(seconds=1)))
        async with database.writing() as connection:
            taken = await repository.claim(connection, bob, timedelta(minutes=1))
        assert taken is not None
        assert taken.lease_token == first.lease_token + 2


async def test_two_gateways_work_on_each_job_once(database_url: str) -> None:
    async with office(database_url, gateway_name="ann") as ann, office(database_url, gateway_name="bob") as bob:
        user = await ann.user()
        made = [await user.submitted(f"number {number}") for number in range(12)]
        ended = [await user.result(job_id) for job_id in made]
        assert {job["status"] for job in ended} == {"completed"}
        assert {job["attempts"] for job in ended} == {1}
        assert len(ann.mesh.generations) + len(bob.mesh.generations) == 12
        assert await money(ann.rooms.database, user.wallet) == {
            "available": DEPOSIT - sum(job["result"]["cost_units"] for job in ended),
            "held": 0,
            "captures": 12,
            "requests": 12,
        }


async def test_a_gateway_that_was_frozen_charges_nothing(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up when another one has taken its job over and ended it."""
    monkeypatch.setattr(worker, "BEAT_SECONDS", 3600)
    gate = Turnstile()
    async with office(sqlite_url, MeshDouble(gate=gate), gateway_name="frozen", jobs_at_once=1) as frozen:
        user = await frozen.user()
        job_id = await user.submitted()
        gate.let_through(asyncio.get_running_loop(), 3)
        await asyncio.wait_for(_until(lambda: frozen.mesh.generations and frozen.mesh.generations[0]._done == 3), 60)
        async with frozen.rooms.database.writing() as connection:
            await connection.execute(update(jobs).values(lease_until=now() - timedelta(seconds=1)))
        async with office(sqlite_url, gateway_name="awake") as awake:
            ended = await user.result(job_id)
            assert (await money(awake.rooms.database, user.wallet))["held"] == 0  # what the first attempt held as well
            gate.let_through(asyncio.get_running_loop(), 9)
            assert (ended["status"], ended["attempts"]) == ("completed", 2)
            await asyncio.wait_for(_until(lambda: frozen.mesh.generations[0].finished), 60)
            await frozen.rooms.inference.close()
            assert await user.result(job_id) == ended
            after = await money(awake.rooms.database, user.wallet)
            assert after["captures"] == 1
            assert after["available"] == DEPOSIT - ended["result"]["cost_units"]


# ---- what is kept


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged while the test runs."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(stream, logging.DEBUG)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_what_was_said_is_readable_nowhere(
    sqlite_url: str, tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FIRST_PAUSE", timedelta(milliseconds=10))
    mesh = MeshDouble(story=[SONG, f" {SONG}", "."])
    async with receiver() as hooks, office(sqlite_url, mesh, outbound_ports=[hooks.port], jobs_attempts=2) as here:
        user = await here.user()
        secret = (await user.http.post("/api/account/webhook-secret")).json()["secret"]
        hook = {"url": hooks.url, "include_result": True}
        job_id = await user.submitted(f"say {CANARY}", stop=[f"{CANARY} stop"], webhook=hook, name=f"{CANARY}-name")
        assert SONG in (await user.result(job_id))["result"]["text"]
        assert SONG in str(await hooks.messages(1))
        mesh.break_at, mesh.breaks_with = 1, GenerationFailed(f"lost after {SONG} for {CANARY}")
        broken = await user.submitted(f"say {CANARY}")
        assert (await user.result(broken))["status"] == "failed"
        mesh.breaks_with = ValueError(f"lost after {SONG} for {CANARY}")
        assert (await user.result(await user.submitted(f"say {CANARY}")))["error_code"] == "internal_error"
        error(await user.submit(CANARY, max_tokens=0), 400, "invalid_argument")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("marketplace.db"))
    logged = log.getvalue()
    assert job_id in logged
    assert job_id.encode() in kept
    for said in (CANARY, SONG, secret, secret.removeprefix("whsec_"), "token=of-mine", KEY):
        assert said not in logged
        assert said.encode() not in kept


async def test_the_prompt_is_gone_when_the_job_has_ended_and_all_of_it_after_a_while(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.05)
    async with office(database_url, jobs_result_seconds=600.0) as here:
        user, database = await here.user(), here.rooms.database
        job_id = await user.submitted()
        assert (await user.result(job_id))["status"] == "completed"
        async with database.writing() as connection:
            prompt, until = (await connection.execute(select(jobs.c.sealed_request, jobs.c.expires_at))).one()
            assert prompt is None
            assert now() < until < now() + timedelta(seconds=601)
            await connection.execute(update(jobs).values(expires_at=now()))
        async with asyncio.timeout(60):
            while (await user.http.get(f"/results/{job_id}")).status_code != 404:
                await asyncio.sleep(0.05)
        async with database.reading() as connection:
            assert (await connection.execute(select(jobs.c.id))).first() is None


async def test_keys_are_replaced_without_losing_a_job(sqlite_url: str) -> None:
    async with office(sqlite_url, jobs_at_once=0) as here:
        user = await here.user()
        job_id = await user.submitted(name="mine")
    async with office(sqlite_url, jobs_keys=[OTHER_KEY, KEY]) as here:
        user.http._transport = here.client()._transport
        assert (await user.result(job_id))["status"] == "completed"
        assert await user.submitted(name="mine") == job_id
    async with office(sqlite_url, jobs_keys=[OTHER_KEY]) as here:
        user.http._transport = here.client()._transport
        assert (await user.result(job_id))["status"] == "completed"  # the result has the new key


async def test_a_job_whose_key_is_gone_has_failed_and_says_so(sqlite_url: str) -> None:
    async with office(sqlite_url, jobs_at_once=0) as here:
        user = await here.user()
        job_id = await user.submitted()
    async with office(sqlite_url, jobs_keys=[OTHER_KEY]) as here:
        user.http._transport = here.client()._transport
        ended = await user.result(job_id)
        assert (ended["status"], ended["error_code"]) == ("failed", "seal_broken")
        assert "FAR_JOBS_KEYS" in ended["error"]["message"]


async def test_an_api_key_hands_in_jobs_within_its_limits(sqlite_url: str) -> None:
    async with office(sqlite_url, jobs_seconds=20.0) as here:  # the limit ends at midnight, which may be near
        user = await here.user()
        limits = {"name": "one job", "limits": {"units_per_day": 845_012}}
        key = (await user.http.post("/api/account/keys", json=limits)).json()["key"]
        user.http.headers["authorization"] = f"Bearer {key}"
        first = await user.result(await user.submitted())
        second = await user.result(await user.submitted())
        assert (first["status"], second["error_code"]) == ("completed", "key_limit_reached")
