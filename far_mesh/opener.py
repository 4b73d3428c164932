"""From "this model, that many positions" to an open session: look, plan, open, and try another way when nodes fail."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from discovery import tracing
from discovery.dht.identity import Identity, discard_identity, ephemeral_identity
from discovery.dht.peer import LOCAL_MADDR, PeerConfig, SwarmPeer
from discovery.dht.ping import round_trip
from discovery.protocol.announcement import Announcement, Codec, SignedAnnouncement
from discovery.protocol.errors import DeadlineExceeded, FarError, InvalidArgument
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import PeerAddress
from discovery.protocol.oncall import Registration
from discovery.score import Outcome
from far_mesh.config import MeshConfig, Pool, Treatment
from far_mesh.costs import Known
from far_mesh.errors import NoRoute
from far_mesh.measure import PATIENCE_SECONDS, Measured
from far_mesh.mending import Shunned
from far_mesh.route import Explanation, RouteHop, explain, plan_route
from far_mesh.session import Ended, Mended, MeshSession, SessionRequest
from far_mesh.swarm_view import SwarmView
from far_node.errors import Busy, Leaving, OutOfCache

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from discovery.geoip import GeoDatabase
    from far_mesh.waking import Rouser

log = structlog.get_logger(__name__)

OnMended = Callable[[Mended], None]
_MOST_ASKED, _ANSWER_SECONDS = 8, 3.0
_ASK_AGAIN_SECONDS = 6.0
"""At first, then ever later: libp2p does not dial an address again for 5 s after it failed, and longer each time."""
_TRY_AGAIN_SECONDS = 0.5
_TELL_AGAIN_SECONDS = 2.0
_REFUSALS = (Busy, Leaving, OutOfCache)
"""Who says so is full or on its way out, and not unreliable."""


class Swarm:
    """Our place in the swarm as a client: one p2p daemon and DHT node, shared by all models."""

    def __init__(
        self, peer: SwarmPeer, identity: Identity, config: MeshConfig, geoip: GeoDatabase | None = None
    ) -> None:
        self.peer, self.config, self.measured = peer, config, Measured(peer.transport)
        self._identity, self._geoip = identity, geoip
        self._errands: set[asyncio.Task[None]] = set()
        if geoip is not None:
            self.run_errand(geoip.keep_fresh())

    @classmethod
    async def join(cls, initial_peers: Sequence[str], config: MeshConfig | None = None) -> Swarm:
        """Join through bootstrap peers, under a throw-away identity.

        Raises:
            InvalidArgument: no peers, or not multiaddrs; or ``geoip_db`` is no city database.
            PeerUnavailable: none of them answers.
        """
        if not initial_peers:
            raise InvalidArgument("the address of a swarm peer is needed (--initial-peers)")
        config = config or MeshConfig()
        geoip = None if config.geoip_db is None else await asyncio.to_thread(_geo_database, config.geoip_db)
        identity = ephemeral_identity()
        peer_config = PeerConfig(
            initial_peers=tuple(initial_peers),
            host_maddrs=config.host_maddrs or (LOCAL_MADDR,),
            prefix=config.prefix,
            is_client=True,
            punches_holes=bool(config.host_maddrs),
            membership=config.membership,
        )
        try:
            peer = await SwarmPeer.start(identity, peer_config)
        except BaseException:
            discard_identity(identity)
            raise
        return cls(peer, identity, config, geoip)

    @property
    def key(self) -> Ed25519PrivateKey:
        """Ours in the swarm."""
        return self._identity.key

    def known(self, nodes: Sequence[Announcement]) -> Known:
        """What we know by ourselves, to plan a route through some of these nodes with."""
        points = {} if self._geoip is None else {node.peer_id: self._geoip.point_of(node.maddrs) for node in nodes}
        return replace(
            self.measured.known(nodes),
            points={peer_id: point for peer_id, point in points.items() if point is not None},
            location=self.config.location,
        )

    def run_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, until it is done or we leave."""
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def close(self) -> None:
        """Leave."""
        for errand in self._errands:
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        await self.measured.close()
        await self.peer.close()
        discard_identity(self._identity)


