"""What httpx tells, in the words of this package."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from farlabs.errors import ConnectionError, FarLabsError, StreamError, TimeoutError

MAX_BODY_BYTES = 64 * 2**20
"""Longest answer that is read in one piece."""

NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""A stream keeps its connection as long as it lasts: how many there may be is the gateway's business."""


@contextmanager
def translated(timeout: float) -> Iterator[None]:
    """Errors of httpx are ours.

    Raises:
        ConnectionError, TimeoutError, FarLabsError: in place of the transport's.
    """
    try:
        yield
    except httpx.TimeoutException as error:
        raise late(timeout) from error
    except (httpx.DecodingError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise FarLabsError("this is no answer of a gateway: is the address right?", code="not_understood") from error
    except httpx.TransportError as error:
        raise ConnectionError("the gateway cannot be reached", code="connection_failed", retry=True) from error


@contextmanager
def translated_stream(timeout: float, request_id: str | None) -> Iterator[None]:
    """The same, where an answer has begun.

    Raises:
        StreamError, TimeoutError: in place of the transport's.
    """
    try:
        with translated(timeout):
            yield
    except ConnectionError as error:
        raise StreamError("the answer broke off", code="stream_broken", request_id=request_id) from error
    except TimeoutError as error:
        error.request_id = request_id
        raise


def late(timeout: float) -> TimeoutError:
    """Nothing came."""
    return TimeoutError(f"nothing came for {timeout:g} s", code="timeout", retry=True)


def timeout_of(seconds: float) -> httpx.Timeout:
    """In httpx's words. Infinity is as long as it takes."""
    return httpx.Timeout(None if math.isinf(seconds) else seconds)


class Body:
    """Gathers an answer that is read in one piece, within its limits. It has ``timeout`` seconds to come whole."""

    def __init__(self, timeout: float) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._timeout, self._end = timeout, time.monotonic() + timeout

    def push(self, chunk: bytes) -> None:
        """One more piece.

        Raises:
            TimeoutError: it takes too long. FarLabsError: ``not_understood``; it does not end.
        """
        self._parts.append(chunk)
        self._length += len(chunk)
        if self._length > MAX_BODY_BYTES:
            raise FarLabsError("this is no answer of a gateway: it does not end", code="not_understood")
        if time.monotonic() > self._end:
            raise late(self._timeout)

    def whole(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)
