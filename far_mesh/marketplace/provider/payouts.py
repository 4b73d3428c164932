"""Where providers are paid by transfer, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.payments import addresses
from far_mesh.marketplace.payments.addresses import Change
from far_mesh.marketplace.payments.errors import PayoutInvalid
from far_mesh.marketplace.payments.provider import PaymentProvider
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.transfer_repository import Held


@dataclass(frozen=True)
class PaidAt:
    """Where a provider is paid, what will take its place, and why what is due could not be paid."""

    address: str | None
    change: Change | None
    held: Held | None


class PayoutRoom:
    """Asks ``provider`` what an address is. A change counts after ``delay``."""

    def __init__(self, database: Database, provider: PaymentProvider, delay: timedelta) -> None:
        self._database = database
        self._provider = provider
        self._delay = delay

    async def of(self, wallet: str) -> PaidAt:
        """Where ``wallet`` is paid now."""
        at = now()
        async with self._database.reading() as connection:
            held = await transfers.held_of(connection, wallet)
            if self._provider.pays_wallets:
                return PaidAt(wallet, None, held)
            address = await addresses.effective(connection, wallet, at)
            return PaidAt(address, await addresses.pending(connection, wallet, at), held)

    async def change(self, wallet: str, address: str) -> PaidAt:
        """From a while from now on ``wallet`` is paid at ``address``. Whatever has not counted yet is taken back.

        Raises:
            InvalidArgument: on this chain providers are paid at their wallets.
            PayoutInvalid: nothing can be paid to this address; says why.
            PaymentsOff: there are no payments here.
        """
        if self._provider.pays_wallets:
            raise InvalidArgument("providers are paid at their own wallets on this chain", param="address")
        info = await self._provider.explain_address(address)
        if not info.payable:
            raise PayoutInvalid(f"{info.address} cannot be paid: {info.explanation}", address=info.address)
        async with self._database.writing() as connection:
            await addresses.change(connection, wallet, info.address, now(), self._delay)
        return await self.of(wallet)