def _geo_database(path: Path) -> GeoDatabase:
    from discovery.geoip import GeoDatabase  # for the few who have one

    return GeoDatabase(path)


@dataclass(frozen=True)
class ModelFacts:
    """What routing needs to know of a model; ``context_length`` in tokens.

    ``local``: so many blocks at the beginning and at the end are the client's own, and no route covers them.
    ``divides``: whether a prompt is the same in parts.
    """

    id: str
    digest: str
    block_count: int
    context_length: int
    local: tuple[int, int] = (0, 0)
    divides: bool = True

    @property
    def span(self) -> tuple[int, int]:
        """The blocks ``[first, end)`` that a route covers."""
        first, last = self.local
        return first, self.block_count - last


class SessionOpener:
    """Opens sessions of one model on a swarm."""

    def __init__(self, swarm: Swarm, model: ModelFacts) -> None:
        self._swarm, self._model = swarm, model
        self._view = SwarmView(swarm.peer.board, model.digest, swarm.config.view_age)
        self._asked = Shunned(_ASK_AGAIN_SECONDS)
        self._rouser: Rouser | None = None

    async def nodes(self) -> list[SignedAnnouncement]:
        """Live announcements of the nodes that serve the model."""
        return await self._view.nodes()

    async def present(self) -> list[SignedAnnouncement]:
        """Those of them that did not break off here, or were heard of since. The others are asked now and then."""
        nodes = await self._view.nodes()
        self._ask_who_is_back()
        there = {node.peer_id for node in self._view.present([signed.announcement for signed in nodes])}
        return [signed for signed in nodes if signed.announcement.peer_id in there]

    async def on_call(self) -> list[Registration]:
        """Who could be woken, but for those who did not come lately."""
        if not self._swarm.config.wake_timeout:
            return []
        registered = await self._swarm.peer.board.on_call(self._model.digest)
        if not registered:
            return []
        self._rouser = self._rouser or self._new_rouser()
        return self._rouser.willing(registered)

    async def explain(self, patience: float = PATIENCE_SECONDS) -> Explanation:
        """The route that a session which offers enough would be opened on now, and why no other.

        Args:
            patience: seconds that nodes get to be measured in.

        Raises:
            NoRoute: there is none.
        """
        nodes, config = await self._look(fresh=False, patience=patience), self._swarm.config
        return explain(
            nodes,
            self._model.block_count,
            span=self._model.span,
            preference=config.preference,
            known=self._swarm.known(nodes),
        )

    async def open(
        self,
        max_length: int,
        *,
        rows: int = 1,
        price_units: int = 0,
        left_padding: tuple[int, ...] = (),
        treatment: Treatment = Treatment(),  # noqa: B008  # a frozen value
        pool: Pool | None = None,
        on_mended: OnMended | None = None,
    ) -> MeshSession:
        """Open a session of ``rows`` × ``max_length`` positions. With a ``pool`` it runs on nodes of it alone, whoever
        is lost on the way. ``on_mended`` is told when nodes of it are replaced.

        Raises:
            NoRoute: some blocks have no live node.
            FarError: what the last node that failed said, after all attempts.
        """

        def request(codec: Codec) -> SessionRequest:
            return SessionRequest(
                self._model.digest,
                max_length,
                codec,
                rows,
                price_units,
                left_padding,
                treatment,
                self._model.divides,
            )

        with tracing.span("discovery", {"far.model_id": self._model.id}) as look:
            session = await self._open_somewhere(request, price_units, pool, on_mended)
            look.set({"far.nodes": len(session.route)})
        return session

    async def _open_somewhere(
        self,
        request: Callable[[Codec], SessionRequest],
        offered: int,
        pool: Pool | None,
        on_mended: OnMended | None,
    ) -> MeshSession:
        config, excluded = self._swarm.config, set[str]()
        failure: FarError | None = None
        looked_again, started = False, time.monotonic()
        for _ in range(config.open_attempts):
            try:
                route = await self._plan(excluded, offered, pool, fresh=looked_again)
                return await self._open_on(route, request(_codec_for(route)), pool, on_mended)
            except FarError as error:
                if not error.retry:
                    raise
                failure = failure or error  # a refusal says more than the gap it leaves
                if isinstance(error, NoRoute):  # of those known; to look again takes seconds where peers are lost
                    if looked_again:
                        if await self._wake(error, excluded, offered, pool, on_mended):
                            continue
                        if not excluded or time.monotonic() - started > config.open_timeout:
                            break
                        excluded.clear()  # who could not be reached a moment ago may be back
                        await asyncio.sleep(_TRY_AGAIN_SECONDS)
                    looked_again = True
                    continue
                failed = error.facts.get("failed") or [str(error.facts.get("peer_id"))]
                excluded.update(failed)
                if not isinstance(error, _REFUSALS):
                    is_late = isinstance(error, DeadlineExceeded)
                    self._swarm.measured.failed(failed, Outcome.TIMED_OUT if is_late else Outcome.FAILED)
                    self._view.gone(failed)
        assert failure is not None
        raise failure

    async def _plan(
        self, excluded: Collection[str], offered: int, pool: Pool | None, *, fresh: bool
    ) -> tuple[RouteHop, ...]:
        nodes, config = await self._look(fresh=fresh), self._swarm.config
        plan = partial(
            plan_route,
            block_count=self._model.block_count,
            excluded=excluded,
            span=self._model.span,
            preference=config.preference,
            known=self._swarm.known(nodes),
            offered=offered,
            pool=pool,
        )
        try:
            return plan(self._view.present(nodes))
        except NoRoute:
            if not fresh:
                raise
            return plan(nodes)

    async def _wake(
        self,
        failure: NoRoute,
        excluded: set[str],
        offered: int,
        pool: Pool | None,
        on_mended: OnMended | None,
    ) -> bool:
        """Wake the nodes without which there is no route. Whether that was tried, so that it is worth to look again."""
        config = self._swarm.config
        here = self._view.present([node.announcement for node in self._view.known()])
        awake = {node.peer_id for node in here if node.state == "ready"}
        sleepers = {about.peer_id: about for about in await self.on_call() if about.peer_id not in awake}
        if not sleepers or self._rouser is None:
            return False
        try:
            route = plan_route(
                [*(node for node in here if node.peer_id in awake), *sleepers.values()],
                self._model.block_count,
                excluded - sleepers.keys(),
                span=self._model.span,
                preference=config.preference,
                known=self._swarm.known(here),
                offered=offered,
                pool=pool,
            )
        except NoRoute:
            return False
        needed = [sleepers[hop.node.peer_id] for hop in route if hop.node.peer_id in sleepers]
        gaps = failure.facts.get("uncovered") or [self._model.span]
        started = time.monotonic()
        waking = asyncio.ensure_future(self._rouser.wake(needed))
        try:
            while not waking.done():
                if on_mended is not None:
                    on_mended(Mended((gaps[0][0], gaps[-1][1]), time.monotonic() - started, waiting_for=True))
                await asyncio.wait([waking], timeout=_TELL_AGAIN_SECONDS)
        finally:
            waking.cancel()
        excluded -= sleepers.keys()  # who comes up is another than who was lost
        return bool(needed)

    def _new_rouser(self) -> Rouser:
        from discovery.web.outbound import Outbound, Policy  # for the few who meet a node that sleeps
        from far_mesh.waking import Rouser

        swarm = self._swarm
        outbound = Outbound(swarm.config.wake_policy or Policy())
        return Rouser(swarm.key, outbound, self._look_afresh, swarm.config.wake_timeout, swarm.run_errand)

    async def _look_afresh(self) -> list[Announcement]:
        return [signed.announcement for signed in await self._view.nodes(fresh=True)]

    async def _look(self, *, fresh: bool, patience: float = PATIENCE_SECONDS) -> list[Announcement]:
        """Who is there, and how far away those are that could be first or last."""
        nodes = [signed.announcement for signed in await self._view.nodes(fresh=fresh)]
        self._ask_who_is_back()
        await self._swarm.measured.look(nodes, self._model.span, patience)
        return nodes

    def _ask_who_is_back(self) -> None:
        now, absent = time.monotonic(), self._view.absent()
        self._asked.forget_others({node.peer_id for node in absent})
        not_yet = self._asked.at(now)
        due = [node for node in absent if node.peer_id not in not_yet]
        for node in due[:_MOST_ASKED]:
            self._asked.add(node.peer_id, now)
            self._swarm.run_errand(self._ask_whether_back(node))

    async def _ask_whether_back(self, node: Announcement) -> None:
        address = PeerAddress(PeerId(node.peer_id), node.maddrs)
        try:
            await round_trip(self._swarm.peer.transport, address, node.model_digest, _ANSWER_SECONDS)
            self._view.back([node.peer_id])
        except FarError as error:
            log.debug("still_gone", peer=node.peer_id, code=error.code)

    async def _look_again(self) -> None:
        try:
            await self._view.nodes(fresh=True)
        except Exception as error:  # whatever the DHT has met: nobody waits for it
            log.warning("swarm_not_seen", reason=f"{type(error).__name__}: {error}")

    async def _open_on(
        self, route: tuple[RouteHop, ...], request: SessionRequest, pool: Pool | None, on_mended: OnMended | None
    ) -> MeshSession:
        measured, view = self._swarm.measured, self._view

        def take_note(mended: Mended) -> None:
            measured.failed(mended.lost, Outcome.PAUSED)
            if mended.replaced_by:
                measured.paused(mended.seconds)
            view.gone((*mended.lost, *mended.tried))
            measured.served(mended.replaced_by)
            view.back(mended.replaced_by)
            if on_mended is not None:
                on_mended(mended)

        def take_leave(ended: Ended) -> None:
            nodes = [hop.node for hop in ended.route]
            measured.ended(ended, self._swarm.known(nodes))
            measured.ask(nodes)

        find_others = partial(self._find_others, request.price_units, pool)
        session = MeshSession(route, request, self._swarm.config, find_others, take_note, take_leave)
        await session.open(self._swarm.peer.transport)
        peers = [hop.node.peer_id for hop in route]
        measured.served(peers)
        view.back(peers)
        return session

    async def _find_others(
        self,
        offered: int,
        pool: Pool | None,
        gone: Sequence[RouteHop],
        before: str | None,
        after: str | None,
        excluded: Collection[str],
    ) -> tuple[RouteHop, ...]:
        """A chain in the place of lost nodes: of those known already, for to look again takes seconds while lost peers
        are asked; of the same weights where there are, so that the text stays the same; and at the very last of those
        who were gone when they were last needed.
        """
        self._swarm.run_errand(self._look_again())  # in case this one fails as well
        kinds = {(hop.node.quantization, hop.node.dtype) for hop in gone}
        plan = partial(
            plan_route,
            block_count=self._model.block_count,
            excluded=excluded,
            span=(gone[0].first_block, gone[-1].end_block),
            before=before,
            after=after,
            preference=self._swarm.config.preference,
            offered=offered,
            pool=pool,
        )
        for is_last_look in (False, True):
            signed = await self._view.nodes(fresh=True) if is_last_look else self._view.known()
            nodes = [one.announcement for one in signed]
            present, known = self._view.present(nodes), self._swarm.known(nodes)
            for some in (present, nodes) if is_last_look else (present,):
                with contextlib.suppress(NoRoute):
                    return plan([node for node in some if (node.quantization, node.dtype) in kinds], known=known)
                with contextlib.suppress(NoRoute):
                    return plan(some, known=known)
        return plan(nodes, known=known)  # says why there is none


def _codec_for(route: tuple[RouteHop, ...]) -> Codec:
    """The nodes' own type when they agree, so that nothing is lost or padded on the wire; else float32."""
    kinds: set[Codec] = {hop.node.dtype for hop in route}
    return kinds.pop() if len(kinds) == 1 else "float32"
