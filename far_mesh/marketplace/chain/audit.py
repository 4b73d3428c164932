"""The chain as an auditor reads it: what the escrow holds after one block, to the wei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth_account import Account
from hexbytes import HexBytes

from far_mesh.marketplace.chain.client import Chain, ChannelStatus, EscrowStatus, escrow_id_of

MONEY = (
    "Deposited",
    "DepositWithdrawn",
    "SpendingAllowanceSpent",
    "EscrowCreated",
    "EscrowReleased",
    "EscrowCancelled",
    "ChannelOpened",
    "ChannelToppedUp",
    "ChannelClosed",
    "VoucherRedeemed",
    "BatchSettled",
    "PoolRefunded",
    "PayoutRootCommitted",
    "PayoutRootRevoked",
    "PayoutClaimed",
    "CreditWithdrawn",
    "FeesWithdrawn",
)
"""The events that tell of money that moved."""

_POTS = (
    "totalDeposits",
    "totalEscrowed",
    "totalInChannels",
    "poolBalance",
    "totalReserved",
    "totalCredits",
    "feesAccrued",
)


@dataclass(frozen=True)
class OpenEscrow:
    """What was locked for a request, and what became of it."""

    status: EscrowStatus
    amount_wei: int


@dataclass(frozen=True)
class ChannelMoney:
    """What lies in a channel: all that was put in and taken out. What was left of a closed one has gone back."""

    user: str
    amount_wei: int
    redeemed_wei: int
    is_closed: bool

    @property
    def net_wei(self) -> int:
        """What was put in and has not gone back to the user."""
        return self.redeemed_wei if self.is_closed else self.amount_wei


@dataclass(frozen=True)
class Pots:
    """What the escrow has altogether: in its pots, and in tokens."""

    pool_wei: int
    fees_wei: int
    sum_wei: int
    tokens_wei: int


def signer_of(raw: str) -> str:
    """The wallet that has signed a transaction."""
    return str(Account.recover_transaction(raw))


class AuditedChain(Chain):
    """A connection that reads everything, and sends nothing."""

    async def deposit_wei(self, wallet: str, at: int) -> int:
        """The part of a user's deposit that is not locked."""
        return int(await self._at(at, "depositOf", wallet))

    async def credit_wei(self, wallet: str, at: int) -> int:
        """What a provider has been credited with and has not taken out."""
        return int(await self._at(at, "creditOf", wallet))

    async def claimed_wei(self, wallet: str, at: int) -> int:
        """What a provider has claimed from payout roots."""
        return int(await self._at(at, "claimedOf", wallet))

    async def escrow_at(self, wallet: str, request_id: str, at: int) -> OpenEscrow:
        """The escrow of a request; its status is NONE when there is none."""
        found = await self._at(at, "escrowOf", escrow_id_of(wallet, request_id))
        return OpenEscrow(EscrowStatus(found[4]), int(found[1]))

    async def escrow_user(self, escrow_id: str, at: int) -> str:
        """Whose escrow this is."""
        return str((await self._at(at, "escrowOf", HexBytes(escrow_id)))[0])

    async def channel_at(self, channel_id: str, at: int) -> ChannelMoney:
        """A channel; its user is the zero address when there is none."""
        user, _, amount, redeemed, _, _, status = await self._at(at, "channelOf", HexBytes(channel_id))
        return ChannelMoney(str(user), int(amount), int(redeemed), ChannelStatus(status) is ChannelStatus.CLOSED)

    async def is_settled_at(self, number: int, at: int) -> bool:
        """Whether a batch of this number was settled, whoever made it."""
        return bool(await self._at(at, "isBatchSettled", number))

    async def root_at(self, epoch: int, at: int) -> str:
        """The payout root of an epoch, or 32 zeros."""
        return "0x" + bytes((await self._at(at, "payoutRootOf", epoch))[0]).hex()

    async def pots(self, at: int) -> Pots:
        """The seven pots, and the tokens that they are made of."""
        pots = {name: int(await self._at(at, name)) for name in _POTS}
        tokens = await self._read(self.token, "balanceOf", self.escrow_address, at=at)
        return Pots(pots["poolBalance"], pots["feesAccrued"], sum(pots.values()), int(tokens))

    async def _at(self, block: int, name: str, *arguments: Any) -> Any:
        return await self._read(self.escrow, name, *arguments, at=block)
