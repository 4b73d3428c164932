"""Redis goes away in the middle of an answer, and comes back."""

from __future__ import annotations

import asyncio

from far_mesh.marketplace.database import Database
from tests.far_mesh.marketplace.doubles import STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.weather.gateway import COST, Words, check_books, gateway, user_of
from tests.support.redis_server import RedisServer


async def test_answers_go_on_and_new_ones_are_counted_here(sqlite_url: str) -> None:
    gate = Turnstile()
    loop, database = asyncio.get_running_loop(), Database(sqlite_url)
    with RedisServer() as server:
        async with (
            gateway(MeshDouble(gate=gate), sqlite_url, redis_url=server.url) as here,
            user_of(here.url, database) as user,
        ):
            async with user.stream() as response:
                words = Words(response)
                gate.let_through(loop, 2)
                said = [await words.next() for _ in range(2)]
                server.stop()
                gate.let_through(loop, 2 * len(STORY))
                assert (await user.ask()).status_code == 200
                *more, bill = await words.rest()
                assert "".join(word["token"] for word in (*said, *more)) == "".join(STORY)
                assert bill["cost_units"] == COST
            server.start()
            gate.let_through(loop, len(STORY))
            assert (await user.ask()).status_code == 200
            await check_books(database, user.wallet, 3 * COST)
    await database.close()
