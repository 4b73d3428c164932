"""Messages to webhooks: signed, told apart, sent again, given up, and seen by their owner."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.jobs import webhooks
from far_mesh.marketplace.jobs.webhooks import LONGEST_PAUSE_SECONDS, Secrets, pause, signature
from tests.docs.pages import ROOT, blocks
from tests.far_mesh.marketplace.doubles import STORY
from tests.far_mesh.marketplace.jobs.office import User, is_signed, office, receiver
from tests.far_mesh.marketplace.test_http import error


async def secret_of(user: User) -> str:
    answer = await user.http.post("/api/account/webhook-secret")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    body = b'{"test": 2432232314}'
    made = signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_pauses_grow_up_to_six_hours_and_none_is_like_another() -> None:
    steady = [pause(attempts, 0.5).total_seconds() for attempts in range(1, 12)]
    assert steady[:4] == [5, 20, 80, 320]
    assert all(before <= after for before, after in pairwise(steady))
    assert max(steady) == LONGEST_PAUSE_SECONDS
    assert (pause(1, 0.0), pause(1, 1.0)) == (timedelta(seconds=2.5), timedelta(seconds=7.5))


def test_the_secret_before_counts_for_a_day() -> None:
    known = Secrets("whsec_new", "whsec_old", now() + timedelta(days=1))
    assert Secrets.from_bytes(known.to_bytes()) == known
    assert known.that_count(now()) == ["whsec_new", "whsec_old"]
    assert known.that_count(now() + timedelta(days=2)) == ["whsec_new"]
    assert Secrets("whsec_new").that_count(now()) == ["whsec_new"]


async def test_a_message_is_signed_and_has_no_text_unless_asked_for(database_url: str) -> None:
    async with receiver() as hooks, office(database_url, outbound_ports=[hooks.port]) as here:
        user = await here.user()
        secret = await secret_of(user)
        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
        quiet = await user.submitted(webhook={"url": hooks.url})
        (message,) = await hooks.messages(1)
        ended = await user.result(quiet)
        assert message == {
            "type": "job.completed",
            "timestamp": ended["ended_at"],
            "data": {
                "job_id": quiet,
                "status": "completed",
                "model_id": "tiny",
                "request_id": ended["request_id"],
                "tokens": 12,
            },
        }
        headers, body = hooks.got[0]
        assert is_signed(secret, headers, body)
        assert not is_signed(secret, headers, body + b" ")
        assert not is_signed(secret, {**headers, "webhook-id": "msg_other"}, body)
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert headers["content-type"] == "application/json"
        await user.submitted(webhook={"url": hooks.url, "include_result": True})
        assert (await hooks.messages(2))[1]["data"]["result"]["text"] == "".join(STORY)
        assert hooks.got[1][0]["webhook-id"] != headers["webhook-id"]


async def test_failures_and_cancellations_are_told_too(sqlite_url: str) -> None:
    async with receiver() as hooks, office(sqlite_url, outbound_ports=[hooks.port]) as here:
        poor = await here.user(deposit=1)
        await secret_of(poor)
        await poor.submitted(webhook={"url": hooks.url, "include_result": True})
        (failed,) = await hooks.messages(1)
        assert (failed["type"], failed["data"]["error_code"]) == ("job.failed", "insufficient_balance")
    async with receiver() as hooks, office(sqlite_url, outbound_ports=[hooks.port], jobs_at_once=0) as here:
        user = await here.user()
        await secret_of(user)
        job_id = await user.submitted(webhook={"url": hooks.url})
        await user.http.delete(f"/results/{job_id}")
        (cancelled,) = await hooks.messages(1)
        assert (cancelled["type"], cancelled["data"]["job_id"]) == ("job.cancelled", job_id)


async def test_a_replaced_secret_counts_beside_the_new_one(sqlite_url: str) -> None:
    async with receiver() as hooks, office(sqlite_url, outbound_ports=[hooks.port]) as here:
        user = await here.user()
        first = await secret_of(user)
        second = (await user.http.post("/api/account/webhook-secret")).json()
        assert second["previous_until"] is not None
        third = await secret_of(user)
        await user.submitted(webhook={"url": hooks.url})
        await hooks.messages(1)
        headers, body = hooks.got[0]
        assert [is_signed(secret, headers, body) for secret in (first, second["secret"], third)] == [False, True, True]


async def test_it_is_sent_until_it_arrives_with_the_same_id_and_its_owner_sees_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_SECONDS", 0.01)
    async with receiver(500, 302, 200) as hooks, office(database_url, outbound_ports=[hooks.port]) as here:
        user, stranger = await here.user(), await here.user(deposit=0)
        await secret_of(user)
        job_id = await user.submitted(webhook={"url": hooks.url})
        first, second, third = await hooks.messages(3)
        assert first == second == third
        assert len({headers["webhook-id"] for headers, _ in hooks.got}) == 1
        (told,) = await _ended(user, job_id)
        assert (told["status"], told["next_at"], told["type"]) == ("delivered", None, "job.completed")
        assert told["webhook_id"] == hooks.got[0][0]["webhook-id"]
        assert [one["http_status"] for one in told["attempts"]] == [500, 302, 200]
        assert all(one["error_code"] is None for one in told["attempts"])
        error(await stranger.http.get(f"/jobs/{job_id}/deliveries"), 404, "job_not_found")


@pytest.mark.parametrize(("statuses", "attempts"), [([500], 3), ([410], 1)])
async def test_it_is_given_up(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, statuses: list[int], attempts: int
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_SECONDS", 0.01)
    async with (
        receiver(*statuses) as hooks,
        office(sqlite_url, outbound_ports=[hooks.port], webhook_attempts=3) as here,
    ):
        user = await here.user()
        await secret_of(user)
        job_id = await user.submitted(webhook={"url": hooks.url})
        (told,) = await _ended(user, job_id)
        assert (told["status"], len(told["attempts"])) == ("failed", attempts)
        assert len(hooks.got) == attempts


async def test_what_the_guard_refuses_is_in_the_log_of_deliveries(sqlite_url: str) -> None:
    async with office(sqlite_url, outbound_networks=[], webhook_attempts=1) as here:
        user = await here.user()
        await secret_of(user)
        job_id = await user.submitted(webhook={"url": "https://localhost/hook"})
        (told,) = await _ended(user, job_id)
        assert (told["status"], told["attempts"][0]["error_code"]) == ("failed", "url_refused")
        assert told["attempts"][0]["http_status"] is None


async def test_a_slow_receiver_holds_up_nobody_else(sqlite_url: str) -> None:
    hangs = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hangs.wait()
        writer.close()

    slow = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = slow.sockets[0].getsockname()[1]
    async with receiver() as hooks, office(sqlite_url, outbound_ports=[hooks.port, port]) as here:
        stuck, other = await here.user(), await here.user()
        for user in (stuck, other):
            await secret_of(user)
        for _ in range(webhooks.AT_ONCE + 1):
            await stuck.submitted(webhook={"url": f"http://127.0.0.1:{port}/"})
        await other.submitted(webhook={"url": hooks.url})
        await hooks.messages(1)
        hangs.set()
    slow.close()


async def test_a_secret_whose_key_is_gone_is_made_anew(sqlite_url: str) -> None:
    async with office(sqlite_url) as here:
        user = await here.user()
        await secret_of(user)
    async with office(sqlite_url, jobs_keys=["22" * 32]) as here:
        user.http._transport = here.client()._transport
        error(await user.submit(webhook={"url": "https://hooks.example"}), 409, "webhook_secret_missing")
        assert (await user.http.post("/api/account/webhook-secret")).json()["previous_until"] is None


async def _ended(user: User, job_id: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while True:
            found = json.loads((await user.http.get(f"/jobs/{job_id}/deliveries")).text)["deliveries"]
            if found and all(one["status"] != "pending" for one in found):
                return list(found)
            await asyncio.sleep(0.05)


def test_the_example_of_the_documents_checks_a_message() -> None:
    example = next(block for block in blocks(ROOT / "docs/developers.md", "python") if "webhook-id" in block.text)
    names: dict[str, Any] = {}
    exec(compile(example.text, "developers.md", "exec"), names)
    check, body, at = names["is_from_the_gateway"], b'{"type":"job.completed"}', int(time.time())
    new, old = (webhooks.SECRET_PREFIX + base64.b64encode(bytes([one]) * 32).decode() for one in (1, 2))
    signatures = " ".join(signature(one, "msg_1", at, body) for one in (new, old))
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signatures}
    assert check(new, headers, body)
    assert check(old, headers, body)
    assert not check(new, headers, body + b" ")
    assert not check(new, headers | {"webhook-id": "msg_2"}, body)
    assert not check(new, headers | {"webhook-timestamp": str(at - 1)}, body)
    assert not check("whsec_" + base64.b64encode(bytes(32)).decode(), headers, body)
    late = at - 301
    again = {"webhook-timestamp": str(late), "webhook-signature": signature(new, "msg_1", late, body)}
    assert not check(new, headers | again, body)
