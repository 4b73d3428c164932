"""The marketplace as one application: its rooms, who opens them and in which order.

database ▸ where the money lies ▸ meshes ▸ what a crash left open ▸ settler, deposit watcher, caretaker ▸ doors open
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from sqlalchemy.engine import make_url

from discovery.protocol.ids import check_wallet
from far_mesh.marketplace import http
from far_mesh.marketplace.account import endpoints as account_endpoints
from far_mesh.marketplace.account.deposits import Deposits, PayIn
from far_mesh.marketplace.account.service import AccountService
from far_mesh.marketplace.auth import endpoints as auth_endpoints
from far_mesh.marketplace.auth.contract_wallets import ContractWallets
from far_mesh.marketplace.auth.service import Audience, AuthService
from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.channels import endpoints as channel_endpoints
from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.cluster import endpoints as cluster_endpoints
from far_mesh.marketplace.cluster.service import ClusterService
from far_mesh.marketplace.connections import Patience
from far_mesh.marketplace.dashboard.door import Dashboard
from far_mesh.marketplace.dashboard.site import PACKAGED, Site
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.document import Documented
from far_mesh.marketplace.errors import ChainUnavailable, DatabaseUnavailable
from far_mesh.marketplace.health import endpoints as health_endpoints
from far_mesh.marketplace.health.service import HealthService
from far_mesh.marketplace.inference import endpoints as inference_endpoints
from far_mesh.marketplace.inference.admission import Rules
from far_mesh.marketplace.inference.meshes import MeshLike, swarm_meshes
from far_mesh.marketplace.inference.payment import Terms
from far_mesh.marketplace.inference.run import Limits
from far_mesh.marketplace.inference.schemas import DoneEvent, TokenEvent, VoucherEvent
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.jobs import endpoints as job_endpoints
from far_mesh.marketplace.jobs.room import job_room
from far_mesh.marketplace.jobs.service import JobService
from far_mesh.marketplace.keys import endpoints as keys_endpoints
from far_mesh.marketplace.keys.service import KeyService
from far_mesh.marketplace.ledger.notes import Notes
from far_mesh.marketplace.limits.schemas import PerMinute
from far_mesh.marketplace.limits.service import RateLimits
from far_mesh.marketplace.limits.store import open_store
from far_mesh.marketplace.logs import where_it_failed
from far_mesh.marketplace.mcp_api import door as mcp_door
from far_mesh.marketplace.mcp_api.door import McpDoor
from far_mesh.marketplace.mcp_api.tools import Tools
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.money import Money, check_settings, open_money
from far_mesh.marketplace.nodes import claims as node_claims
from far_mesh.marketplace.nodes import endpoints as node_endpoints
from far_mesh.marketplace.nodes import join as node_join
from far_mesh.marketplace.nodes.claims import Claims
from far_mesh.marketplace.nodes.join import JoinService
from far_mesh.marketplace.nodes.probes import ProberNews
from far_mesh.marketplace.nodes.service import NodeService
from far_mesh.marketplace.openai_api import endpoints as openai_endpoints
from far_mesh.marketplace.openai_api.schemas import ChatChunk
from far_mesh.marketplace.pricing import endpoints as pricing_endpoints
from far_mesh.marketplace.pricing.listing import PriceListing
from far_mesh.marketplace.pricing.quotes import Quotes
from far_mesh.marketplace.pricing.service import Pricing
from far_mesh.marketplace.pricing.service import Terms as PriceTerms
from far_mesh.marketplace.provider import endpoints as provider_endpoints
from far_mesh.marketplace.provider.payouts import PayoutRoom
from far_mesh.marketplace.provider.service import ProviderService
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import endpoints as settlement_endpoints
from far_mesh.marketplace.settlement.overview import Overview
from far_mesh.marketplace.settlement.reconciler import Reconciler
from far_mesh.marketplace.settlement.service import Caretaker, Settler
from far_mesh.marketplace.telemetry import endpoints as telemetry_endpoints
from far_mesh.marketplace.telemetry.edge import Telemetry, Watch
from far_mesh.marketplace.telemetry.exposition import Exposition, looking_at
from far_mesh.marketplace.telemetry.metrics import Metrics, watch_gates
from far_mesh.marketplace.telemetry.requests import RequestWatch
from far_mesh.marketplace.tiers import endpoints as tiers_endpoints
from far_mesh.marketplace.tiers.service import TierService
from far_mesh.marketplace.usage import endpoints as usage_endpoints
from far_mesh.marketplace.usage.service import UsageService

RESTART_SECONDS = 1.0
FLUSH_SECONDS = 5.0

OpenMeshes = Callable[[Settings], AbstractAsyncContextManager[Mapping[str, MeshLike]]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rooms:
    """What endpoints reach through ``request.app.state.rooms``. What is None is there only with an escrow, ``payouts``
    only without one, ``jobs`` only with keys for them."""

    database: Database
    chain: Chain | None
    auth: AuthService
    keys: KeyService
    tiers: TierService
    limits: RateLimits
    account: AccountService
    usage: UsageService
    pay_in: PayIn
    deposits: Deposits
    channels: ChannelService | None
    terms: Terms | None
    inference: InferenceService
    jobs: JobService | None
    provider: ProviderService
    nodes: NodeService
    claims: Claims
    join: JoinService
    cluster: ClusterService
    prices: PriceListing
    settled: Overview
    payouts: PayoutRoom | None
    health: HealthService
    reconciler: Reconciler | None
    mcp: McpDoor
    telemetry: Telemetry
    exposition: Exposition
    opened_at: datetime


# The framework would tell a collector of paths, queries and the words of exceptions. What we tell is in telemetry/.
_UNTOLD: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}


def create_app(settings: Settings, open_meshes: OpenMeshes = swarm_meshes) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins.

    Raises:
        MissingSetting: a secret or an address without which nothing is safe is absent.
        InvalidSetting: a setting means nothing.
    """
    check_settings(settings)
    settings.require("models")
    settings.jwt_key()
    settings.jwt_other_keys()
    settings.job_keys()
    settings.check_probers()

    telemetry = Telemetry.of(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_rooms(settings, open_meshes, telemetry) as rooms:
            app.state.rooms = rooms
            if rooms.terms is not None:
                app.state.accepts = rooms.terms.accepts
            yield

    app = faces(lifespan, has_escrow=settings.has_escrow)
    if settings.dashboard and (site := Site.read(PACKAGED)) is not None:
        app.add_middleware(Dashboard, site=site)
    http.install(app, settings.max_body_bytes, settings.body_seconds)
    app.add_middleware(Watch, telemetry=telemetry)
    app.state.trusted_proxies = settings.trusted_proxies
    app.state.metrics_token = settings.metrics_key()
    app.state.patience = Patience(
        settings.max_connections, settings.header_seconds, settings.keep_alive_seconds, settings.reader_seconds
    )
    return app


def faces(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None, *, has_escrow: bool) -> Documented:
    """Every route of a marketplace, with or without those that need an escrow. Its document is what the SDKs are made
    from."""
    app = Documented(
        title="Far Mesh",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # these pages run scripts of another host, where sessions of the dashboard lie
        redoc_url=None,
        telemetry=_UNTOLD,
        events=(TokenEvent, VoucherEvent, DoneEvent, ChatChunk),
    )
    rooms = [auth_endpoints, keys_endpoints, account_endpoints, inference_endpoints, openai_endpoints, health_endpoints]
    rooms += [usage_endpoints, provider_endpoints, node_endpoints, node_claims, node_join]
    rooms += [cluster_endpoints, job_endpoints]
    if has_escrow:
        rooms += [channel_endpoints]
    rooms += [tiers_endpoints, pricing_endpoints, settlement_endpoints]
    for room in rooms:
        app.include_router(room.router, dependencies=[Depends(http.whole_characters)])
    app.include_router(mcp_door.router)
    app.include_router(telemetry_endpoints.router)
    return app


@asynccontextmanager
async def open_rooms(
    settings: Settings, open_meshes: OpenMeshes, telemetry: Telemetry | None = None
) -> AsyncIterator[Rooms]:
    """Open everything in order, and close it in the other.

    Raises:
        FarError: what is missing, in words.
    """
    gateway = Gateway(settings.gateway, str(uuid.uuid4()))
    telemetry = telemetry or Telemetry.of(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, telemetry.tracing.close)
        database = await _open_database(settings, stack)
        money = await open_money(settings, database, gateway, stack)
        meshes = await stack.enter_async_context(open_meshes(settings))
        keys, escrow = KeyService(database, settings.auth_cache_seconds), money.escrow
        auth = _auth(settings, database, keys, None if escrow is None else escrow.chain)
        nodes = NodeService(database, meshes, auth, settings.uri)
        tiers = TierService(database, settings.tiers, settings.auth_cache_seconds)
        limits = await stack.enter_async_context(_rate_limits(settings, tiers, keys))
        inference = _inference(settings, database, money, gateway, meshes, tiers, limits, telemetry.metrics)
        watch_gates(telemetry.metrics, inference.gates)
        caretaker = Caretaker(database, gateway, money.settlement, inference.under_way)
        await caretaker.tend()
        stack.push_async_callback(caretaker.leave)
        for mesh in meshes.values():
            mesh.watch(tiers.reliability.seen)
            tiers.reliability.listeners.add(mesh.remember)
        tasks = {
            **money.tasks,
            "reliability": tiers.reliability.run,
            "caretaker": caretaker.run,
            "notes": Notes(database).run,
            "census": nodes.run,
        }
        if settings.probers:
            tasks["probers"] = ProberNews(database, settings.discovery, settings.dht_prefix, settings.probers).run
        jobs = job_room(settings, database, gateway, inference, tiers)
        if jobs is not None:
            tasks |= jobs.tasks
        for name, run in tasks.items():
            stack.push_async_callback(_end, asyncio.create_task(_supervised(name, run), name=name))
        if escrow is not None:
            stack.push_async_callback(_flush, escrow.settler)
        health = HealthService(database, money.answers, inference)
        mcp = await stack.enter_async_context(McpDoor(Tools(inference, health), settings).opened())
        if jobs is not None:
            stack.push_async_callback(jobs.worker.close)
        stack.push_async_callback(inference.close)
        yield Rooms(
            database=database,
            chain=None if escrow is None else escrow.chain,
            auth=auth,
            keys=keys,
            tiers=tiers,
            limits=limits,
            account=AccountService(database),
            usage=UsageService(database),
            pay_in=money.pay_in,
            deposits=money.deposits,
            channels=None if escrow is None else escrow.channels,
            terms=None if escrow is None else escrow.terms,
            inference=inference,
            jobs=None if jobs is None else jobs.service,
            provider=ProviderService(database, None if escrow is None else escrow.chain, meshes),
            nodes=nodes,
            claims=Claims(database, nodes, auth, settings.chain_id),
            join=JoinService(database, settings, meshes),
            cluster=ClusterService(database, gateway.name, health, nodes, inference.offers(), lambda: inference.gates),
            prices=PriceListing(database, inference.offers(), settings.tiers),
            settled=Overview(database, settings),
            payouts=_payouts(settings, database, money),
            health=health,
            reconciler=None if escrow is None else escrow.reconciler,
            mcp=mcp,
            telemetry=telemetry,
            exposition=Exposition(telemetry.metrics, database, gateway.name, looking_at(meshes)),
            opened_at=now(),
        )


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    await upgrade(settings.database)
    database = Database(settings.database)
    stack.push_async_callback(database.close)
    return database


def _auth(settings: Settings, database: Database, keys: KeyService, chain: Chain | None) -> AuthService:
    return AuthService(
        database,
        Tokens(settings.jwt_key(), settings.uri, settings.jwt_seconds, settings.jwt_other_keys()),
        Audience(settings.domain, settings.uri, settings.chain_id, settings.nonce_seconds),
        keys,
        operators=frozenset(map(check_wallet, settings.operators)),
        contracts=None if chain is None else ContractWallets(chain),
        recall_seconds=settings.auth_cache_seconds,
    )


@asynccontextmanager
async def _rate_limits(settings: Settings, tiers: TierService, keys: KeyService) -> AsyncIterator[RateLimits]:
    per_minute = PerMinute(
        public=settings.public_requests_per_minute,
        sign_ins=settings.sign_ins_per_minute,
        failures=settings.failures_per_minute,
        account=settings.account_requests_per_minute,
    )
    async with open_store(settings.redis_url) as store:
        limits = RateLimits(store, tiers, keys, per_minute)
        yield limits
        await limits.close()


def _payouts(settings: Settings, database: Database, money: Money) -> PayoutRoom | None:
    if money.transfers is None:
        return None
    delay = timedelta(seconds=settings.payout_address_delay_seconds)
    return PayoutRoom(database, money.transfers.provider, delay)


def _inference(
    settings: Settings,
    database: Database,
    money: Money,
    gateway: Gateway,
    meshes: Mapping[str, MeshLike],
    tiers: TierService,
    rates: RateLimits,
    metrics: Metrics,
) -> InferenceService:
    limits = Limits(settings.lock_seconds, settings.generation_seconds, settings.reader_seconds)
    rules = Rules(settings.queue_size, settings.queue_size_per_account, settings.queue_seconds, settings.model_sessions)
    terms = PriceTerms(settings.fee_bps, settings.cached_discount_bps, settings.requests_per_node)
    return InferenceService(
        database,
        money.settlement,
        gateway,
        settings.models,
        meshes,
        limits,
        rules,
        settings.default_max_tokens,
        tiers,
        rates,
        Pricing(database, terms),
        Quotes(settings.jwt_key(), settings.quote_seconds),
        money.till,
        RequestWatch(metrics),
    )


async def _supervised(name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Keep a task going. A bug in it is logged, and it begins again."""
    while True:
        try:
            await run()
        except Exception as error:  # the edge of a task
            log.error("task_broke", task=name, **where_it_failed(error))
        await asyncio.sleep(RESTART_SECONDS)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _flush(settler: Settler) -> None:
    """Give the last requests a chance to be paid before we go. What is not will be at the next start."""
    with suppress(TimeoutError, ChainUnavailable, DatabaseUnavailable):
        async with asyncio.timeout(FLUSH_SECONDS):
            await settler.drain()
