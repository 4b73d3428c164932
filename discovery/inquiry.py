"""Questions to a discovery service over HTTP: of a size that was agreed on and within a time, whatever it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from discovery.protocol.errors import InvalidArgument, PeerUnavailable

if TYPE_CHECKING:
    import httpx

PATIENCE_SECONDS = 10.0


def check_address(url: str) -> str:
    """The address of a discovery service, without a slash at its end.

    Raises:
        InvalidArgument: it is no http(s) URL of a host.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InvalidArgument("--discovery is not the address of a service, such as https://discovery.far.example")
    return url.rstrip("/")


class Inquiry:
    """Asks one service, as long as it is open (``async with``). ``seconds``: for each answer, from first to last byte.

    Raises:
        InvalidArgument: ``url`` is no address of a service.
    """

    def __init__(self, url: str, seconds: float = PATIENCE_SECONDS) -> None:
        self.url, self._seconds = check_address(url), seconds
        self._client: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        import httpx

        # Nothing is unpacked: what is small on the way could be large here.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        self._client = httpx.AsyncClient(timeout=self._seconds, follow_redirects=False, headers=headers)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, asked: Mapping[str, str | int] = {}, *, most_bytes: int) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            PeerUnavailable: none in time, none in HTTP, or one that is longer than ``most_bytes``.
        """
        import httpx

        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.stream("GET", self.url + path, params=dict(asked)) as answer,
            ):
                body = bytearray()
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > most_bytes:
                        raise PeerUnavailable(f"the discovery service {self.url} says more than was asked for")
                return answer.status_code, bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise PeerUnavailable(f"the discovery service {self.url} does not answer: {type(error).__name__}") from None
