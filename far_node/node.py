"""A node from start to stop: its place in the swarm, the models it serves, and its door."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import torch

from discovery import __version__
from discovery.console import settle_memory
from discovery.dht.identity import Identity, load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer, bare_maddr
from discovery.dht.reach import Reach
from discovery.placement import choose, site_at
from discovery.protocol.announcement import LIFETIME_SECONDS, MAX_MADDRS, MAX_SESSIONS, Announcement
from discovery.protocol.errors import FarError, InvalidArgument, NotInvited
from discovery.protocol.ids import PeerId
from discovery.tracing import Tracing
from far_node.announcer import Announcer
from far_node.blocks.memory import return_freed_memory
from far_node.blocks.thread import ComputeThread
from far_node.capacity import Plan, Range, Room, room_on
from far_node.config import ModelOptions, NodeConfig
from far_node.errors import BlocksNotServed, Leaving
from far_node.executor import Executor, Load
from far_node.handler import NodeHandler
from far_node.hardware import find_device, limit_memory, memory_of
from far_node.links import LinkMeter, block_ms, load_facts
from far_node.loading import Found, Watch, fetch, find, load
from far_node.oncall import OnCall, when_idle
from far_node.receipts import Signer
from far_node.rewards.kept import ReceiptShelf
from far_node.serving import Serving

log = structlog.get_logger(__name__)

_USUAL_POSITIONS = 2048
_WHOLE_SESSIONS = 86_400.0
"""Seconds; longer than sessions last."""


def unwatched(event: str, **facts: Any) -> None:
    """For those who only want the result."""


@dataclass(frozen=True)
class ServedModel:
    """A model on this node: what was asked for, what is served of it, and its standing on the DHT."""

    found: Found
    serving: Serving
    announcer: Announcer
    links: LinkMeter

    @property
    def about(self) -> Announcement:
        """What is announced."""
        return self.serving.announcement

    @property
    def held_bytes(self) -> int:
        """Memory of its weights and of the cache in use."""
        serving = self.serving
        return serving.blocks.parameter_bytes() + serving.budget.used_bytes + serving.prefixes.used_bytes

    @property
    def usual_session(self) -> int:
        """Positions that sessions are expected to have, to say something of how many there can be."""
        return min(_USUAL_POSITIONS, self.serving.context_length or _USUAL_POSITIONS)

    @property
    def expected_sessions(self) -> int:
        """How many sessions of that length find room at once."""
        fitting = self.serving.budget.how_many(self.usual_session, self.about.blocks)
        return min(self.serving.limits.max_sessions, fitting)

    @property
    def sessions_of_one_client(self) -> int:
        """How many of these one client is told to expect: it asks for one at the least, and may be refused."""
        most = self.serving.limits.max_sessions_per_client
        return max(1, min(self.expected_sessions, most, MAX_SESSIONS))

    @property
    def promised_bytes(self) -> int:
        """Memory that its caches may still grow by."""
        budget, prefixes = self.serving.budget, self.serving.prefixes
        return budget.capacity_bytes - budget.used_bytes + prefixes.capacity_bytes - prefixes.used_bytes


class Node:
    """A running node: :meth:`join`, :meth:`begin`, and :meth:`stop` at the end."""

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        peer: SwarmPeer,
        loader: ComputeThread,
        first: Found,
        shelf: ReceiptShelf | None,
    ) -> None:
        self.config, self.device = config, first.device
        self._identity, self._peer, self._loader, self._first = identity, peer, loader, first
        self._executor = Executor(config.limits)
        self._tracing = Tracing.from_environment("far-node")
        keep = shelf.keep if shelf else None
        self.handler = NodeHandler(peer.transport, self._executor, config.limits, keep, self._tracing)
        self._models: dict[str, ServedModel] = {}
        self._changing = asyncio.Lock()
        self._heading: dict[str, Range] = {}
        self._on_call: dict[str, OnCall] = {}
        self._leaving = self._falls_asleep = False
        self.maddrs: tuple[str, ...] = ()

    @classmethod
    async def join(cls, config: NodeConfig) -> Node:
        """Find the model, see that it fits, and join the swarm. Nothing is served yet.

        Raises:
            FarError: whatever stands in the way, with what to do about it.
        """
        identity = load_identity(Path(config.identity))
        shelf = None if config.receipts is None else ReceiptShelf(config.receipts)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        device = find_device(config.device)
        limit_memory(device, config.gpu_memory_fraction)
        loader = ComputeThread("loader")  # not the device's: sessions go on while a model is loaded
        found = await loader.run(lambda: find(config.model, device))
        found.plan(_rooms(config, config.model, device))  # what can never fit is said before anybody is met
        peer = await SwarmPeer.start(identity, _peer_config(config))
        node = cls(config, identity, peer, loader, found, shelf)
        try:
            node.maddrs = await peer.maddrs()
            await node.handler.start()
        except BaseException:
            await node.stop()
            raise
        return node

    async def begin(self, watch: Watch = unwatched) -> ServedModel:
        """Load our blocks, compute a first step, announce: the node serves.

        Raises:
            FarError: whatever stands in the way; the node must be stopped.
        """
        async with self._change():
            return await self._serve(self._first, watch)

    @property
    def peer_id(self) -> PeerId:
        """Who we are in the swarm."""
        return self._identity.peer_id

    @property
    def relays(self) -> tuple[str, ...] | None:
        """Peer ids of the relays through which others reach us now; None where they reach us directly."""
        return self._peer.relays

    @property
    def reach(self) -> Reach:
        """How others get through to this node, and why."""
        return self._peer.reach

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """What is served, in the order it came."""
        return tuple(self._models.values())

    @property
    def token_layers_served(self) -> int:
        """Work of all sessions since the start."""
        return self.handler.token_layers_served

    @property
    def load_now(self) -> Load:
        """How busy the device is."""
        return self._executor.load()

    @property
    def state(self) -> str:
        """``loading`` until something is served, then ``ready``, and ``leaving`` at the end."""
        return "leaving" if self._leaving else "ready" if self._models else "loading"

    def find_model(self, name: str) -> ServedModel:
        """A model that is served, by its public name or its digest.

        Raises:
            BlocksNotServed: there is none.
        """
        for model in self.models:
            if name in (model.about.model_id, model.about.model_digest):
                return model
        served = ", ".join(model.about.model_id for model in self.models)
        raise BlocksNotServed(f"this node does not serve {name!r}; it serves {served or 'nothing'}")

    async def when_over(self) -> NotInvited | None:
        """Returns when this node has no more to do here: None when it falls asleep, as nobody has needed it for a
        while; otherwise why it was cast out of its private swarm."""
        ends: list[asyncio.Task[NotInvited | None]] = [asyncio.create_task(self._cast_out())]
        if self.config.idle_exit is not None:
            ends.append(asyncio.create_task(when_idle(lambda: self.handler.open_sessions, self.config.idle_exit)))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            why = done.pop().result()
            self._falls_asleep = why is None
            return why
        finally:
            for end in ends:
                end.cancel()

    async def _cast_out(self) -> NotInvited:
        """Returns when this node is no member of its private swarm any more: why. Never in a swarm open to all."""
        never: asyncio.Future[NotInvited] = asyncio.get_running_loop().create_future()
        return await (never if self._peer.gate is None else self._peer.gate.cast_out())

    async def load(self, options: ModelOptions, watch: Watch = unwatched) -> ServedModel:
        """Serve one more model. If that fails, everything is as it was.

        Raises:
            FarError: whatever stands in the way.
        """
        async with self._change():
            return await self._serve(await self._find(options), watch)

    async def unload(self, name: str, patience: float) -> bool:
        """Serve a model no longer, when its sessions have ended or ``patience`` seconds are over.

        Returns:
            Whether all its sessions ended by themselves.

        Raises:
            InvalidArgument: it is the only one.
        """
        async with self._change():
            model = self.find_model(name)
            if len(self._models) == 1:
                raise InvalidArgument(f"{model.about.model_id} is all this node serves; swap it, or stop the node")
            return await self._retire(model, patience)

    async def swap(
        self, name: str, options: ModelOptions, patience: float, watch: Watch = unwatched
    ) -> tuple[ServedModel, bool]:
        """Serve another model, or the same in another way, in the place of one that is served.

        It gets what it would get if the old one were not there. Where memory holds both, the new one is served before
        the old one goes. Otherwise the old one's sessions end first, and if the new one fails the old one comes back.

        Returns:
            The new model, and whether all sessions of the old one ended by themselves.

        Raises:
            FarError: whatever stands in the way.
        """
        async with self._change():
            return await self._replace(self.find_model(name), options, patience, watch)

    @property
    def roaming(self) -> tuple[str, ...]:
        """Digests of the models whose blocks this node chooses itself, and chooses again (``--auto-place``)."""
        return tuple(model.about.model_digest for model in self.models if model.about.auto_place)

    def sessions_of(self, model_digest: str) -> int:
        """How many sessions of a model are open."""
        return self.handler.info(model_digest).open_sessions

    async def nodes_of(self, model_digest: str) -> list[Announcement]:
        """What the swarm says of a model's nodes, this one among them."""
        return [signed.announcement for signed in await self._peer.board.nodes_of(model_digest)]

    async def set_out(self, model_digest: str, to: Range | None) -> None:
        """Say in the swarm that this node is about to serve other blocks of a model; None: that it is not."""
        if self._heading.get(model_digest) == to:
            return
        if to is None:
            del self._heading[model_digest]
        else:
            self._heading[model_digest] = to
        if model_digest in self._models:
            self._models[model_digest].announcer.renew_soon()

    async def go(self, model_digest: str, to: Range, watch: Watch = unwatched) -> None:
        """Serve as many other blocks of a model. Sessions that are open end first, however long they take.

        Raises:
            FarError: the blocks cannot be loaded, and the former ones are served again; or this node is leaving.
        """
        async with self._change():
            old = self.find_model(model_digest)
            about = old.about
            options = replace(
                old.found.options,
                model_id=about.model_id,
                num_blocks=to[1] - to[0],
                quantization=about.quantization,
                dtype=about.dtype,
            )
            await self._replace(old, options, _WHOLE_SESSIONS, watch, to)

    async def _replace(
        self, old: ServedModel, options: ModelOptions, patience: float, watch: Watch, to: Range | None = None
    ) -> tuple[ServedModel, bool]:
        """Serve something else in the place of a model; of equally long ranges ``to``, or where they lack most."""
        found = await self._find(options, instead_of=old)
        with found.held():
            plan = found.plan(self._rooms(options, instead_of=old))
            if to is not None:
                plan = replace(plan, candidates=(to,))
            blocks = await self._fetch(found, plan, watch)
            same = found.source.digest == old.about.model_digest
            if not same and found.fits(plan, self._rooms(options)):
                new = await self._bring_up(found, plan, blocks, watch)
                return new, await self._retire(old, patience)
            watch("making_room", model_id=old.about.model_id)
            ended = await self._retire(old, patience)
            try:
                return await self._bring_up(found, plan, blocks, watch), ended
            except FarError:
                await self._bring_back(old, watch)
                raise

    async def drain(self, patience: float) -> bool:
        """Say that we leave, take no new sessions, and let those that are open end.

        Returns:
            Whether all of them ended by themselves within ``patience`` seconds.
        """
        self._leaving = True
        return all(await asyncio.gather(*(self._empty(model, patience) for model in self.models)))

    async def stop(self) -> None:
        """Say goodbye on the DHT, close streams, end the daemon and the compute thread."""
        self._leaving = True
        await asyncio.gather(*(model.links.stop() for model in self.models))
        await asyncio.gather(*(model.announcer.stop() for model in self.models))
        await asyncio.gather(*(self._sign_off(digest) for digest in list(self._on_call)))
        await self.handler.close()
        await self._peer.close()
        await asyncio.to_thread(self._executor.close)
        await asyncio.to_thread(self._tracing.close)

    @contextlib.asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """One change of what is served at a time; what is not needed after it is given back."""
        async with self._changing:
            try:
                yield
            finally:
                asyncio.get_running_loop().call_soon(_give_memory_back)

    async def _find(self, options: ModelOptions, instead_of: ServedModel | None = None) -> Found:
        self._check_staying()
        found = await self._loader.run(lambda: find(options, self.device))
        there = self._models.get(found.source.digest)
        if there is not None and there is not instead_of:
            found.let_go()
            raise InvalidArgument(f"{there.about.model_id} is served here already; unload it first, or swap it")
        return found

    def _check_staying(self) -> None:
        if self._leaving:
            raise Leaving("this node is leaving, and serves nothing more")

    async def _serve(self, found: Found, watch: Watch) -> ServedModel:
        with found.held():
            plan = found.plan(self._rooms(found.options))
            return await self._bring_up(found, plan, await self._fetch(found, plan, watch), watch)

    async def _fetch(self, found: Found, plan: Plan, watch: Watch) -> Range:
        """Choose our blocks, and have them on this disk."""
        blocks = plan.candidates[0]
        if len(plan.candidates) > 1:
            nodes = await self.nodes_of(found.source.digest)
            others = [about for about in nodes if about.peer_id != self.peer_id]
            site = site_at(self.config.location, self.config.region)
            blocks = choose(plan.candidates, others, found.shape.block_count, site)
        watch(
            "loading",
            model_id=found.source.id,
            blocks=blocks,
            quantization=plan.quantization,
            bytes=found.bytes_of(plan.quantization, blocks),
            tight=plan.tight,
        )
        watch_there = _from_thread(watch)
        await self._loader.run(lambda: fetch(found, blocks, watch_there))
        return blocks

    async def _bring_up(self, found: Found, plan: Plan, blocks: Range, watch: Watch) -> ServedModel:
        """Load blocks that are on this disk, compute a first step, and tell the swarm."""
        watch_there = _from_thread(watch)
        loaded = await self._loader.run(lambda: load(found, plan, blocks, watch_there))
        each_ms = await self._executor.run(lambda: block_ms(loaded))
        announcement = self._announcement(found, plan, blocks, each_ms)
        serving = await Serving.prepare(
            announcement,
            loaded,
            Signer(self._identity.key, announcement),
            self._executor,
            cache_bytes=found.options.cache_bytes,
            context_length=found.options.context_length or found.shape.context_length,
            limits=self.config.limits,
        )
        self._check_staying()
        model = self._with_a_voice(found, serving)
        self.handler.add(serving)
        try:
            await model.announcer.start()
        except BaseException:
            self.handler.remove(announcement.model_digest)
            raise
        model.links.start()
        self._models[announcement.model_digest] = model
        if self.config.wake_url is not None:
            on_call = OnCall(self._peer.board, announcement, self._identity.key, self.config.wake_url)
            self._on_call[announcement.model_digest] = on_call
            await on_call.start()
        return model

    def _with_a_voice(self, found: Found, serving: Serving) -> ServedModel:
        """What measures its neighbours, and what tells the swarm of it."""
        about, board = serving.announcement, self._peer.board

        async def find_nodes() -> list[Announcement]:
            return [signed.announcement for signed in await board.nodes_of(about.model_digest)]

        def current() -> dict[str, Any]:
            heading = self._heading.get(about.model_digest)
            standing = {
                "links": links.links(),
                "sessions": model.sessions_of_one_client,
                "moving_to": None if heading == about.blocks else heading,
                "reached": self.reach.way,
            }
            return self._load_facts(about) | standing

        announcer = Announcer(board, about, self._identity.key, current)
        links = LinkMeter(self._peer.transport, about, find_nodes, announcer.renew_soon)
        model = ServedModel(found, serving, announcer, links)
        return model

    def _load_facts(self, about: Announcement) -> dict[str, Any]:
        limits, load = self.config.limits, self._executor.load()
        return load_facts(
            queued=load.queued,
            batch=limits.max_batch_size,
            pass_ms=(about.block_ms or 0.0) * (about.end_block - about.first_block),
            open_sessions=self.handler.open_sessions,
            max_sessions=limits.max_sessions,
        )

    async def _sign_off(self, model_digest: str) -> None:
        """Whoever looks for the model will call this node, if it only falls asleep, and otherwise no longer."""
        if model_digest in self._on_call:
            await self._on_call.pop(model_digest).stop(is_asleep=self._falls_asleep)

    async def _empty(self, model: ServedModel, patience: float) -> bool:
        await model.links.stop()
        draining = self.handler.drain(model.about.model_digest, patience)
        _, ended = await asyncio.gather(model.announcer.stop(), draining)
        return ended

    async def _retire(self, model: ServedModel, patience: float) -> bool:
        ended = await self._empty(model, patience)
        await self._sign_off(model.about.model_digest)
        self.handler.remove(model.about.model_digest)
        await model.serving.close()
        del self._models[model.about.model_digest]
        model.found.let_go()
        return ended

    async def _bring_back(self, old: ServedModel, watch: Watch) -> None:
        """What a swap took away, as it was; a node that could not move stays."""
        about = old.about
        options = replace(
            old.found.options,
            model_id=about.model_id,
            blocks=about.blocks,
            num_blocks=None,
            quantization=about.quantization,
            dtype=about.dtype,
        )
        try:
            await self._serve(await self._find(options), watch)
        except FarError as error:
            log.error("model_lost", model_id=about.model_id, code=error.code, reason=error.message)

    def _rooms(self, options: ModelOptions, instead_of: ServedModel | None = None) -> list[Room]:
        staying = [model for model in self.models if model is not instead_of]
        return _rooms(self.config, options, self.device, staying, instead_of.held_bytes if instead_of else 0)

    def _announcement(self, found: Found, plan: Plan, blocks: Range, each_ms: float) -> Announcement:
        now = int(time.time())
        return Announcement(
            peer_id=self._identity.peer_id,
            wallet=self.config.wallet,
            model_id=found.source.id,
            model_digest=found.source.digest,
            block_count=found.shape.block_count,
            first_block=blocks[0],
            end_block=blocks[1],
            quantization=plan.quantization,
            dtype=found.dtype,
            maddrs=tuple(bare_maddr(maddr) for maddr in self.maddrs[:MAX_MADDRS]),
            software=f"far-mesh/{__version__}",
            issued_at=now,
            expires_at=now + LIFETIME_SECONDS,
            price_units=self.config.price_units,
            block_ms=each_ms,
            region=self.config.region,
            location=self.config.location,
            auto_place=self.config.auto_place is not None and found.options.blocks is None,
            swarm=self.config.prefix,
            invitation=None if self._peer.gate is None else self._peer.gate.pass_text,
        )


