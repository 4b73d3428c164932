"""What the owner of a node can ask of it while it runs, and what he is told."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Annotated, Any, TypeVar

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery import __version__
from discovery.placement import coverage
from discovery.protocol.errors import InvalidArgument
from far_node.config import ModelOptions
from far_node.control import Command, Tell
from far_node.departure import Departure
from far_node.hardware import memory_of
from far_node.node import Node, ServedModel

_LIBRARIES = ("torch", "transformers", "bitsandbytes", "hivemind")

Patience = Annotated[float, Field(ge=0, le=86_400)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Nothing(_Request):
    pass


class _Load(_Request):
    options: ModelOptions


class _Unload(_Request):
    model: str
    drain_timeout: Patience | None = None


class _Swap(_Unload):
    options: ModelOptions


class _Stop(_Request):
    drain_timeout: Patience | None = None


R = TypeVar("R", bound=_Request)


class OwnersCommands:
    """The commands of one node, by name."""

    def __init__(self, node: Node, departure: Departure) -> None:
        self._node, self._departure = node, departure
        self._started_at = time.monotonic()

    def by_name(self) -> dict[str, Command]:
        """As :class:`~far_node.control.ControlServer` takes them."""
        return {
            "status": _reads(_Nothing, self._status),
            "load": _reads(_Load, self._load),
            "unload": _reads(_Unload, self._unload),
            "swap": _reads(_Swap, self._swap),
            "stop": _reads(_Stop, self._stop),
            "spare": _reads(_Nothing, self._spare),
        }

    async def _status(self, request: _Nothing, tell: Tell) -> dict[str, Any]:
        return status_of(self._node, time.monotonic() - self._started_at)

    async def _load(self, request: _Load, tell: Tell) -> dict[str, Any]:
        return facts_of(await self._node.load(request.options, tell))

    async def _unload(self, request: _Unload, tell: Tell) -> dict[str, Any]:
        model = self._node.find_model(request.model)
        tell("leaving", model_id=model.about.model_id, sessions=self._sessions_of(model))
        return {"drained": await self._node.unload(request.model, self._patience(request))}

    async def _swap(self, request: _Swap, tell: Tell) -> dict[str, Any]:
        patience = self._patience(request)
        model, drained = await self._node.swap(request.model, request.options, patience, tell)
        return facts_of(model) | {"drained": drained}

    async def _stop(self, request: _Stop, tell: Tell) -> dict[str, Any]:
        tell("leaving", sessions=self._node.handler.open_sessions)
        self._departure.ask(request.drain_timeout)
        drained = await self._departure.drained()
        done = {"drained": drained, "token_layers_served": self._node.token_layers_served}
        return done | {"asked": self._departure.asked}

    async def _spare(self, request: _Nothing, tell: Tell) -> dict[str, Any]:
        """What the swarm would miss if the node left now: its sessions, and blocks that nobody else serves."""
        alone = {model.about.model_id: await self._alone_with(model) for model in self._node.models}
        missed = {model_id: blocks for model_id, blocks in alone.items() if blocks}
        return {"open_sessions": self._node.handler.open_sessions, "alone": missed}

    async def _alone_with(self, model: ServedModel) -> int:
        """How many of its blocks of a model no other node serves."""
        about = model.about
        nodes = await self._node.nodes_of(about.model_digest)
        return coverage(nodes, about.block_count, self._node.peer_id)[slice(*about.blocks)].count(0)

    def _patience(self, request: _Unload) -> float:
        asked = request.drain_timeout
        return self._node.config.drain_timeout if asked is None else asked

    def _sessions_of(self, model: ServedModel) -> int:
        return self._node.handler.info(model.about.model_digest).open_sessions


def facts_of(model: ServedModel) -> dict[str, Any]:
    """What is told when a model is ready."""
    about, serving = model.about, model.serving
    return {
        "model_id": about.model_id,
        "model_digest": about.model_digest,
        "blocks": about.blocks,
        "block_count": about.block_count,
        "quantization": about.quantization,
        "dtype": about.dtype,
        "parameter_bytes": serving.blocks.parameter_bytes(),
        "cache_budget_bytes": serving.budget.capacity_bytes,
        "expected_sessions": model.expected_sessions,
        "expected_session_length": model.usual_session,
    }


def status_of(node: Node, uptime: float) -> dict[str, Any]:
    """Everything a person or a program wants to know of a node; sizes in bytes, times in seconds."""
    memory = memory_of(node.device)
    infos = [node.handler.info(model.about.model_digest) for model in node.models]
    load = node.load_now
    return {
        "state": node.state,
        "peer_id": node.peer_id,
        "wallet": node.config.wallet,
        "price_units": node.config.price_units,
        "addresses": node.maddrs,
        "relays": node.relays,
        "reached": asdict(node.reach),
        "host_maddrs": node.config.host_maddrs,
        "discovery": node.config.discovery,
        "versions": {"far-mesh": __version__, "python": platform.python_version(), **_versions()},
        "device": node.device,
        "uptime_seconds": int(uptime),
        "memory_free_bytes": memory.free_bytes,
        "memory_total_bytes": memory.total_bytes,
        "resident_bytes": psutil.Process().memory_info().rss,
        "open_sessions": node.handler.open_sessions,
        "token_layers_served": node.token_layers_served,
        "queued_steps": load.queued,
        "batch_rows": load.batch_rows,
        "decode_tokens_per_second": load.decode_rows_per_second,
        "prefill_tokens_per_second": load.prefill_positions_per_second,
        "limits": asdict(node.config.limits),
        "models": [
            facts_of(model)
            | {
                "state": info.state,
                "parameter_count": info.parameter_count,
                "cache_used_bytes": info.cache_used_bytes,
                "cache_free_bytes": info.cache_budget_bytes - info.cache_used_bytes,
                "open_sessions": info.open_sessions,
                "context_length": info.context_length or None,
                "batched": not info.one_by_one,
                "prefix_hits": info.prefix_hits,
                "prefix_bytes": info.prefix_bytes,
            }
            for model, info in zip(node.models, infos, strict=True)
        ],
    }


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def _reads(kind: type[R], answer: Callable[[R, Tell], Awaitable[dict[str, Any]]]) -> Command:
    async def command(arguments: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        try:
            request = kind.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InvalidArgument(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
        return await answer(request, tell)

    return command
