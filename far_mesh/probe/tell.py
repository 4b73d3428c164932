"""Tells discovery services what was seen: signed reports over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.probe.observation import MAX_OBSERVATIONS, Observation, Report, SignedReport, sign_report
from discovery.protocol.ids import peer_id_of

log = structlog.get_logger(__name__)

_SECONDS = 15.0
_MOST_WAITING = 512
"""Observations that are kept for a service that does not answer; then the oldest are dropped."""


class Teller:
    """Owner of the numbers of a prober's reports, and of what one service has not heard yet.

    A number is the time in milliseconds, or one more than the last: so it counts up over restarts, and nothing has to
    be kept.
    """

    def __init__(self, key: Ed25519PrivateKey, swarm: str, url: str, now: Callable[[], float] = time.time) -> None:
        self._key, self._swarm, self.url, self._now = key, swarm, url.rstrip("/"), now
        self._last = 0
        self._waiting: list[Observation] = []

    async def tell(self, seen: Sequence[Observation]) -> int:
        """Report these, and what could not be reported before. How many observations the service has counted."""
        self._waiting = [*self._waiting, *seen][-_MOST_WAITING:]
        counted = 0
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            while self._waiting:
                some = self._waiting[:MAX_OBSERVATIONS]
                try:
                    answer = await client.post(
                        f"{self.url}/probes/reports",
                        content=self._report(some).document.to_bytes(),
                        headers={"content-type": "application/json"},
                    )
                except httpx.HTTPError as error:
                    log.warning("report_not_sent", url=self.url, reason=type(error).__name__)
                    break
                if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    log.warning("report_not_taken", url=self.url, status=answer.status_code)
                    break
                self._waiting = self._waiting[len(some) :]
                if answer.status_code == httpx.codes.OK:
                    counted += int(answer.json()["counted"])
                else:
                    log.warning("report_refused", url=self.url, status=answer.status_code, code=_code_of(answer))
        return counted

    def _report(self, some: Sequence[Observation]) -> SignedReport:
        self._last = max(self._last + 1, int(1000 * self._now()))
        report = Report(
            peer_id=peer_id_of(self._key.public_key()),
            swarm=self._swarm,
            sequence=self._last,
            issued_at=int(self._now()),
            observations=tuple(some),
        )
        return sign_report(report, self._key)


def _code_of(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return "unknown"
