"""Does everything answer that the settings name? Nothing is changed anywhere."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import AsyncExitStack
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from discovery.hints import bootstrap_peers
from discovery.protocol.errors import FarError
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.configuration.check import Report
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.payments.registry import open_provider
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement.fees import FeeWatch
from far_mesh.marketplace.tables import gateways

CONNECT_SECONDS = 5.0
_ENDPOINT = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/([0-9]{1,5})/")


async def check_online(report: Report) -> None:
    """Try what can be tried; what is wrong already is left alone."""
    wrong = {problem.setting for problem in report.problems}
    settings = report.settings
    if not wrong & {"FAR_DATABASE_URL", "FAR_DATA_DIR"}:
        await _database(report, settings)
    if settings.redis_url is not None and "FAR_REDIS_URL" not in wrong:
        await _redis(report, settings.redis_url.get_secret_value())
    if not wrong:  # whoever opens a chain needs all of its settings
        await _chain(report, settings)
    if not wrong & {"FAR_INITIAL_PEERS", "FAR_DISCOVERY", "FAR_SWARM", "FAR_INVITE"}:
        await _discovery(report, settings)
        await _peers(report, settings)


async def _database(report: Report, settings: Settings) -> None:
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and _is_yet_to_be_made(report, url.database):
        return
    database = Database(settings.database)
    try:
        await database.check()
        others = await _other_gateways(database, settings)
    except FarError as error:
        name = "FAR_DATABASE_URL" if settings.database_url else "FAR_DATA_DIR"
        report.wrong(name, f"{url.render_as_string(hide_password=True)} does not answer: {error.message}")
        return
    finally:
        await database.close()
    report.reached.append(f"the database {url.render_as_string(hide_password=True)} answers")
    if database.is_sqlite and others:
        report.dangerous(
            "FAR_DATABASE_URL",
            f"{others} other gateways are alive in this SQLite file: several share a PostgreSQL database",
        )


async def _redis(report: Report, url: str) -> None:
    try:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        report.wrong("FAR_REDIS_URL", "FAR_REDIS_URL needs redis: run `pip install 'far-mesh[redis]'`")
        return
    try:
        async with Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS) as redis:
            await redis.ping()
    except (RedisError, OSError, ValueError) as error:  # whose words may show the password
        report.wrong("FAR_REDIS_URL", f"Redis does not answer ({type(error).__name__})")
    else:
        report.reached.append("Redis answers")


async def _other_gateways(database: Database, settings: Settings) -> int:
    others = select(func.count()).where(gateways.c.alive_until > now(), gateways.c.name != settings.gateway)
    async with database.reading() as connection:
        if not await connection.run_sync(lambda it: it.dialect.has_table(it, gateways.name)):
            return 0
        return int((await connection.execute(others)).scalar_one())


def _is_yet_to_be_made(report: Report, file: str | None) -> bool:
    if not file or Path(file).exists():
        return False
    folder = next(place for place in Path(file).parents if place.exists())
    if os.access(folder, os.W_OK):
        report.reached.append(f"the database {file} will be made at the first start")
    else:
        report.wrong("FAR_DATA_DIR", f"the database {file} cannot be made: {folder} is not writable")
    return True


async def _chain(report: Report, settings: Settings) -> None:
    if settings.payment_provider == "none":
        return
    async with AsyncExitStack() as stack:
        try:
            provider = open_provider(settings)
            stack.push_async_callback(provider.close)
            coin = await provider.check()
            if settings.has_escrow:
                chain = Chain(
                    settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address
                )
                stack.push_async_callback(chain.close)
                await chain.check()
                await FeeWatch(chain, settings.fee_bps).check()
        except FarError as error:
            report.wrong(str(error.facts.get("setting", "FAR_CHAIN_RPC_URL")), error.message)
            return
    report.reached.append(f"the chain {coin.chain} answers")


async def _discovery(report: Report, settings: Settings) -> None:
    if not settings.discovery:
        return
    try:
        named = await bootstrap_peers(settings.discovery)
    except FarError as error:
        tell = report.dangerous if settings.entrance().known else report.wrong
        tell("FAR_DISCOVERY", error.message)
    else:
        report.reached.append(f"the discovery service {settings.discovery} names {len(named)} peers")


async def _peers(report: Report, settings: Settings) -> None:
    peers = settings.entrance().known
    answers = await asyncio.gather(*map(_is_reached, peers))
    report.reached.extend(f"the peer {peer} answers" for peer, there in zip(peers, answers, strict=True) if there)
    silent = [peer for peer, there in zip(peers, answers, strict=True) if not there]
    if not silent:
        return
    message = f"nobody answers at {', '.join(silent)}"
    if any(answers):
        report.dangerous("FAR_INITIAL_PEERS", message)
    else:
        report.wrong("FAR_INITIAL_PEERS", message)


async def _is_reached(peer: str) -> bool:
    """Whether something listens there. Not whether it is the peer that the address names: who joins finds out."""
    place = _ENDPOINT.match(peer)
    if place is None:
        return False
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(place[1], int(place[2]))
    except (OSError, OverflowError, TimeoutError):
        return False
    writer.close()
    return True
