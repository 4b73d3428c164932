"""Under which DHT keys an announcement stands: the model it serves, the node itself, and all nodes.

``prefix`` separates swarms that share bootstrap peers; a private swarm has one of its own. What many nodes share is
divided among :data:`SHARDS` keys by the hash of the peer id: a DHT peer tells all that stands under a key in one
message, of 4 MiB at most and within three seconds, and an announcement takes a kilobyte or two.
"""

from __future__ import annotations

from hashlib import sha256

from discovery.protocol.announcement import DEFAULT_SWARM, Announcement

DEFAULT_PREFIX = DEFAULT_SWARM
ON_CALL = "on-call/"
SHARDS = tuple("0123456789abcdef")


def shard_of(peer_id: str) -> str:
    """The shard that a node's announcements are in."""
    return sha256(peer_id.encode()).hexdigest()[0]


def model_key(prefix: str, model_digest: str, peer_id: str) -> str:
    """Key of the nodes of a shard that serve blocks of a model: that of ``peer_id``."""
    return f"{prefix}/1/model/{model_digest}/{shard_of(peer_id)}"


def model_keys(prefix: str, model_digest: str) -> list[str]:
    """Keys of all nodes that serve blocks of a model."""
    return [f"{prefix}/1/model/{model_digest}/{shard}" for shard in SHARDS]


def node_key(prefix: str, peer_id: str) -> str:
    """Key of one node."""
    return f"{prefix}/1/node/{peer_id}"


def all_nodes_key(prefix: str, peer_id: str) -> str:
    """Key of every node of a shard: that of ``peer_id``."""
    return f"{prefix}/1/nodes/{shard_of(peer_id)}"


def all_nodes_keys(prefix: str) -> list[str]:
    """Keys of every node of the swarm."""
    return [f"{prefix}/1/nodes/{shard}" for shard in SHARDS]


def on_call_key(prefix: str, model_digest: str) -> str:
    """Key of the registrations of nodes that serve a model once they are woken."""
    return f"{prefix}/1/on-call/{model_digest}"


def on_call_name(peer_id: str) -> str:
    """The subkey of a node's registration, by which it is told from an announcement."""
    return f"{ON_CALL}{peer_id}"


def places_of(prefix: str, announcement: Announcement) -> dict[str, str]:
    """The keys an announcement is stored under, each with its subkey, and the only places it is accepted at: none in a
    swarm that it is not meant for.

    A node that serves several models has an announcement for each, so where they meet the subkey names the model too.
    """
    if announcement.swarm != prefix:
        return {}
    peer_id, model_digest = announcement.peer_id, announcement.model_digest
    return {
        model_key(prefix, model_digest, peer_id): peer_id,
        node_key(prefix, peer_id): f"{peer_id}/{model_digest}",
        all_nodes_key(prefix, peer_id): f"{peer_id}/{model_digest}",
    }
