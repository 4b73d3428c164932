"""The one class that knows the chain. Amounts that cross its face are units of 1e-9 FAR unless a name says wei.

Reading, preparing, signing and sending are separate on purpose: the settler writes down what it signed before it
sends it. Nothing here decides what should happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import aiohttp
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.abi import event_abi_to_log_topic, function_abi_to_4byte_selector
from eth_utils.crypto import keccak
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.contract import AsyncContract
from web3.exceptions import (
    ContractLogicError,
    ProviderConnectionError,
    RequestTimedOut,
    TransactionNotFound,
    Web3RPCError,
)
from web3.logs import DISCARD
from web3.types import TxParams

from far_mesh.marketplace.chain.abi import artifact
from far_mesh.marketplace.chain.amounts import units_to_wei, wei_to_units
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, TransactionReverted

TIMEOUT_SECONDS = 20.0
GAS_MARGIN_PERCENT = 125
_UNREACHABLE = (aiohttp.ClientError, TimeoutError, ProviderConnectionError, RequestTimedOut, OSError)


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
class Call:
    """A transaction that the chain would accept now."""

    to: str
    data: str
    gas: int


@dataclass(frozen=True)
class SignedCall:
    """A transaction that anybody who has ``raw`` can send, and its hash."""

    raw: str
    tx_hash: str
    nonce: int


@dataclass(frozen=True)
class Mined:
    """What became of a transaction that is in a block."""

    ok: bool
    block_number: int


@dataclass(frozen=True)
class DepositEvent:
    """``Deposited`` (positive) or ``DepositWithdrawn`` (negative) of a user, in wei."""

    kind: str
    wallet: str
    wei: int
    tx_hash: str
    log_index: int
    block_number: int


@dataclass(frozen=True)
class Release:
    """What ``EscrowReleased`` says of one request, in wei: credits by provider, the fee, the user's refund."""

    paid_wei: Mapping[str, int]
    fee_wei: int
    refund_wei: int


def request_key(request_id: str) -> bytes:
    """The 32 bytes by which the escrow knows a request."""
    return keccak(text=request_id)


def escrow_id_of(wallet: str, request_id: str) -> bytes:
    """The escrow's name for the money of a request: ``escrowIdOf`` of the contract, without asking it."""
    return keccak(encode(["address", "bytes32"], [wallet, request_key(request_id)]))


def address_of(private_key: str) -> str:
    """The wallet of a private key, in EIP-55 form."""
    return str(Account.from_key(private_key).address)


@asynccontextmanager
async def _reachable() -> AsyncIterator[None]:
    """Foreign errors of the network and of the node become ours, here and nowhere else."""
    try:
        yield
    except ContractLogicError as error:
        reason = revert_reason(error)
        raise TransactionReverted(f"the contract refused: {reason}", reason=reason) from error
    except TransactionNotFound:
        raise
    except Web3RPCError as error:
        said = str((error.rpc_response or {}).get("error", {}).get("message") or error.message)[:200]
        raise ChainUnavailable(f"the chain's node refused: {said}", retry_after=2.0, objection=said) from error
    except _UNREACHABLE as error:
        raise ChainUnavailable("the chain does not answer; try again in a moment", retry_after=2.0) from error


def _error_names() -> dict[str, str]:
    names = {}
    for contract in ("InferenceEscrow", "FarToken"):
        for item in artifact(contract)["abi"]:
            if item["type"] == "error":
                names["0x" + function_abi_to_4byte_selector(item).hex()] = item["name"]
    return names


def revert_reason(error: ContractLogicError) -> str:
    """The name of the contract's own error, or what the node says."""
    data = error.data if isinstance(error.data, str) else ""
    return _error_names().get(data[:10], "") or str(error.message or data or "no reason given")[:200]


