"""Limits as they are told: in headers and in refusals. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from discovery.web.windows import Standing

_MINUTE_MS = 60_000


@dataclass(frozen=True)
class PerMinute:
    """Limits that are the same for everybody; 0 is none.

    Attributes:
        public: requests of an address to routes that need no credential.
        sign_ins: sign-in messages and sign-ins of an address.
        failures: sign-ins that fail, of an address, and as many credentials that are none.
        account: requests of an account that are no requests for inference.
    """

    public: int = 0
    sign_ins: int = 0
    failures: int = 0
    account: int = 0


@dataclass(frozen=True)
class Grant:
    """A request for inference that counts, as ``entry`` in ``windows``. ``requests`` is the one of them of which least
    is left: the account's, or that of its API key. None where there is no limit."""

    entry: str
    wallet: str
    windows: tuple[str, ...]
    requests: Standing | None
    tokens: Standing | None = None

    @property
    def headers(self) -> dict[str, str]:
        """For the answer."""
        return {**headers_of("requests", self.requests), **headers_of("tokens", self.tokens)}


def headers_of(what: str, standing: Standing | None) -> dict[str, str]:
    """How a limit stands, in the headers that clients of OpenAI know. ``reset``: when all of it can be taken again."""
    if standing is None:
        return {}
    return {
        f"x-ratelimit-limit-{what}": str(standing.limit),
        f"x-ratelimit-remaining-{what}": str(standing.remaining),
        f"x-ratelimit-reset-{what}": duration(standing.reset_us),
    }


def duration(microseconds: int) -> str:
    """``1m0s``, ``12.345s``, ``250ms``: never shorter than it is."""
    milliseconds = -(-microseconds // 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, _MINUTE_MS)
    seconds = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def tightest(standings: Iterable[Standing]) -> Standing | None:
    """The one of which least is left."""
    return min(standings, key=lambda standing: standing.remaining, default=None)
