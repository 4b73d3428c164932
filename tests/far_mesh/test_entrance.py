"""The way into a swarm, as options and settings describe it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.membership import Membership, found_swarm, invite
from far_mesh.entrance import Entrance
from tests.support.documents import peer_of

PEER = f"/ip4/198.51.100.4/tcp/31337/p2p/{peer_of('bootstrap')}"
OTHER = PEER.replace("31337", "31330")


def invited(*initial_peers: str) -> Membership:
    key = Ed25519PrivateKey.generate()
    charter = found_swarm("acme", key, initial_peers)
    return Membership(charter, invite(charter, key, "client", 60))


async def test_an_open_swarm_is_joined_through_who_was_named() -> None:
    entrance = Entrance.of([PEER], None, "acme")
    assert (await entrance.peers(), entrance.prefix, entrance.membership) == ((PEER,), "acme", None)


async def test_a_private_swarm_has_its_own_name_and_peers() -> None:
    membership = invited(PEER)
    entrance = Entrance.of([], None, "far", membership)
    assert await entrance.peers() == (PEER,)
    assert entrance.prefix == membership.charter.swarm
    assert entrance.membership is membership
    assert await Entrance.of([OTHER], None, "far", membership).peers() == (OTHER,)


@pytest.mark.parametrize("membership", [None, invited()], ids=["open", "private"])
def test_nobody_to_join_through_is_said_before_anything_is_tried(membership: Membership | None) -> None:
    with pytest.raises(InvalidArgument, match="nobody is named"):
        Entrance.of([], None, "far", membership)
    assert Entrance.of([], "http://127.0.0.1:9", "far", membership).known == ()
