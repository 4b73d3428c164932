"""What people do with their own keys: pay in, consent, take out. For the demo, the tests and as an example."""

from __future__ import annotations

from collections.abc import Sequence

from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import Chain, address_of


class ChainWallet:
    """A private key on a chain."""

    def __init__(self, chain: Chain, private_key: str) -> None:
        self._chain = chain
        self._key = private_key
        self.address = address_of(private_key)

    async def transfer(self, to: str, units: int) -> str:
        """Send FAR to another wallet."""
        return await self._send(self._chain.token, "transfer", to, units_to_wei(units))

    async def deposit(self, units: int) -> str:
        """Approve the escrow and pay ``units`` in. The hash of the deposit."""
        await self._send(self._chain.token, "approve", self._chain.escrow_address, units_to_wei(units))
        return await self._send(self._chain.escrow, "deposit", units_to_wei(units))

    async def allow_spending(self, units: int) -> str:
        """Consent to requests being paid from the deposit, at most ``units`` in all."""
        return await self._send(self._chain.escrow, "setSpendingAllowance", units_to_wei(units))

    async def open_channel(self, units: int, *, signer: str, salt: bytes, close_seconds: int = 3_600) -> str:
        """Move a part of the deposit into a payment channel, whose vouchers ``signer`` signs. ``salt``: 32 bytes."""
        wei = units_to_wei(units)
        return await self._send(self._chain.escrow, "openChannel", salt, signer, wei, close_seconds)

    async def start_close(self, channel_id: str) -> str:
        """Begin to take back what is left in a channel."""
        return await self._send(self._chain.escrow, "startClose", bytes.fromhex(channel_id[2:]))

    async def withdraw_deposit(self, units: int) -> str:
        """Take unlocked deposit back."""
        return await self._send(self._chain.escrow, "withdrawDeposit", units_to_wei(units))

    async def withdraw_earnings(self, to: str | None = None) -> str:
        """A provider takes what was earned."""
        return await self._send(self._chain.escrow, "withdraw", to or self.address)

    async def claim_payout(self, epoch: int, provider: str, cumulative_units: int, proof: Sequence[bytes]) -> str:
        """Credit ``provider`` with what a payout root promises. Anybody may ask for it."""
        wei = units_to_wei(cumulative_units)
        return await self._send(self._chain.escrow, "claimPayout", epoch, provider, wei, list(proof))

    async def _send(self, contract: object, name: str, *arguments: object) -> str:
        call = await self._chain.prepare(contract, name, arguments, self.address)  # type: ignore[arg-type]
        return await self._chain.send(call, self._key)
