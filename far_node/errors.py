"""What a node refuses, and why."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class Busy(FarError):
    """The node has no room now; ``retry_after`` says when to ask again."""

    code = "busy"
    retry = True
    status = 429


class OutOfCache(FarError):
    """The attention cache has no room for the session now; ``retry_after`` says when to ask again."""

    code = "out_of_cache"
    retry = True
    status = 503


class Leaving(FarError):
    """The node lets its sessions end and takes no new ones. Another node may."""

    code = "node_leaving"
    retry = True
    status = 503


class SessionExpired(FarError):
    """Nothing came for so long that the node gave the session's cache to others. Opening a new one may succeed."""

    code = "session_expired"
    retry = True
    status = 410


class BlocksNotServed(FarError):
    """The node does not serve these blocks of this model. A fresh route may find who does."""

    code = "blocks_not_served"
    retry = True
    status = 503


class PriceTooLow(FarError):
    """Less is offered than the node asks for. A fresh route may find one that is content with it."""

    code = "price_too_low"
    retry = True
    status = 402


class SessionUnknown(FarError):
    """No such session here, or not with this peer."""

    code = "session_unknown"
    status = 404


class SessionTooLong(FarError):
    """A step beyond the length the session was opened with."""

    code = "session_too_long"
    status = 400


class BadPosition(FarError):
    """A step that starts where the cache cannot continue from."""

    code = "bad_position"
    status = 400


class ComputeFailed(FarError):
    """The node's own computation broke. That is a bug or a broken device, so the same step is not tried again."""

    code = "compute_failed"
    status = 502


class ModelNotFound(FarError):
    """No such directory and no such model on the hub."""

    code = "model_unavailable"
    status = 404


class ModelUnsupported(FarError):
    """The architecture cannot be cut, or not in this way."""

    code = "model_unsupported"
    status = 400


class UnsafeWeights(FarError):
    """Weights in a format that can execute code, or none in safetensors."""

    code = "unsafe_weights"
    status = 400


class DoesNotFit(FarError):
    """This machine has not the memory for what was asked. ``facts`` say how much is needed and free."""

    code = "does_not_fit"
    status = 507
