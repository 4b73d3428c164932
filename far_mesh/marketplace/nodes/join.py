"""What somebody needs to know who wants to serve here: where the swarm is, what the models take, what they have paid.

A gateway is a discovery service of the smallest kind: ``/bootstrap`` names peers of its swarm, so that
``far-node start --discovery`` takes the gateway's own address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from sqlalchemy import BigInteger, ColumnElement, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.announcement import Quantization
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.sessions.schemas import Status
from far_mesh.marketplace.settings import ModelOffer, Settings
from far_mesh.marketplace.tables import inference_sessions

WEEK = timedelta(days=7)
WORK_SECONDS = 300.0
"""The sums of a week are read along no index, so not for everybody who looks."""

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cuda", "cpu")
KINDS: tuple[Quantization, ...] = ("none", "int8", "nf4")


class WeightSizes(BaseModel):
    """What each block of a model takes in memory, in bytes, in a kind of weights on a kind of device. ``none``:
    bfloat16 on a GPU, float32 on a CPU."""

    device: Device
    quantization: Quantization
    block_bytes: list[int]


class WeekOfWork(BaseModel):
    """What a model was asked in the last seven days, and what its nodes earned by it together, in units of 1e-9 FAR.
    ``since``: when the first of these requests ended; null: there was none."""

    requests: int
    tokens: int
    node_units: int
    since: datetime | None


NO_WORK = WeekOfWork(requests=0, tokens=0, node_units=0, since=None)


class ModelToServe(BaseModel):
    """A model on sale, for who would serve it. ``source`` is what a node is told as ``--model``; null: its files are
    with the operator."""

    model_id: str
    source: str | None
    weights: list[WeightSizes]
    last_week: WeekOfWork


class JoinAnswer(BaseModel):
    """How to serve here. ``is_private``: nodes need an invitation, and peers are told with it."""

    gateway: str
    prefix: str
    is_private: bool
    initial_peers: list[str]
    models: list[ModelToServe]


class BootstrapAnswer(BaseModel):
    """Peers to join the swarm through: a first hint, and nothing that has to be believed."""

    prefix: str
    initial_peers: list[str]


@dataclass(frozen=True)
class _Offered:
    offer: ModelOffer
    mesh: MeshLike


class JoinService:
    """Knows what the gateway itself started with."""

    def __init__(self, database: Database, settings: Settings, meshes: Mapping[str, MeshLike]) -> None:
        self._database, self._settings = database, settings
        self._offered = {one.model_id: _Offered(one, meshes[one.model_id]) for one in settings.models}
        self._weights: dict[str, list[WeightSizes]] = {}
        self._work: Recall[None, dict[str, WeekOfWork]] = Recall(WORK_SECONDS)

    async def answer(self) -> JoinAnswer:
        """Everything.

        Raises:
            DatabaseUnavailable: nobody knows what the models have paid.
        """
        work = await self._work.get(None, self._read_work)
        hints = self.bootstrap()
        return JoinAnswer(
            gateway=self._settings.uri,
            prefix=hints.prefix,
            is_private=self._settings.swarm is not None,
            initial_peers=hints.initial_peers,
            models=[
                ModelToServe(
                    model_id=name,
                    source=source_of(one.offer),
                    weights=await self._weights_of(name, one.mesh),
                    last_week=work.get(name, NO_WORK),
                )
                for name, one in self._offered.items()
            ],
        )

    def bootstrap(self) -> BootstrapAnswer:
        """Where to begin. The peers of a private swarm are named to those who are invited, by their invitation."""
        found = self._settings
        peers = () if found.swarm is not None else found.public_peers or found.initial_peers
        return BootstrapAnswer(prefix=found.dht_prefix, initial_peers=list(peers))

    async def _weights_of(self, name: str, mesh: MeshLike) -> list[WeightSizes]:
        if name not in self._weights:  # they never change
            self._weights[name] = await asyncio.to_thread(_weights, mesh)
        return self._weights[name]

    async def _read_work(self) -> dict[str, WeekOfWork]:
        async with self._database.reading() as connection:
            return await work_since(connection, now() - WEEK)


def source_of(offer: ModelOffer) -> str | None:
    """What others can get the model by; a path of this machine is nobody else's business."""
    return None if Path(offer.model).expanduser().exists() else offer.model


async def work_since(connection: AsyncConnection, since: datetime) -> dict[str, WeekOfWork]:
    """What was asked of each model since then, and what nodes earned by it."""
    asked = inference_sessions.c
    query = (
        select(
            asked.model_id,
            func.count(),
            _sum(asked.prompt_tokens + asked.token_count),
            _sum(func.coalesce(asked.total_cost_units, 0) - func.coalesce(asked.fee_units, 0)),
            func.min(asked.completed_at),
        )
        .where(asked.status == Status.COMPLETED.value, asked.completed_at >= since)
        .group_by(asked.model_id)
    )
    return {
        model_id: WeekOfWork(requests=requests, tokens=tokens, node_units=units, since=first)
        for model_id, requests, tokens, units, first in await connection.execute(query)
    }


def _sum(column: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def _weights(mesh: MeshLike) -> list[WeightSizes]:
    return [
        WeightSizes(device=device, quantization=kind, block_bytes=list(mesh.block_bytes(kind, device)))
        for device in DEVICES
        for kind in KINDS
    ]


router = APIRouter(tags=["nodes"])


async def join_service(request: Request) -> JoinService:
    """The service, made by the app."""
    service: JoinService = request.app.state.rooms.join
    return service


Service = Annotated[JoinService, Depends(join_service)]


@router.get("/api/provider/join", dependencies=[PerAddress], responses=errors(503))
async def join(service: Service) -> JoinAnswer:
    """How to serve here: where the swarm is, how much memory the models take, what they paid nodes in the last week.
    Needs no token."""
    return await service.answer()


@router.get("/bootstrap", dependencies=[PerAddress])
async def bootstrap(service: Service) -> BootstrapAnswer:
    """Where nodes find the swarm: `far-node start --discovery` asks for this. Needs no token."""
    return service.bootstrap()
