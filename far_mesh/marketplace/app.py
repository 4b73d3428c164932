"""The marketplace as one application: its rooms, who opens them and in which order.

database ▸ chain ▸ meshes ▸ what a crash left open ▸ settler, deposit watcher, caretaker ▸ doors open
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from discovery.protocol.ids import check_wallet
from far_mesh.marketplace import http
from far_mesh.marketplace.account import endpoints as account_endpoints
from far_mesh.marketplace.account.deposits import Deposits, EscrowDeposits
from far_mesh.marketplace.account.service import AccountService
from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.auth import endpoints as auth_endpoints
from far_mesh.marketplace.auth.contract_wallets import ContractWallets
from far_mesh.marketplace.auth.service import Audience, AuthService
from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.chain.audit import AuditedChain
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.channels import endpoints as channel_endpoints
from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.health import endpoints as health_endpoints
from far_mesh.marketplace.health.service import HealthService
from far_mesh.marketplace.inference import endpoints as inference_endpoints
from far_mesh.marketplace.inference.meshes import MeshLike, swarm_meshes
from far_mesh.marketplace.inference.payment import Terms
from far_mesh.marketplace.inference.run import Limits
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.inference.till import Credit, Till
from far_mesh.marketplace.keys import endpoints as keys_endpoints
from far_mesh.marketplace.keys.service import KeyService
from far_mesh.marketplace.ledger.notes import Notes
from far_mesh.marketplace.logs import where_it_failed
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.openai_api import endpoints as openai_endpoints
from far_mesh.marketplace.payments.registry import open_provider
from far_mesh.marketplace.payments.vouchers import Domain
from far_mesh.marketplace.pricing.quotes import Quotes
from far_mesh.marketplace.pricing.service import Pricing
from far_mesh.marketplace.pricing.service import Terms as PriceTerms
from far_mesh.marketplace.provider import endpoints as provider_endpoints
from far_mesh.marketplace.provider.service import ProviderService
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement.fees import FeeWatch
from far_mesh.marketplace.settlement.opening import settler_of
from far_mesh.marketplace.settlement.reconciler import Reconciler, reconciler_of
from far_mesh.marketplace.settlement.service import Caretaker, Settlement, Settler

RESTART_SECONDS = 1.0
FLUSH_SECONDS = 5.0

OpenMeshes = Callable[[Settings], AbstractAsyncContextManager[Mapping[str, MeshLike]]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rooms:
    """What endpoints reach through ``request.app.state.rooms``."""

    database: Database
    chain: Chain
    auth: AuthService
    keys: KeyService
    account: AccountService
    deposits: Deposits
    channels: ChannelService
    terms: Terms
    inference: InferenceService
    provider: ProviderService
    health: HealthService
    reconciler: Reconciler
    opened_at: datetime


# Python's own. A library that the wallets need lifts it a hundredfold when it is imported, and then a stranger's JSON
# of many brackets overflows the stack and ends the process.
_RECURSION_LIMIT = 1000


def create_app(settings: Settings, open_meshes: OpenMeshes = swarm_meshes) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins.

    Raises:
        MissingSetting: a secret or an address without which nothing is safe is absent.
        InvalidSetting: a setting means nothing.
    """
    settings.require("chain_rpc_url", "token_address", "escrow_address", "models")
    settings.jwt_key()
    settings.jwt_other_keys()
    settings.settler_key()
    sys.setrecursionlimit(_RECURSION_LIMIT)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_rooms(settings, open_meshes) as rooms:
            app.state.rooms = rooms
            app.state.accepts = rooms.terms.accepts
            yield

    app = FastAPI(title="Far Mesh", version="0.1.0", lifespan=lifespan, redirect_slashes=False)
    http.install(app, settings.max_body_bytes)
    rooms = (
        auth_endpoints,
        keys_endpoints,
        account_endpoints,
        channel_endpoints,
        inference_endpoints,
        openai_endpoints,
        provider_endpoints,
        health_endpoints,
    )
    for room in rooms:
        app.include_router(room.router)
    return app


