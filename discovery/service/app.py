"""The application: what is opened, in which order, and what answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI

from discovery.geo import Point
from discovery.geoip import GeoDatabase
from discovery.protocol.announcement import Announcement
from discovery.service import endpoints, http
from discovery.service.follower import BoardLike, Follower
from discovery.service.metrics import Metrics
from discovery.service.mirror import Mirror
from discovery.service.probes import Probes
from discovery.service.service import DiscoveryService
from discovery.service.settings import Settings
from discovery.service.store import Store
from discovery.web.errors import InvalidSetting

PATIENCE = 3
"""So many times in a row the DHT may not be read before we are not ready."""

OpenBoard = Callable[[Settings], AbstractAsyncContextManager[tuple[BoardLike, tuple[str, ...]] | None]]
"""Opens a board to follow, and says where others can join the swarm through us."""


@asynccontextmanager
async def swarm_board(settings: Settings) -> AsyncIterator[tuple[BoardLike, tuple[str, ...]]]:
    """The board of the swarm, read by a peer that stores nothing for others.

    Raises:
        InvalidSetting: no initial peers.
        PeerUnavailable: none of them answers.
    """
    from discovery.dht.identity import discard_identity, ephemeral_identity
    from discovery.dht.peer import PeerConfig, SwarmPeer

    if not settings.initial_peers:
        raise InvalidSetting(
            "FAR_DISCOVERY_INITIAL_PEERS is not set: a peer of the swarm to follow, such as what far-discovery "
            "bootstrap prints; or pass --initial-peers",
            setting="FAR_DISCOVERY_INITIAL_PEERS",
        )
    config = PeerConfig(
        initial_peers=settings.initial_peers,
        host_maddrs=settings.host_maddrs,
        prefix=settings.dht_prefix,
        is_client=True,
    )
    identity = ephemeral_identity()
    try:
        peer = await SwarmPeer.start(identity, config)
        try:
            yield peer.board, ()
        finally:
            await peer.close()
    finally:
        discard_identity(identity)


def create_app(settings: Settings, open_board: OpenBoard = swarm_board) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins."""
    metrics = Metrics(settings.watched_models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _open(settings, open_board) as service:
            app.state.service = service
            yield

    app = _Documented(title="Far Mesh discovery", version="0.1.0", lifespan=lifespan, redirect_slashes=False)
    app.state.limits = http.Limits(settings.requests_per_minute, settings.writes_per_minute)
    app.state.trusted_proxies = settings.trusted_proxies
    app.state.metrics_token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
    app.state.metrics, app.state.prefix = metrics, settings.dht_prefix
    app.state.renew_seconds, app.state.follow_patience = settings.renew_seconds, PATIENCE * settings.follow_seconds + 60
    app.include_router(endpoints.router)
    http.install(app, metrics.watch)
    return app


class _Documented(FastAPI):
    """An application whose document says how its operations fail."""

    def openapi(self) -> dict[str, Any]:
        """The document."""
        if self.openapi_schema is None:
            self.openapi_schema = http.without_422(super().openapi())
        return self.openapi_schema


@asynccontextmanager
async def _open(settings: Settings, open_board: OpenBoard) -> AsyncIterator[DiscoveryService]:
    async with AsyncExitStack() as stack:
        geoip = None if settings.geoip_db is None else GeoDatabase(settings.geoip_db)
        if not settings.database_url:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        store = await Store.open(settings.database)
        stack.push_async_callback(store.close)
        where = partial(_where, geoip)
        mirror = Mirror(settings.dht_prefix, settings.expiry_seconds, settings.max_announcements, where)
        found = await stack.enter_async_context(open_board(settings))
        follower = None if found is None else Follower(found[0], mirror, settings.follow_seconds)
        peers = (*settings.initial_peers, *(found[1] if found else ()))
        probes = Probes(settings.dht_prefix, settings.probers, mirror, store)
        service = DiscoveryService(mirror, store, follower, probes, settings.uri, peers)
        await service.load()
        stack.push_async_callback(service.close)
        tasks = [service.run()]
        if follower is not None:
            tasks.append(follower.run())
        if geoip is not None:
            tasks.append(geoip.keep_fresh())
        for task in map(asyncio.create_task, tasks):
            stack.push_async_callback(_end, task)
        yield service


def _where(geoip: GeoDatabase | None, about: Announcement) -> Point | None:
    """Where a node is: by its address, else as it says; None where neither is known."""
    by_address = None if geoip is None else geoip.point_of(about.maddrs)
    return by_address or about.location


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
