"""Wallets that are contracts (EIP-1271, https://eips.ethereum.org/EIPS/eip-1271): the contract itself says whether a
signature is its own.

What it answers is a stranger's program: it gets so much gas and so many seconds. Wallets that are not deployed yet
(EIP-6492) cannot sign in: they could not have deposited anything either.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from discovery.protocol.ids import Wallet
from far_mesh.marketplace.chain.node import Node, call_data
from far_mesh.marketplace.errors import BadSignature, ChainUnavailable, TransactionReverted

YES = bytes.fromhex("1626ba7e").ljust(32, b"\0")
"""What ``isValidSignature`` answers for a signature that counts: its own selector."""

GAS = 5_000_000
"""Enough for a multi-signature wallet of dozens of owners, and for a P-256 curve in Solidity."""

SECONDS = 5.0
AT_ONCE = 8
MAX_SIGNATURE_BYTES = 4096
_SIGNATURE = re.compile(rf"0x(?:[0-9a-fA-F]{{2}}){{0,{MAX_SIGNATURE_BYTES}}}\Z")


class ContractWallets:
    """Asks the contracts of one chain."""

    def __init__(self, chain: Node) -> None:
        self._chain = chain
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def is_contract(self, wallet: Wallet) -> bool:
        """Whether a contract lives at ``wallet``.

        Raises:
            ChainUnavailable: the chain does not answer in time.
        """
        async with self._in_time():
            return await self._chain.has_code(wallet)

    async def check(self, wallet: Wallet, digest: bytes, signature: str) -> None:
        """Whether the contract ``wallet`` says that it signed these 32 bytes.

        Raises:
            BadSignature: it says anything else than yes.
            ChainUnavailable: the chain does not answer in time.
        """
        if not _SIGNATURE.match(signature):
            raise BadSignature(f"a signature is 0x and pairs of hexadecimal digits, at most {MAX_SIGNATURE_BYTES}")
        question = call_data("isValidSignature(bytes32,bytes)", digest, bytes.fromhex(signature[2:]))
        if (await self._ask(wallet, question))[:32] != YES:
            raise BadSignature(f"the contract {wallet} says that the signature is not its own")

    async def _ask(self, wallet: Wallet, question: str) -> bytes:
        try:
            async with self._in_time():
                return await self._chain.simulate(wallet, question, gas=GAS)
        except TransactionReverted:
            raise BadSignature(f"the contract {wallet} refused the signature") from None
        except ChainUnavailable as error:
            if "objection" not in error.facts:
                raise
            # The node answered: the contract ran out of gas, or did something that means nothing.
            raise BadSignature(f"the contract {wallet} could not say whether it signed") from None

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(SECONDS), self._turns:
                yield
        except TimeoutError:
            raise ChainUnavailable("the chain does not answer; try again in a moment", retry_after=2.0) from None