class Chain:
    """A connection to one chain, and to the token and the escrow on it."""

    def __init__(self, rpc_url: str, chain_id: int, token: str, escrow: str) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._provider = AsyncHTTPProvider(rpc_url, {"timeout": timeout}, exception_retry_configuration=None)
        self._web3: AsyncWeb3[AsyncHTTPProvider] = AsyncWeb3(self._provider)
        self.rpc_url = rpc_url
        self.chain_id = chain_id
        self.token_address = self._web3.to_checksum_address(token)
        self.escrow_address = self._web3.to_checksum_address(escrow)
        self.token = self._contract("FarToken", self.token_address)
        self.escrow = self._contract("InferenceEscrow", self.escrow_address)

    def _contract(self, name: str, address: str) -> AsyncContract:
        return self._web3.eth.contract(address=self._web3.to_checksum_address(address), abi=artifact(name)["abi"])

    async def close(self) -> None:
        """Close the connections to the node."""
        await self._provider.disconnect()

    async def check(self) -> None:
        """Is this the chain of the settings, with our contracts on it?

        Raises:
            ChainUnavailable: no answer.
            ChainMismatch: another chain id, or no contract at one of the addresses.
        """
        async with _reachable():
            found = await self._web3.eth.chain_id
            if found != self.chain_id:
                raise ChainMismatch(f"the chain at FAR_CHAIN_RPC_URL has id {found}, FAR_CHAIN_ID says {self.chain_id}")
        for name, address in (("FAR_TOKEN_ADDRESS", self.token_address), ("FAR_ESCROW_ADDRESS", self.escrow_address)):
            if not await self.has_code(address):
                raise ChainMismatch(f"there is no contract at {name} ({address}) on this chain")

    # ---- reading

    async def has_code(self, address: str) -> bool:
        """Whether a contract lives at ``address``."""
        async with _reachable():
            return bool(await self._web3.eth.get_code(self._web3.to_checksum_address(address)))

    async def block_number(self) -> int:
        """The newest block."""
        async with _reachable():
            return await self._web3.eth.block_number

    async def genesis_hash(self) -> str:
        """What tells this chain from another with the same id: the hash of block 1.

        Not of block 0: anvil makes a new one at each start, and its state file keeps them all."""
        async with _reachable():
            block = await self._web3.eth.get_block(1)
        return str(block["hash"].to_0x_hex())

    async def transaction_count(self, wallet: str) -> int:
        """The next nonce of ``wallet`` as far as blocks know."""
        async with _reachable():
            return await self._web3.eth.get_transaction_count(self._web3.to_checksum_address(wallet), "latest")

    async def token_balance_wei(self, wallet: str) -> int:
        """FAR in the wallet itself, in wei."""
        return int(await self._read(self.token, "balanceOf", wallet))

    async def deposit_of(self, wallet: str) -> int:
        """The part of a user's deposit that is not locked, in units."""
        return wei_to_units(await self._read(self.escrow, "depositOf", wallet))

    async def spending_allowance(self, wallet: str) -> int:
        """How much may still be locked for the user without asking, in units."""
        return wei_to_units(await self._read(self.escrow, "spendingAllowance", wallet))

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

    async def deposit_events(self, first_block: int, last_block: int) -> list[DepositEvent]:
        """What users paid in and took out in these blocks, both included, in the order of the chain."""
        deposited, withdrawn = self.escrow.events.Deposited(), self.escrow.events.DepositWithdrawn()
        topics = ["0x" + event_abi_to_log_topic(event.abi).hex() for event in (deposited, withdrawn)]
        async with _reachable():
            logs = await self._web3.eth.get_logs(
                {
                    "address": self.escrow_address,
                    "fromBlock": first_block,
                    "toBlock": last_block,
                    "topics": [topics],
                }
            )
        decoders = dict(zip(topics, (deposited, withdrawn), strict=True))
        return [_deposit_event(decoders[log["topics"][0].to_0x_hex()].process_log(log)) for log in logs]

    async def released(self, tx_hash: str) -> Release:
        """What a mined release transaction paid, from its event.

        Raises:
            TransactionReverted: it released nothing.
        """
        async with _reachable():
            receipt = await self._web3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]
        events = self.escrow.events.EscrowReleased().process_receipt(receipt, errors=DISCARD)
        if not events:
            raise TransactionReverted(f"{tx_hash} released nothing", reason="no EscrowReleased event")
        said = events[0]["args"]
        paid = dict(zip(said["providers"], said["amounts"], strict=True))
        return Release(paid, said["fee"], said["refund"])

    async def _read(self, contract: AsyncContract, name: str, *arguments: Any) -> Any:
        async with _reachable():
            return await contract.functions[name](*arguments).call()

    # ---- preparing what the settler sends

    async def lock(self, sender: str, wallet: str, request_id: str, units: int, lock_seconds: int) -> Call:
        """Lock ``units`` of a user's deposit for a request, by the user's standing allowance.

        Raises:
            TransactionReverted: the contract would refuse it now.
        """
        arguments = (wallet, request_key(request_id), units_to_wei(units), lock_seconds)
        return await self.prepare(self.escrow, "createEscrowWithAllowance", arguments, sender)

    async def release(self, sender: str, wallet: str, request_id: str, amounts: Sequence[tuple[str, int]]) -> Call:
        """Credit ``amounts`` (provider, units net of the fee) out of a request's escrow. Raises as :meth:`lock`."""
        escrow_id = escrow_id_of(wallet, request_id)
        providers = [provider for provider, _ in amounts]
        wei = [units_to_wei(units) for _, units in amounts]
        return await self.prepare(self.escrow, "releaseMultiple", (escrow_id, providers, wei), sender)

    async def cancel(self, sender: str, wallet: str, request_id: str) -> Call:
        """Give a request's escrow back to the user. Raises as :meth:`lock`."""
        return await self.prepare(self.escrow, "cancel", (escrow_id_of(wallet, request_id),), sender)

    async def prepare(self, contract: AsyncContract, name: str, arguments: Sequence[Any], sender: str) -> Call:
        """A call with enough gas.

        Raises:
            TransactionReverted: the contract would refuse it now.
        """
        data = contract.encode_abi(name, args=list(arguments))
        transaction: TxParams = {"from": self._web3.to_checksum_address(sender), "to": contract.address, "data": data}
        async with _reachable():
            # "pending", so that what was sent and is not in a block yet counts.
            gas = await self._web3.eth.estimate_gas(transaction, "pending")
        return Call(str(contract.address), str(data), gas * GAS_MARGIN_PERCENT // 100)

    async def sign(self, call: Call, nonce: int, private_key: str) -> SignedCall:
        """The transaction for ``call``, not sent."""
        async with _reachable():
            block = await self._web3.eth.get_block("latest")
            tip = await self._web3.eth.max_priority_fee
        signed = Account.sign_transaction(
            {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": nonce,
                "to": call.to,
                "value": 0,
                "data": call.data,
                "gas": call.gas,
                "maxPriorityFeePerGas": tip,
                "maxFeePerGas": 2 * block.get("baseFeePerGas", 0) + tip,
            },
            private_key,
        )
        return SignedCall(signed.raw_transaction.to_0x_hex(), signed.hash.to_0x_hex(), nonce)

    # ---- sending, and what became of it

    async def send_raw(self, raw: str) -> str | None:
        """Hand a signed transaction to the node; doing it again is harmless. What the node objects to, or None.

        An objection decides nothing: only :meth:`mined` and :meth:`transaction_count` say what became of it.
        """
        try:
            async with _reachable():
                await self._web3.eth.send_raw_transaction(raw)  # type: ignore[arg-type]
        except TransactionReverted as error:
            return error.message
        except ChainUnavailable as error:
            if "objection" not in error.facts:
                raise
            return str(error.facts["objection"])
        return None

    async def mined(self, tx_hash: str) -> Mined | None:
        """The transaction's result, or None while it is in no block."""
        try:
            async with _reachable():
                receipt = await self._web3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]
        except TransactionNotFound:
            return None
        return Mined(receipt["status"] == 1, receipt["blockNumber"])

    async def wait(self, tx_hash: str, seconds: float = 60.0) -> Mined:
        """:meth:`mined`, once it is.

        Raises:
            ChainUnavailable: not within ``seconds``.
        """
        try:
            async with asyncio.timeout(seconds):
                while (mined := await self.mined(tx_hash)) is None:  # noqa: ASYNC110 - the chain has no event for us
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ChainUnavailable(f"{tx_hash} was in no block after {seconds:.0f} s", tx_hash=tx_hash) from None
        return mined

    async def send(self, call: Call, private_key: str) -> str:
        """Sign, send and wait: for the wallets of people. The settler does not use this. The transaction's hash.

        Raises:
            TransactionReverted: the chain took it and the contract refused.
        """
        signed = await self.sign(call, await self.transaction_count(address_of(private_key)), private_key)
        objection = await self.send_raw(signed.raw)
        if objection:
            raise TransactionReverted(f"the chain refused the transaction: {objection}", reason=objection)
        if not (await self.wait(signed.tx_hash)).ok:
            raise TransactionReverted(f"{signed.tx_hash} was reverted", reason="reverted", tx_hash=signed.tx_hash)
        return signed.tx_hash


def _deposit_event(event: Any) -> DepositEvent:
    sign = 1 if event["event"] == "Deposited" else -1
    return DepositEvent(
        kind=event["event"],
        wallet=event["args"]["user"],
        wei=sign * event["args"]["amount"],
        tx_hash=event["transactionHash"].to_0x_hex(),
        log_index=event["logIndex"],
        block_number=event["blockNumber"],
    )
