"""Settings of the client half, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.dht.keys import DEFAULT_PREFIX
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.messages import MAX_SCOPE_BYTES, Priority


@dataclass(frozen=True)
class MeshConfig:
    """Times are in seconds.

    ``step_timeout`` bounds one step round the ring, ``open_timeout`` the opening of a session, ``close_timeout`` the
    wait for last receipts; ``open_attempts`` is how many routes are tried before giving up, and ``view_age`` how old
    a picture of the swarm may be when a route is planned on it.
    """

    prefix: str = DEFAULT_PREFIX
    step_timeout: float = 60.0
    open_timeout: float = 15.0
    close_timeout: float = 5.0
    open_attempts: int = 3
    view_age: float = 5.0

    def __post_init__(self) -> None:
        if min(self.step_timeout, self.open_timeout, self.close_timeout) <= 0 or self.open_attempts < 1:
            raise InvalidArgument("timeouts must be positive and at least one attempt is needed")


@dataclass(frozen=True)
class Treatment:
    """How nodes are asked to treat a session.

    Attributes:
        priority: whose steps go first on a busy node.
        prefix_scope: up to 32 bytes; nodes reuse what they computed of a prompt in sessions with the same scope. Who
            asks for several users gives each a scope of its own, or a quick answer tells one what another has asked.
        share_prefix: reuse it in sessions of all clients who say the same, whatever their scope.
    """

    priority: Priority = Priority.NORMAL
    prefix_scope: bytes = b""
    share_prefix: bool = False

    def __post_init__(self) -> None:
        if len(self.prefix_scope) > MAX_SCOPE_BYTES:
            raise InvalidArgument(f"prefix_scope takes at most {MAX_SCOPE_BYTES} bytes", param="prefix_scope")


def parse_priority(name: str) -> Priority:
    """``high``, ``normal`` or ``low``.

    Raises:
        InvalidArgument: none of them.
    """
    try:
        return Priority[name.upper()]
    except KeyError:
        raise InvalidArgument(f"priority {name!r} is not one of high, normal, low", param="priority") from None


@dataclass(frozen=True)
class GenerationOptions:
    """How tokens are chosen and when to stop.

    ``temperature`` 0 is greedy. ``top_p`` keeps the smallest set of tokens whose probability reaches it (nucleus
    sampling, arXiv:1904.09751). The same ``seed`` gives the same text on the same weights. Text ends before the first
    ``stop`` string.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InvalidArgument(f"max_tokens must be at least 1, not {self.max_tokens}", param="max_tokens")
        if not 0.0 <= self.temperature <= 2.0:
            raise InvalidArgument(f"temperature must be from 0 to 2, not {self.temperature}", param="temperature")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidArgument(f"top_p must be above 0 and at most 1, not {self.top_p}", param="top_p")
        if len(self.stop) > 16 or not all(0 < len(word) <= 256 for word in self.stop):
            raise InvalidArgument("stop takes up to 16 strings of 1 to 256 characters", param="stop")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise InvalidArgument("seed must fit in 64 bits", param="seed")
