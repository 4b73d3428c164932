"""The escrow contract, spoken to over JSON-RPC: what it owes a provider, what it announced, and taking it out.

No more of the chain is needed on a node, so a few questions over HTTP take the place of a library for all of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import function_signature_to_4byte_selector
from eth_utils.crypto import keccak

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import check_wallet
from far_node.rewards.errors import ContractRefused, OtherChain, RpcRefused, RpcUnavailable
from far_node.rewards.wallet import WalletKey

TIMEOUT_SECONDS = 20.0
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.25
GAS_MARGIN_PERCENT = 125

_SETTLED = "BatchSettled(uint256,bytes32,(address[],uint256[]),address[],uint256[],uint256)"
_RELEASED = "EscrowReleased(bytes32,address[],uint256[],uint256,uint256)"
_REFUSALS = (
    "EscrowNoCredit(address)",
    "EscrowInvalidAddress(address)",
    "EscrowInsufficientReserve(uint256,uint256)",
    "PayoutRootUnknown(uint256)",
    "PayoutNotClaimable(uint256,uint64)",
    "PayoutProofInvalid(uint256,address,uint256)",
    "PayoutNothingToClaim(address,uint256,uint256)",
)
_REASONS = {"0x" + function_signature_to_4byte_selector(error).hex(): error.partition("(")[0] for error in _REFUSALS}


@dataclass(frozen=True)
class Paid:
    """What one event of the escrow credited, in wei by wallet. ``root`` is the detail root of a batch, and None for the
    release of one request."""

    root: bytes | None
    amounts: Mapping[str, int]


@dataclass(frozen=True)
class Root:
    """A payout root on chain. ``claimable_at`` is unix seconds, 0 for one that was revoked or never there."""

    root: bytes
    claimable_at: int


@dataclass(frozen=True)
class Prepared:
    """A transaction that the escrow would accept now. ``max_fee_wei`` is the most that its gas can cost."""

    transaction: Mapping[str, Any]
    max_fee_wei: int


@dataclass(frozen=True)
class Sent:
    """A transaction that is in a block, and what its gas did cost."""

    tx_hash: str
    block_number: int
    fee_wei: int


class Escrow:
    """One escrow contract, through one node of its chain."""

    def __init__(self, rpc_url: str, address: str) -> None:
        """Raises :class:`InvalidArgument` for an address that is none."""
        if not rpc_url.startswith(("http://", "https://")):
            raise InvalidArgument("--rpc is the http(s) address of a node of the chain")
        self.address = check_wallet(address)
        self._http = httpx.Client(base_url=rpc_url, timeout=TIMEOUT_SECONDS)
        self.chain_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def check(self, chain_id: int | None) -> None:
        """Find out where we are.

        Raises:
            OtherChain: it is not the chain with this id, or there is no contract.
            RpcUnavailable, RpcRefused: the node does not answer, or not to this.
        """
        self.chain_id = _number(self._ask("eth_chainId"))
        if chain_id is not None and self.chain_id != chain_id:
            raise OtherChain(f"the node of --rpc is on chain {self.chain_id}, the gateway on chain {chain_id}")
        if self._ask("eth_getCode", self.address, "latest") in ("0x", None):
            raise OtherChain(f"there is no contract at {self.address} on chain {self.chain_id}")

    # ---- reading

    def credit_of(self, wallet: str) -> int:
        """What the wallet can withdraw, in wei. Raises as :meth:`check`."""
        return int(self._view("creditOf(address)", [wallet], "uint256"))

    def claimed_of(self, wallet: str) -> int:
        """What the wallet has claimed from payout roots, in wei. Raises as :meth:`check`."""
        return int(self._view("claimedOf(address)", [wallet], "uint256"))

    def root_of(self, epoch: int) -> Root:
        """The payout root of an epoch. Raises as :meth:`check`."""
        root, _total, claimable_at = self._view("payoutRootOf(uint256)", [epoch], "(bytes32,uint128,uint64)")
        return Root(bytes(root), int(claimable_at))

    def time(self) -> int:
        """The newest block's time, in unix seconds. Raises as :meth:`check`."""
        return _number(self._ask("eth_getBlockByNumber", "latest", False)["timestamp"])

    def paid_in_batch(self, tx_hash: str, number: int) -> Paid | None:
        """What a transaction credited as the batch of this number; None: it is in no block, or settled no such batch.
        Raises as :meth:`check`."""
        topics = ["0x" + keccak(text=_SETTLED).hex(), "0x" + number.to_bytes(32).hex()]
        for log in self._logs(tx_hash, topics):
            data = bytes.fromhex(log["data"][2:])
            _, wallets, amounts, _ = _decoded(["(address[],uint256[])", "address[]", "uint256[]", "uint256"], data)
            return Paid(bytes.fromhex(log["topics"][2][2:]), _sums(wallets, amounts))
        return None

    def released_in(self, tx_hash: str) -> Paid | None:
        """What a transaction credited out of the escrow of one request; None as :meth:`paid_in_batch`."""
        for log in self._logs(tx_hash, ["0x" + keccak(text=_RELEASED).hex()]):
            data = bytes.fromhex(log["data"][2:])
            wallets, amounts, _, _ = _decoded(["address[]", "uint256[]", "uint256", "uint256"], data)
            return Paid(None, _sums(wallets, amounts))
        return None

    def _logs(self, tx_hash: str, topics: Sequence[str]) -> list[dict[str, Any]]:
        receipt = self._ask("eth_getTransactionReceipt", tx_hash)
        return [
            log
            for log in (receipt or {}).get("logs", [])
            if check_wallet(log["address"]) == self.address and log["topics"][: len(topics)] == list(topics)
        ]

    def _view(self, signature: str, arguments: Sequence[object], answer: str) -> Any:
        call = {"to": self.address, "data": _call_data(signature, arguments)}
        (value,) = _decoded([answer], bytes.fromhex(self._ask("eth_call", call, "latest")[2:]))
        return value

    # ---- taking out

    def withdraw(self, wallet: str, to: str) -> Prepared:
        """Everything that ``wallet`` is credited with, to ``to``.

        Raises:
            ContractRefused: the escrow would refuse it now.
            RpcRefused: among others, when the wallet cannot pay for the gas.
        """
        return self._prepared(wallet, _call_data("withdraw(address)", [to]))

    def claim(self, wallet: str, epoch: int, cumulative_wei: int, proof: Sequence[bytes]) -> Prepared:
        """What the root of ``epoch`` gives ``wallet`` and was not claimed before, as credit. Raises as
        :meth:`withdraw`."""
        signature = "claimPayout(uint256,address,uint256,bytes32[])"
        return self._prepared(wallet, _call_data(signature, [epoch, wallet, cumulative_wei, list(proof)]))

    def _prepared(self, wallet: str, data: str) -> Prepared:
        call = {"from": wallet, "to": self.address, "data": data}
        gas = _number(self._ask("eth_estimateGas", call)) * GAS_MARGIN_PERCENT // 100
        tip = _number(self._ask("eth_maxPriorityFeePerGas"))
        base = _number(self._ask("eth_getBlockByNumber", "latest", False).get("baseFeePerGas", "0x0"))
        price = 2 * base + tip
        transaction = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": _number(self._ask("eth_getTransactionCount", wallet, "pending")),
            "to": self.address,
            "value": 0,
            "data": data,
            "gas": gas,
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": price,
        }
        return Prepared(transaction, gas * price)

    def send(self, prepared: Prepared, key: WalletKey) -> Sent:
        """Sign, send, and wait until it is in a block.

        Raises:
            RpcRefused: the node does not take it.
            RpcUnavailable: it is in no block in time; it may still get into one.
            ContractRefused: it is in a block and did nothing.
        """
        raw, tx_hash = key.sign_transaction(prepared.transaction)
        self._ask("eth_sendRawTransaction", raw)
        receipt = self._waited(tx_hash)
        if _number(receipt["status"]) != 1:
            raise ContractRefused(f"the transaction {tx_hash} was reverted", reason="reverted", tx_hash=tx_hash)
        fee = _number(receipt["gasUsed"]) * _number(receipt["effectiveGasPrice"])
        return Sent(tx_hash, _number(receipt["blockNumber"]), fee)

    def _waited(self, tx_hash: str) -> dict[str, Any]:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            receipt: dict[str, Any] | None = self._ask("eth_getTransactionReceipt", tx_hash)
            if receipt is not None:
                return receipt
            time.sleep(POLL_SECONDS)
        raise RpcUnavailable(f"{tx_hash} was sent, and is in no block after {WAIT_SECONDS:.0f} s", tx_hash=tx_hash)

    # ---- JSON-RPC

    def _ask(self, method: str, *parameters: object) -> Any:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        try:
            answer = self._http.post("", json=question).json()
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise RpcUnavailable(f"the chain's node does not answer: {why}", retry_after=5.0) from None
        except ValueError:
            raise RpcRefused("what answers at --rpc is no node of an EVM chain") from None
        if not isinstance(answer, dict) or "jsonrpc" not in answer or not answer.keys() & {"result", "error"}:
            raise RpcRefused("what answers at --rpc is no node of an EVM chain")
        if refusal := answer.get("error"):
            raise _refusal(refusal)
        return answer["result"]


