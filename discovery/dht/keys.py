"""Under which DHT keys an announcement stands: the model it serves, the node itself, and all nodes.

``prefix`` separates swarms that share bootstrap peers; a private swarm has one of its own.
"""

from __future__ import annotations

from discovery.protocol.announcement import Announcement

DEFAULT_PREFIX = "far"


def model_key(prefix: str, model_digest: str) -> str:
    """Key of all nodes that serve blocks of a model."""
    return f"{prefix}/1/model/{model_digest}"


def node_key(prefix: str, peer_id: str) -> str:
    """Key of one node."""
    return f"{prefix}/1/node/{peer_id}"


def all_nodes_key(prefix: str) -> str:
    """Key of every node of the swarm."""
    return f"{prefix}/1/nodes"


def keys_of(prefix: str, announcement: Announcement) -> tuple[str, ...]:
    """The keys an announcement is stored under, and the only ones it is accepted under."""
    return (
        model_key(prefix, announcement.model_digest),
        node_key(prefix, announcement.peer_id),
        all_nodes_key(prefix),
    )
