"""A node of an EVM chain: what every chain of that kind can be asked and told, whatever contracts live on it.

Reading, preparing, signing and sending are separate on purpose: whoever pays writes down what it signed before it
sends it. Amounts are wei.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from eth_abi.abi import decode, encode
from eth_abi.grammar import parse
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_typing import URI
from eth_utils.abi import function_abi_to_4byte_selector, function_signature_to_4byte_selector
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3._utils.http_session_manager import HTTPSessionManager
from web3.exceptions import (
    BlockNotFound,
    ContractLogicError,
    ProviderConnectionError,
    RequestTimedOut,
    TransactionNotFound,
    Web3RPCError,
)
from web3.types import LogReceipt, TxParams, TxReceipt

from far_mesh.marketplace.chain.abi import artifact
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, TransactionReverted

TIMEOUT_SECONDS = 20.0
GAS_MARGIN_PERCENT = 125
REPLACEMENT_PERCENT = 125
"""Nodes take another transaction of the same nonce only for fees that are at least 10 % higher (12.5 % on some)."""
_UNREACHABLE = (aiohttp.ClientError, TimeoutError, ProviderConnectionError, RequestTimedOut, OSError)


@dataclass(frozen=True)
class Call:
    """A transaction that the chain would accept now. ``value`` is wei of the native coin."""

    to: str
    data: str
    gas: int
    value: int = 0


@dataclass(frozen=True)
class SignedCall:
    """A transaction that anybody who has ``raw`` can send, and its hash."""

    raw: str
    tx_hash: str
    nonce: int


@dataclass(frozen=True)
class BlockId:
    """A block. The hash tells two blocks of one number apart, of which the chain keeps one."""

    number: int
    hash: str


@dataclass(frozen=True)
class Mined:
    """What became of a transaction that is in a block."""

    ok: bool
    block_number: int
    block_hash: str = ""

    @property
    def block(self) -> BlockId:
        """The block that it is in."""
        return BlockId(self.block_number, self.block_hash)


@dataclass(frozen=True)
class Log:
    """One event of a transaction, undecoded. ``place`` counts within its transaction, so it is the same in whichever
    block the transaction ends up."""

    address: str
    topics: tuple[str, ...]
    data: bytes
    place: int


@dataclass(frozen=True)
class MinedTransaction:
    """A transaction that is in a block, with what it did."""

    mined: Mined
    sender: str
    to: str | None
    value: int
    logs: tuple[Log, ...]


def address_of(private_key: str) -> str:
    """The wallet of a private key, in EIP-55 form."""
    return str(Account.from_key(private_key).address)


def call_data(signature: str, *arguments: Any) -> str:
    """The data of a call to ``signature``, like ``transfer(address,uint256)``."""
    kinds = signature[signature.index("(") :]
    encoded = b"" if kinds == "()" else encode([kind.to_type_str() for kind in parse(kinds).components], arguments)
    return "0x" + (function_signature_to_4byte_selector(signature) + encoded).hex()


@asynccontextmanager
async def reachable() -> AsyncIterator[None]:
    """Foreign errors of the network and of the node become ours, here and nowhere else."""
    try:
        yield
    except ContractLogicError as error:
        reason = revert_reason(error)
        raise TransactionReverted(f"the contract refused: {reason}", reason=reason) from error
    except (TransactionNotFound, BlockNotFound):
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


def call_of(raw: str) -> tuple[Call, Mapping[str, int]]:
    """What a signed transaction calls, and the fees it offers."""
    said = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    call = Call(to_checksum_address(said["to"]), said["data"].to_0x_hex(), said["gas"], said["value"])
    return call, {name: said[name] for name in ("maxPriorityFeePerGas", "maxFeePerGas")}


def max_fee_of(raw: str) -> int:
    """The most that a signed transaction offers, in wei per gas."""
    return call_of(raw)[1]["maxFeePerGas"]


def _raised(fee: int) -> int:
    return -(-fee * REPLACEMENT_PERCENT // 100)


def _topic(address: str | None) -> str | None:
    return None if address is None else "0x" + address[2:].lower().rjust(64, "0")


def _mined(receipt: TxReceipt) -> Mined:
    return Mined(receipt["status"] == 1, receipt["blockNumber"], receipt["blockHash"].to_0x_hex())


def _log(place: int, log: LogReceipt) -> Log:
    return Log(str(log["address"]), tuple(topic.to_0x_hex() for topic in log["topics"]), bytes(log["data"]), place)


class _Sessions(HTTPSessionManager):
    """Finds the session of a loop without waiting. The library's own waits in a thread for a lock that all providers of
    the process share: a call that is cancelled meanwhile never gives it back, and from then on no chain is asked any
    more and the process does not end."""

    async def async_cache_and_return_session(
        self,
        endpoint_uri: URI,
        session: aiohttp.ClientSession | None = None,
        request_timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientSession:
        """The session; one loop never does this twice at once."""
        key = f"{id(asyncio.get_running_loop())}:{endpoint_uri}"
        found: aiohttp.ClientSession | None = self.session_cache.get_cache_entry(key)
        if found is None or found.closed:
            found = session or aiohttp.ClientSession(
                raise_for_status=True, connector=aiohttp.TCPConnector(force_close=True)
            )
            self.session_cache.cache(key, found)
        return found


class Node:
    """A connection to one chain."""

    def __init__(self, rpc_url: str, chain_id: int) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._provider = AsyncHTTPProvider(rpc_url, {"timeout": timeout}, exception_retry_configuration=None)
        self._provider._request_session_manager = _Sessions()
        self._web3: AsyncWeb3[AsyncHTTPProvider] = AsyncWeb3(self._provider)
        self.rpc_url = rpc_url
        self.chain_id = chain_id

    async def close(self) -> None:
        """Close the connections to the node."""
        await self._provider.disconnect()

    async def check_id(self) -> None:
        """Is this the chain of the settings?

        Raises:
            ChainUnavailable: no answer.
            ChainMismatch: another chain id.
        """
        async with reachable():
            found = await self._web3.eth.chain_id
        if found != self.chain_id:
            raise ChainMismatch(f"the chain at FAR_CHAIN_RPC_URL has id {found}, FAR_CHAIN_ID says {self.chain_id}")

    # ---- reading

    async def has_code(self, address: str) -> bool:
        """Whether a contract lives at ``address``."""
        async with reachable():
            return bool(await self._web3.eth.get_code(self._web3.to_checksum_address(address)))

    async def block_number(self) -> int:
        """The newest block."""
        async with reachable():
            return await self._web3.eth.block_number

    async def head(self) -> BlockId:
        """The newest block."""
        async with reachable():
            block = await self._web3.eth.get_block("latest")
        return BlockId(block["number"], str(block["hash"].to_0x_hex()))

    async def block_hash(self, number: int) -> str | None:
        """The hash of the block that has this number now, or None when there is none."""
        try:
            async with reachable():
                block = await self._web3.eth.get_block(number)
        except BlockNotFound:
            return None
        return str(block["hash"].to_0x_hex())

    async def genesis_hash(self) -> str:
        """What tells this chain from another with the same id: the hash of block 1.

        Not of block 0: anvil makes a new one at each start, and its state file keeps them all."""
        async with reachable():
            block = await self._web3.eth.get_block(1)
        return str(block["hash"].to_0x_hex())

    async def transaction_count(self, wallet: str, at: int | None = None, *, waiting: bool = False) -> int:
        """The next nonce of ``wallet`` as far as blocks know: all of them, or those up to ``at``. With ``waiting``, as
        far as the node knows, which counts what is in no block yet."""
        block = at if at is not None else "pending" if waiting else "latest"
        async with reachable():
            return await self._web3.eth.get_transaction_count(self._web3.to_checksum_address(wallet), block)  # type: ignore[arg-type]

    async def native_balance(self, wallet: str) -> int:
        """The chain's own coin in ``wallet``."""
        async with reachable():
            return await self._web3.eth.get_balance(self._web3.to_checksum_address(wallet))

    async def ask(
        self, address: str, signature: str, arguments: Sequence[Any], answers: str, at: int | None = None
    ) -> Any:
        """What a view function of a contract says, after block ``at`` or now.

        Raises:
            TransactionReverted: the contract refuses, or answers with something else than ``answers``.
        """
        answer = await self.simulate(address, call_data(signature, *arguments), at=at)
        try:
            return decode([answers], answer)[0]
        except Exception as error:  # eth_abi has a zoo of them
            reason = f"{address} does not answer {signature} with {answers}"
            raise TransactionReverted(reason, reason=reason) from error

    async def simulate(
        self, to: str, data: str, *, sender: str | None = None, at: int | None = None, gas: int | None = None
    ) -> bytes:
        """What a call would answer with at most ``gas``; nothing changes. Raises as :meth:`call`."""
        question: TxParams = {"to": self._web3.to_checksum_address(to), "data": data}  # type: ignore[typeddict-item]
        if sender is not None:
            question["from"] = self._web3.to_checksum_address(sender)
        if gas is not None:
            question["gas"] = gas
        async with reachable():
            return bytes(await self._web3.eth.call(question, "latest" if at is None else at))

    async def token_transfers(
        self, token: str, topic: str, block: int, *, sender: str | None, to: str | None
    ) -> list[int]:
        """The amounts of ``Transfer`` events of ``token`` in one block, from ``sender`` or to ``to``."""
        topics = [topic, _topic(sender), _topic(to)]
        async with reachable():
            logs = await self._web3.eth.get_logs(
                {
                    "address": self._web3.to_checksum_address(token),
                    "fromBlock": block,
                    "toBlock": block,
                    "topics": topics,
                }
            )
        return [int.from_bytes(bytes(log["data"])) for log in logs]

    async def transaction(self, tx_hash: str) -> MinedTransaction | None:
        """A transaction that is in a block, or None."""
        try:
            async with reachable():
                receipt = await self._web3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]
                transaction = await self._web3.eth.get_transaction(tx_hash)  # type: ignore[arg-type]
        except TransactionNotFound:
            return None
        return MinedTransaction(
            mined=_mined(receipt),
            sender=str(receipt["from"]),
            to=str(receipt["to"]) if receipt.get("to") else None,
            value=int(transaction["value"]),
            logs=tuple(_log(place, log) for place, log in enumerate(receipt["logs"])),
        )

    async def is_waiting(self, tx_hash: str) -> bool:
        """Whether the node knows of the transaction, in a block or not."""
        try:
            async with reachable():
                await self._web3.eth.get_transaction(tx_hash)  # type: ignore[arg-type]
        except TransactionNotFound:
            return False
        return True

    # ---- preparing

    async def call(self, sender: str, to: str, data: str = "0x", value: int = 0) -> Call:
        """A call with enough gas.

        Raises:
            TransactionReverted: the contract would refuse it now.
            ChainUnavailable: among others, when ``sender`` cannot pay for it.
        """
        transaction: TxParams = {
            "from": self._web3.to_checksum_address(sender),
            "to": self._web3.to_checksum_address(to),
            "data": data,  # type: ignore[typeddict-item]
            "value": value,  # type: ignore[typeddict-item]
        }
        async with reachable():
            # "pending", so that what was sent and is not in a block yet counts.
            gas = await self._web3.eth.estimate_gas(transaction, "pending")
        return Call(str(transaction["to"]), data, gas * GAS_MARGIN_PERCENT // 100, value)

    async def fees(self) -> Mapping[str, int]:
        """What a transaction should offer per gas now (EIP-1559)."""
        async with reachable():
            block = await self._web3.eth.get_block("latest")
            tip = await self._web3.eth.max_priority_fee
        return {"maxPriorityFeePerGas": tip, "maxFeePerGas": 2 * block.get("baseFeePerGas", 0) + tip}

    async def sign(self, call: Call, nonce: int, private_key: str, max_fee: int | None = None) -> SignedCall:
        """The transaction for ``call``, not sent. It offers no more than ``max_fee`` wei per gas."""
        fees = await self.fees()
        offered = fees if max_fee is None else {name: min(fee, max_fee) for name, fee in fees.items()}
        return self._sign(call, nonce, private_key, offered)

    async def sign_dearer(self, before: SignedCall, private_key: str) -> SignedCall:
        """The same transaction with the same nonce and higher fees, not sent: of the two at most one can be mined."""
        call, offered = call_of(before.raw)
        fees = await self.fees()
        raised = {name: max(fees[name], _raised(offered[name])) for name in fees}
        return self._sign(call, before.nonce, private_key, raised)

    def _sign(self, call: Call, nonce: int, private_key: str, fees: Mapping[str, int]) -> SignedCall:
        signed = Account.sign_transaction(
            {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": nonce,
                "to": call.to,
                "value": call.value,
                "data": call.data,
                "gas": call.gas,
                **fees,
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
            async with reachable():
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
            async with reachable():
                receipt = await self._web3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]
        except TransactionNotFound:
            return None
        return _mined(receipt)

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
