"""The way into a swarm that a command was told: whom to join through, of which swarm, and with which invitation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discovery import hints
from discovery.dht.keys import DEFAULT_PREFIX
from discovery.inquiry import check_address
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.membership import Membership, initial_peers_of


@dataclass(frozen=True)
class Entrance:
    """Where a swarm is joined.

    Attributes:
        known: multiaddrs of peers, as they were given or as the charter of a private swarm names them.
        discovery: address of a discovery service that names more of them.
        prefix: DHT prefix of the swarm; a private swarm's own name.
    """

    known: tuple[str, ...]
    discovery: str | None = None
    prefix: str = DEFAULT_PREFIX
    membership: Membership | None = None

    @classmethod
    def of(
        cls,
        initial_peers: Sequence[str],
        discovery: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        membership: Membership | None = None,
    ) -> Entrance:
        """The way that these describe. Nothing is asked of any network.

        Args:
            membership: the private swarm that is meant; its name comes before ``prefix``, and the peers that its
                charter names are those to join through where ``initial_peers`` names none.

        Raises:
            InvalidArgument: there is nobody to join through, or ``discovery`` is no address.
        """
        known = tuple(initial_peers) or initial_peers_of(membership)
        if discovery is not None:
            check_address(discovery)
        elif not known:
            raise InvalidArgument(
                "nobody is named to join the swarm through: --initial-peers with the address of a peer, --discovery "
                "with that of a discovery service, or --swarm with a file that names peers",
                param="initial_peers",
            )
        return cls(known, discovery, prefix if membership is None else membership.charter.swarm, membership)

    async def peers(self) -> tuple[str, ...]:
        """Whom to join through; the discovery service is asked, if there is one.

        Raises:
            PeerUnavailable: only the service could have said whom, and it does not.
        """
        return await hints.peers_to_join(self.known, self.discovery)
