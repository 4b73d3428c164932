"""From "this model, that many positions" to an open session: look, plan, open, and try another way when nodes fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discovery.dht.identity import Identity, discard_identity, ephemeral_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from discovery.protocol.announcement import Dtype, SignedAnnouncement
from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh.config import MeshConfig, Treatment
from far_mesh.route import RouteHop, plan_route
from far_mesh.session import MeshSession, SessionRequest
from far_mesh.swarm_view import SwarmView


class Swarm:
    """Our place in the swarm as a client: one p2p daemon and DHT node, shared by all models."""

    def __init__(self, peer: SwarmPeer, identity: Identity, config: MeshConfig) -> None:
        self.peer, self.config = peer, config
        self._identity = identity

    @classmethod
    async def join(cls, initial_peers: Sequence[str], config: MeshConfig | None = None) -> Swarm:
        """Join through bootstrap peers, under a throw-away identity.

        Raises:
            InvalidArgument: no peers, or not multiaddrs.
            PeerUnavailable: none of them answers.
        """
        if not initial_peers:
            raise InvalidArgument("the address of a swarm peer is needed (--initial-peers)")
        config = config or MeshConfig()
        identity = ephemeral_identity()
        peer_config = PeerConfig(initial_peers=tuple(initial_peers), prefix=config.prefix, is_client=True)
        try:
            peer = await SwarmPeer.start(identity, peer_config)
        except BaseException:
            discard_identity(identity)
            raise
        return cls(peer, identity, config)

    async def close(self) -> None:
        """Leave."""
        await self.peer.close()
        discard_identity(self._identity)


@dataclass(frozen=True)
class ModelFacts:
    """What routing needs to know of a model; ``context_length`` in tokens."""

    id: str
    digest: str
    block_count: int
    context_length: int


class SessionOpener:
    """Opens sessions of one model on a swarm."""

    def __init__(self, swarm: Swarm, model: ModelFacts) -> None:
        self._swarm, self._model = swarm, model
        self._view = SwarmView(swarm.peer.board, model.digest, swarm.config.view_age)

    async def nodes(self) -> list[SignedAnnouncement]:
        """Live announcements of the nodes that serve the model."""
        return await self._view.nodes()

    async def open(
        self,
        max_length: int,
        *,
        rows: int = 1,
        price_units: int = 0,
        left_padding: tuple[int, ...] = (),
        treatment: Treatment = Treatment(),  # noqa: B008  # a frozen value
    ) -> MeshSession:
        """Open a session of ``rows`` × ``max_length`` positions.

        Raises:
            NoRoute: some blocks have no live node.
            FarError: what the last node that failed said, after all attempts.
        """
        config, excluded = self._swarm.config, set[str]()
        failure: FarError | None = None
        for attempt in range(config.open_attempts):
            try:
                route = await self._plan(excluded, fresh=attempt > 0)
                request = SessionRequest(
                    self._model.digest, max_length, _codec_for(route), rows, price_units, left_padding, treatment
                )
                return await self._open_on(route, request)
            except FarError as error:
                if not error.retry:
                    raise
                failure = failure or error  # a refusal says more than the gap it leaves
                excluded.add(str(error.facts.get("peer_id")))
        assert failure is not None
        raise failure

    async def _plan(self, excluded: set[str], *, fresh: bool) -> tuple[RouteHop, ...]:
        nodes = [signed.announcement for signed in await self._view.nodes(fresh=fresh)]
        return plan_route(nodes, self._model.block_count, excluded)

    async def _open_on(self, route: tuple[RouteHop, ...], request: SessionRequest) -> MeshSession:
        session = MeshSession(route, request, self._swarm.config)
        await session.open(self._swarm.peer.transport)
        return session


def _codec_for(route: tuple[RouteHop, ...]) -> Dtype:
    """The nodes' own type when they agree, so that nothing is lost or padded on the wire; else float32."""
    kinds: set[Dtype] = {hop.node.dtype for hop in route}
    return kinds.pop() if len(kinds) == 1 else "float32"
