"""The one class that knows our contracts. Amounts that cross its face are units of 1e-9 FAR unless a name says wei.

Nothing here decides what should happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from eth_abi.abi import encode
from eth_utils.abi import event_abi_to_log_topic
from eth_utils.crypto import keccak
from web3.contract import AsyncContract
from web3.contract.async_contract import AsyncContractEvent
from web3.exceptions import TransactionNotFound
from web3.types import LogReceipt

from far_mesh.marketplace.chain.abi import artifact
from far_mesh.marketplace.chain.amounts import units_to_wei, wei_to_units
from far_mesh.marketplace.chain.node import Call as Call
from far_mesh.marketplace.chain.node import Node, call_data, reachable
from far_mesh.marketplace.chain.node import SignedCall as SignedCall
from far_mesh.marketplace.chain.node import address_of as address_of
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, TransactionReverted

LOG_BLOCKS = 5_000
"""How many blocks are asked for events at once; public nodes refuse many more."""


class EscrowStatus(IntEnum):
    """As in IInferenceEscrow.sol."""

    NONE = 0
    OPEN = 1
    RELEASED = 2
    CANCELLED = 3


@dataclass(frozen=True)
class Escrow:
    """One request's money on chain. ``deadline`` is unix seconds; after it nothing can be released."""

    status: EscrowStatus
    amount_units: int
    fee_bps: int
    deadline: int


@dataclass(frozen=True)
class EscrowEvent:
    """What the escrow has announced. ``name`` and ``fields`` are those of the interfaces under ``contracts/escrow``:
    amounts in wei, 32 bytes as hexadecimal text, wallets in EIP-55 form. ``log_index`` counts in the block."""

    name: str
    fields: Mapping[str, Any]
    tx_hash: str
    log_index: int
    block_number: int
    block_hash: str


@dataclass(frozen=True)
class Release:
    """What the chain says of one request's money, in wei: credits by provider, the fee, the user's refund."""

    paid_wei: Mapping[str, int]
    fee_wei: int
    refund_wei: int


class ChannelStatus(IntEnum):
    """As in IPaymentChannels.sol."""

    NONE = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


@dataclass(frozen=True)
class ChannelState:
    """A payment channel on chain. ``closes_at`` is unix seconds: until then vouchers are redeemed once closing has
    started, before that 0."""

    status: ChannelStatus
    amount_units: int
    redeemed_units: int
    closes_at: int


@dataclass(frozen=True)
class Claim:
    """A voucher that is redeemed: what it promises, how much of it was earned, and its signature. Both are all that
    ever was."""

    channel_id: str
    promised_units: int
    claimed_units: int
    signature: str = field(repr=False)


@dataclass(frozen=True)
class PayoutRoot:
    """A payout root on chain. ``claimable_at`` is unix seconds; 0 when it was revoked or never there."""

    root: bytes
    total_units: int
    claimable_at: int


def request_key(request_id: str) -> bytes:
    """The 32 bytes by which the escrow knows a request."""
    return keccak(text=request_id)


def escrow_id_of(wallet: str, request_id: str) -> bytes:
    """The escrow's name for the money of a request: ``escrowIdOf`` of the contract, without asking it."""
    return keccak(encode(["address", "bytes32"], [wallet, request_key(request_id)]))


SETTLE_BATCH = "settleBatch(uint256,bytes32,(address[],uint256[]),address[],uint256[],uint256)"


def settle_batch_data(
    number: int, details: bytes, charges: Mapping[str, int], payouts: Mapping[str, int], fee: int
) -> str:
    """The call data of ``settleBatch``. Amounts are the smallest part of whatever the escrow holds."""
    charged = ([*charges], [*charges.values()])
    return call_data(SETTLE_BATCH, number, details, charged, [*payouts], [*payouts.values()], fee)