@asynccontextmanager
async def open_rooms(settings: Settings, open_meshes: OpenMeshes) -> AsyncIterator[Rooms]:
    """Open everything in order, and close it in the other.

    Raises:
        FarError: what is missing, in words.
    """
    gateway = Gateway(settings.gateway, str(uuid.uuid4()))
    async with AsyncExitStack() as stack:
        database = await _open_database(settings, stack)
        chain = await _open_chain(settings, stack)
        watcher = _watcher(settings, database, chain)
        await watcher.open()
        deposits = await _open_deposits(settings, database, chain, stack)
        fees = FeeWatch(chain, settings.fee_bps)
        await fees.check()
        meshes = await stack.enter_async_context(open_meshes(settings))
        settlement = Settlement(database, chain, settings.lock_timeout_seconds)
        settler = settler_of(settings, database, chain, gateway, settlement)
        caretaker = Caretaker(database, gateway, settlement)
        await caretaker.tend()
        stack.push_async_callback(caretaker.leave)
        tasks = {
            "settler": settler.run,
            "deposits": watcher.run,
            "caretaker": caretaker.run,
            "notes": Notes(database).run,
            "fees": fees.run,
        }
        reconciler = await _open_reconciler(settings, database, stack)
        if settings.reconcile_seconds:
            tasks["reconciler"] = partial(reconciler.run, gateway, settings.reconcile_seconds)
        for name, run in tasks.items():
            stack.push_async_callback(_end, asyncio.create_task(_supervised(name, run), name=name))
        domain = Domain(chain.chain_id, chain.escrow_address)
        channels = ChannelService(database, domain, watcher.look, settings.voucher_step_units)
        credit = Credit(settings.unsettled_limit_units, settings.lock_seconds, settings.voucher_seconds)
        till = Till(database, chain, channels, fees, credit)
        inference = _inference(settings, database, settlement, gateway, meshes, till)
        keys = KeyService(database, settings.auth_cache_seconds)
        stack.push_async_callback(_flush, settler)
        stack.push_async_callback(inference.close)
        yield Rooms(
            database=database,
            chain=chain,
            auth=_auth(settings, database, keys, chain),
            keys=keys,
            account=AccountService(database),
            deposits=deposits,
            channels=channels,
            terms=_terms(settings, chain),
            inference=inference,
            provider=ProviderService(database, chain, meshes),
            health=HealthService(database, chain, inference),
            reconciler=reconciler,
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


async def _open_chain(settings: Settings, stack: AsyncExitStack) -> Chain:
    chain = Chain(settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address)
    stack.push_async_callback(chain.close)
    await chain.check()
    return chain


async def _open_reconciler(settings: Settings, database: Database, stack: AsyncExitStack) -> Reconciler:
    chain = AuditedChain(settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address)
    stack.push_async_callback(chain.close)
    return reconciler_of(settings, database, chain)


async def _open_deposits(settings: Settings, database: Database, chain: Chain, stack: AsyncExitStack) -> EscrowDeposits:
    provider = open_provider(settings)
    stack.push_async_callback(provider.close)
    await provider.check()
    return EscrowDeposits(database, provider, settings.chain_start_block, chain)


def _watcher(settings: Settings, database: Database, chain: Chain) -> DepositWatcher:
    return DepositWatcher(
        database,
        chain,
        confirmations=settings.confirmations,
        first_block=settings.chain_start_block,
        poll_seconds=settings.deposit_poll_seconds,
        reorg_blocks=settings.reorg_blocks,
    )


def _auth(settings: Settings, database: Database, keys: KeyService, chain: Chain) -> AuthService:
    return AuthService(
        database,
        Tokens(settings.jwt_key(), settings.uri, settings.jwt_seconds, settings.jwt_other_keys()),
        Audience(settings.domain, settings.uri, settings.chain_id, settings.nonce_seconds),
        keys,
        operators=frozenset(map(check_wallet, settings.operators)),
        contracts=ContractWallets(chain),
        recall_seconds=settings.auth_cache_seconds,
    )


def _inference(
    settings: Settings,
    database: Database,
    settlement: Settlement,
    gateway: Gateway,
    meshes: Mapping[str, MeshLike],
    till: Till,
) -> InferenceService:
    limits = Limits(settings.lock_seconds, settings.generation_seconds)
    terms = PriceTerms(settings.fee_bps, settings.cached_discount_bps, settings.requests_per_node)
    return InferenceService(
        database,
        settlement,
        gateway,
        settings.models,
        meshes,
        limits,
        settings.default_max_tokens,
        Pricing(database, terms),
        Quotes(settings.jwt_key(), settings.quote_seconds),
        till,
    )


def _terms(settings: Settings, chain: Chain) -> Terms:
    return Terms(
        chain_id=chain.chain_id,
        token=chain.token_address,
        escrow=chain.escrow_address,
        lock_seconds=settings.lock_seconds,
        fee_bps=settings.fee_bps,
        step_units=settings.voucher_step_units,
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
    with suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_SECONDS):
            await settler.drain()
