"""What doors over HTTP refuse, whatever is behind them, and what keeps them from opening."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class InvalidSetting(FarError):
    """A setting is there and means nothing."""

    code = "invalid_setting"


class AddressInUse(FarError):
    """Another process listens on the port that was asked for."""

    code = "address_in_use"


class DatabaseUnavailable(FarError):
    """The database does not answer, or is too busy."""

    code = "database_unavailable"
    retry = True
    status = 503


class Unauthorized(FarError):
    """No bearer token, or one that is not ours, not valid any more, or not about anyone."""

    code = "unauthorized"
    status = 401


class BadSignature(Unauthorized):
    """The signature is not that of the wallet."""

    code = "bad_signature"


class NotFound(FarError):
    """No such path."""

    code = "not_found"
    status = 404


class MethodNotAllowed(FarError):
    """The path is right, the method is not."""

    code = "method_not_allowed"
    status = 405


class BodyTooLarge(FarError):
    """The request is longer than the limit."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(FarError):
    """The body is of a kind that is not read here: it must be JSON."""

    code = "unsupported_media_type"
    status = 415


class UnsupportedParameter(FarError):
    """A parameter that other servers know and this one does not; ignoring it would be a lie."""

    code = "unsupported_parameter"
    status = 400


class RateLimited(FarError):
    """Too many requests, or too many tokens, in the last minute."""

    code = "rate_limit_exceeded"
    retry = True
    status = 429


class RequestTimeout(FarError):
    """The body of a request did not come in time."""

    code = "request_timeout"
    retry = True
    status = 408


class ModelUnknown(FarError):
    """No such model is on sale here."""

    code = "model_not_found"
    status = 404


class NodeUnknown(FarError):
    """No such node is announced, and none is registered."""

    code = "node_not_found"
    status = 404


class ProofStale(FarError):
    """What a node has signed is too old, from the future, or not newer than what was signed before."""

    code = "proof_stale"
    status = 409


class UrlRefused(FarError):
    """A URL that may not be asked: not https, an odd port, or an address that is not public."""

    code = "url_refused"
    status = 400


class OutboundFailed(FarError):
    """A URL that was asked and did not answer. ``facts['reason']`` says how, in a word."""

    code = "outbound_failed"
    retry = True
    status = 502


class AnnouncedForAnother(FarError):
    """The swarm hears from the node itself that it earns for another wallet."""

    code = "announced_for_another_wallet"
    status = 409


class TooManyNodes(FarError):
    """A wallet has as many registered nodes as it may have."""

    code = "too_many_nodes"
    status = 409