class Chain(Node):
    """A connection to one chain, and to the token and the escrow on it."""

    def __init__(self, rpc_url: str, chain_id: int, token: str, escrow: str) -> None:
        super().__init__(rpc_url, chain_id)
        self.token_address = self._web3.to_checksum_address(token)
        self.escrow_address = self._web3.to_checksum_address(escrow)
        self.token = self._contract("FarToken", self.token_address)
        self.escrow = self._contract("InferenceEscrow", self.escrow_address)

    def _contract(self, name: str, address: str) -> AsyncContract:
        return self._web3.eth.contract(address=self._web3.to_checksum_address(address), abi=artifact(name)["abi"])

    async def check(self) -> None:
        """Is this the chain of the settings, with our contracts on it?

        Raises:
            ChainUnavailable: no answer.
            ChainMismatch: another chain id, or no contract at one of the addresses.
        """
        await self.check_id()
        for name, address in (("FAR_TOKEN_ADDRESS", self.token_address), ("FAR_ESCROW_ADDRESS", self.escrow_address)):
            if not await self.has_code(address):
                raise ChainMismatch(f"there is no contract at {name} ({address}) on this chain")

    # ---- reading

    async def token_balance_wei(self, wallet: str) -> int:
        """FAR in the wallet itself, in wei."""
        return int(await self._read(self.token, "balanceOf", wallet))

    async def deposit_of(self, wallet: str) -> int:
        """The part of a user's deposit that is not locked, in units."""
        return wei_to_units(await self._read(self.escrow, "depositOf", wallet))

    async def spending_allowance(self, wallet: str) -> int:
        """How much may still be locked for the user without asking, in units."""
        return wei_to_units(await self._read(self.escrow, "spendingAllowance", wallet))

    async def is_nonce_used(self, wallet: str, nonce: int) -> bool:
        """Whether an intent of a user with this nonce was used or cancelled."""
        return bool(await self._read(self.escrow, "isNonceUsed", wallet, nonce))

    async def credit_of_wei(self, wallet: str) -> int:
        """What a provider has earned and not withdrawn, in wei."""
        return int(await self._read(self.escrow, "creditOf", wallet))

    async def fees_accrued_wei(self) -> int:
        """The platform's fees that were not withdrawn, in wei."""
        return int(await self._read(self.escrow, "feesAccrued"))

    async def fee_bps(self) -> int:
        """The fee of escrows made now."""
        return int(await self._read(self.escrow, "feeBps"))

    async def escrow_of(self, wallet: str, request_id: str) -> Escrow:
        """The escrow of a request; its status is NONE when there is none."""
        escrow_id = escrow_id_of(wallet, request_id)
        _user, amount, deadline, fee_bps, status, _epoch = await self._read(self.escrow, "escrowOf", escrow_id)
        return Escrow(EscrowStatus(status), wei_to_units(amount), fee_bps, deadline)

    async def release_cap_per_day(self) -> int:
        """How much may leave deposits and the pool for providers in a day (UTC), in units."""
        return wei_to_units(await self._read(self.escrow, "releaseCapPerDay"))

    async def channel_of(self, channel_id: str) -> ChannelState:
        """A payment channel; its status is NONE when there is none."""
        found = await self._read(self.escrow, "channelOf", bytes.fromhex(channel_id[2:]))
        _user, _signer, amount, redeemed, _delay, closes_at, status = found
        return ChannelState(ChannelStatus(status), wei_to_units(amount), wei_to_units(redeemed), closes_at)

    async def is_batch_settled(self, number: int) -> bool:
        """Whether the escrow has done a batch of this number, whoever made it."""
        return bool(await self._read(self.escrow, "isBatchSettled", number))

    async def details_of_batch(self, number: int, first_block: int) -> bytes | None:
        """The detail root that was announced when the batch of this number was settled, or None when none was in
        ``first_block`` or later. Looks from the newest block backwards, in pieces; where the node refuses to look at so
        many blocks at once, in smaller ones."""
        event, at_once = self.escrow.events.BatchSettled(), LOG_BLOCKS
        topics = ["0x" + event_abi_to_log_topic(event.abi).hex(), "0x" + number.to_bytes(32).hex()]
        last = await self.block_number()
        while last >= first_block:
            first = max(first_block, last - at_once + 1)
            question = {"address": self.escrow_address, "fromBlock": first, "toBlock": last, "topics": topics}
            try:
                async with reachable():
                    logs = await self._web3.eth.get_logs(question)  # type: ignore[arg-type]
            except ChainUnavailable as error:
                if "objection" not in error.facts or at_once == 1:
                    raise
                at_once //= 2
                continue
            if logs:
                return bytes(logs[0]["topics"][2])
            last = first - 1
        return None

    async def payout_root_of(self, epoch: int) -> PayoutRoot:
        """The payout root of an epoch; its root is 32 zeros when there is none."""
        root, total, claimable_at = await self._read(self.escrow, "payoutRootOf", epoch)
        return PayoutRoot(bytes(root), wei_to_units(total), claimable_at)

    async def claimed_of(self, wallet: str) -> int:
        """What a provider has claimed of all payout roots together, in units."""
        return wei_to_units(await self._read(self.escrow, "claimedOf", wallet))

    async def escrow_events(self, names: Sequence[str], first_block: int, last_block: int) -> list[EscrowEvent]:
        """What the escrow announced in these blocks, both included, in the order of the chain."""
        decoders = self._decoders(names)
        async with reachable():
            logs = await self._web3.eth.get_logs(
                {
                    "address": self.escrow_address,
                    "fromBlock": first_block,
                    "toBlock": last_block,
                    "topics": [[*decoders]],
                }
            )
        return [_escrow_event(decoders, log) for log in logs]

    async def escrow_events_of(self, names: Sequence[str], tx_hash: str) -> list[EscrowEvent]:
        """What the escrow announced in one transaction; nothing while it is in no block."""
        decoders = self._decoders(names)
        try:
            async with reachable():
                receipt = await self._web3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]
        except TransactionNotFound:
            return []
        ours = [log for log in receipt["logs"] if log["address"] == self.escrow_address]
        return [_escrow_event(decoders, log) for log in ours if log["topics"][0].to_0x_hex() in decoders]

    def _decoders(self, names: Sequence[str]) -> dict[str, AsyncContractEvent]:
        """Events of the escrow by their first topic."""
        events = [self.escrow.events[name]() for name in names]
        return {"0x" + event_abi_to_log_topic(event.abi).hex(): event for event in events}

    async def settled(self, tx_hash: str, user: str, held_units: int) -> Release:
        """What a mined batch paid, from its event, for a user of whom ``held_units`` were held: what was not charged of
        them is the refund. Exact where the batch is of one request.

        Raises:
            TransactionReverted: it settled nothing.
        """
        events = await self.escrow_events_of(["BatchSettled"], tx_hash)
        if not events:
            raise TransactionReverted(f"{tx_hash} settled nothing", reason="no BatchSettled event")
        said = events[0].fields
        charges = dict(zip(said["charges"]["users"], said["charges"]["amounts"], strict=True))
        paid = dict(zip(said["providers"], said["amounts"], strict=True))
        return Release(paid, said["fee"], units_to_wei(held_units) - charges.get(user, 0))

    async def _read(self, contract: AsyncContract, name: str, *arguments: Any, at: int | None = None) -> Any:
        """What a view of a contract says, after block ``at`` or now."""
        async with reachable():
            return await contract.functions[name](*arguments).call(block_identifier="latest" if at is None else at)

    # ---- preparing what the settler sends

    async def lock(self, sender: str, wallet: str, request_id: str, units: int, lock_seconds: int) -> Call:
        """Lock ``units`` of a user's deposit for a request, by the user's standing allowance.

        Raises:
            TransactionReverted: the contract would refuse it now.
        """
        arguments = (wallet, request_key(request_id), units_to_wei(units), lock_seconds)
        return await self.prepare(self.escrow, "createEscrowWithAllowance", arguments, sender)

    async def lock_by_intent(self, sender: str, intent: Sequence[Any], signature: bytes) -> Call:
        """Lock what a user has signed an ``EscrowIntent`` for, the struct as a sequence. Raises as :meth:`lock`."""
        return await self.prepare(self.escrow, "createEscrowFor", (tuple(intent), signature), sender)

    async def release(self, sender: str, wallet: str, request_id: str, amounts: Sequence[tuple[str, int]]) -> Call:
        """Credit ``amounts`` (provider, units net of the fee) out of a request's escrow. Raises as :meth:`lock`."""
        escrow_id = escrow_id_of(wallet, request_id)
        providers = [provider for provider, _ in amounts]
        wei = [units_to_wei(units) for _, units in amounts]
        return await self.prepare(self.escrow, "releaseMultiple", (escrow_id, providers, wei), sender)

    async def cancel(self, sender: str, wallet: str, request_id: str) -> Call:
        """Give a request's escrow back to the user. Raises as :meth:`lock`."""
        return await self.prepare(self.escrow, "cancel", (escrow_id_of(wallet, request_id),), sender)

    async def redeem_vouchers(self, sender: str, claims: Sequence[Claim]) -> Call:
        """Bring what was earned over these channels into the pool: all of it, or nothing. Raises as :meth:`lock`."""
        arguments = [
            (
                bytes.fromhex(claim.channel_id[2:]),
                units_to_wei(claim.promised_units),
                units_to_wei(claim.claimed_units),
                bytes.fromhex(claim.signature[2:]),
            )
            for claim in claims
        ]
        return await self.prepare(self.escrow, "redeemVouchers", (arguments,), sender)

    async def settle_batch(
        self,
        sender: str,
        number: int,
        details: bytes,
        charges: Mapping[str, int],
        payouts: Mapping[str, int],
        fee_units: int,
    ) -> Call:
        """Credit ``payouts`` to providers out of what is charged to users' deposits, and of the pool where that is
        less. Raises as :meth:`lock`."""
        data = settle_batch_data(number, details, _in_wei(charges), _in_wei(payouts), units_to_wei(fee_units))
        return await self.call(sender, self.escrow_address, data)

    async def commit_payout_root(
        self, sender: str, epoch: int, root: bytes, total_units: int, fee_units: int, charges: Mapping[str, int]
    ) -> Call:
        """Set ``total_units`` aside for the providers in the tree of ``root``; money as in :meth:`settle_batch`.
        Raises as :meth:`lock`."""
        charged = ([*charges], [*_in_wei(charges).values()])
        arguments = (epoch, root, units_to_wei(total_units), units_to_wei(fee_units), charged)
        return await self.prepare(self.escrow, "commitPayoutRoot", arguments, sender)

    async def prepare(self, contract: AsyncContract, name: str, arguments: Sequence[Any], sender: str) -> Call:
        """A call with enough gas.

        Raises:
            TransactionReverted: the contract would refuse it now.
        """
        return await self.call(sender, str(contract.address), str(contract.encode_abi(name, args=list(arguments))))


def _in_wei(units: Mapping[str, int]) -> dict[str, int]:
    return {wallet: units_to_wei(amount) for wallet, amount in units.items()}


def _escrow_event(decoders: Mapping[str, AsyncContractEvent], log: LogReceipt) -> EscrowEvent:
    event = decoders[log["topics"][0].to_0x_hex()].process_log(log)
    return EscrowEvent(
        name=event["event"],
        fields={
            name: "0x" + value.hex() if isinstance(value, bytes) else value for name, value in event["args"].items()
        },
        tx_hash=event["transactionHash"].to_0x_hex(),
        log_index=event["logIndex"],
        block_number=event["blockNumber"],
        block_hash=event["blockHash"].to_0x_hex(),
    )