def _refusal(error: Any) -> ContractRefused | RpcRefused:
    facts = error if isinstance(error, dict) else {}
    said, data = str(facts.get("message", error))[:200], facts.get("data")
    if facts.get("code") == 3 or "revert" in said:
        reason = _REASONS.get(data[:10], said) if isinstance(data, str) else said
        return ContractRefused(f"the escrow refuses: {reason}", reason=reason)
    return RpcRefused(f"the chain's node refuses: {said}")


def _call_data(signature: str, arguments: Sequence[object]) -> str:
    types = signature[signature.index("(") + 1 : -1].split(",")
    return "0x" + (function_signature_to_4byte_selector(signature) + encode(types, arguments)).hex()


def _decoded(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    try:
        return decode(types, data)
    except (DecodingError, OverflowError):
        raise OtherChain("the contract at the escrow's address is not an escrow of Far Mesh") from None


def _sums(wallets: Sequence[str], amounts: Sequence[int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for wallet, wei in zip(wallets, amounts, strict=True):
        name = check_wallet(wallet)
        sums[name] = sums.get(name, 0) + wei
    return sums


def _number(value: Any) -> int:
    try:
        return int(value, 16)
    except (TypeError, ValueError):
        raise RpcRefused("what answers at --rpc is no node of an EVM chain") from None
