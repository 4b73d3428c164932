"""What can go wrong with nodes, as members of the one error family.

FarError
├─ NodeUnknown                                                   404
└─ ProofStale · AnnouncedForAnother · TooManyNodes               409
"""

from __future__ import annotations

from discovery.protocol.errors import FarError


class NodeUnknown(FarError):
    """No such node is announced, and none is registered."""

    code = "node_not_found"
    status = 404


class ProofStale(FarError):
    """What a node has signed is too old, from the future, or not newer than what was signed before."""

    code = "proof_stale"
    status = 409


class AnnouncedForAnother(FarError):
    """The swarm hears from the node itself that it earns for another wallet."""

    code = "announced_for_another_wallet"
    status = 409


class TooManyNodes(FarError):
    """A wallet has as many registered nodes as it may have."""

    code = "too_many_nodes"
    status = 409
