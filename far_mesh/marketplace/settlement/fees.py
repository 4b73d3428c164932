"""Whether the escrow takes the fee that prices are made with.

An escrow of a request's own freezes its fee and is asked for it. Requests that are charged afterwards are not: for them
the fee is looked at when the gateway starts, and on a clock.
"""

from __future__ import annotations

import asyncio

import structlog

from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.errors import ChainUnavailable, FeeMismatch

LOOK_SECONDS = 60.0

log = structlog.get_logger(__name__)


class FeeWatch:
    """Knows the fee of the escrow."""

    def __init__(self, chain: Chain, fee_bps: int) -> None:
        self._chain = chain
        self._found_bps = fee_bps
        self.fee_bps = fee_bps

    async def check(self) -> None:
        """Look at it now.

        Raises:
            FeeMismatch: it is not ``fee_bps``.
            ChainUnavailable: the chain does not answer.
        """
        self._found_bps = await self._chain.fee_bps()
        self.require(self.fee_bps)

    def require(self, fee_bps: int) -> None:
        """Refuse a request at another fee than the escrow takes.

        Raises:
            FeeMismatch: it is another one.
        """
        if fee_bps != self._found_bps:
            raise FeeMismatch(
                f"the escrow takes {self._found_bps} basis points and FAR_FEE_BPS was {fee_bps}",
                fee_bps=self._found_bps,
            )

    async def run(self) -> None:
        """Look at it now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.check()
            except (ChainUnavailable, FeeMismatch) as error:
                log.warning("fee_not_right", code=error.code)