def _from_thread(watch: Watch) -> Watch:
    """``watch``, to be called from another thread."""
    loop = asyncio.get_running_loop()

    def tell(event: str, **facts: Any) -> None:
        loop.call_soon_threadsafe(lambda: watch(event, **facts))

    return tell


def _rooms(
    config: NodeConfig,
    options: ModelOptions,
    device: str,
    staying: Sequence[ServedModel] = (),
    going_bytes: int = 0,
) -> list[Room]:
    """What weights may take of each device, beside the models that stay and when ``going_bytes`` are given back."""
    memory = memory_of(device)
    here = room_on(
        replace(memory, free_bytes=memory.free_bytes + going_bytes),
        reserve_bytes=config.reserve_bytes + sum(model.promised_bytes for model in staying),
        cache_bytes=options.cache_bytes + config.limits.prefix_cache_bytes,
        fraction=1.0 if device == "cpu" else config.gpu_memory_fraction,
        held_bytes=sum(model.held_bytes for model in staying),
    )
    if not options.cpu_offload:
        return [here]
    return [here, room_on(memory_of("cpu"), reserve_bytes=config.reserve_bytes, cache_bytes=0)]


def _give_memory_back() -> None:
    """What is loaded is frozen for the collector; a model that has gone must be seen by it once more."""
    gc.unfreeze()
    settle_memory()
    return_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _peer_config(config: NodeConfig) -> PeerConfig:
    return PeerConfig(
        initial_peers=config.initial_peers,
        host_maddrs=config.host_maddrs,
        announce_maddrs=config.public_maddrs,
        prefix=config.prefix,
        membership=config.membership,
        map_ports=config.map_ports,
        behind_nat=config.relay,
    )
