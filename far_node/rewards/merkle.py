"""Merkle proofs as the escrow contract verifies them (``MerkleProof`` of OpenZeppelin): leaves that are hashed twice,
and sorted pairs."""

from __future__ import annotations

from collections.abc import Iterable

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from far_node.rewards.amounts import WEI_PER_UNIT


def detail_leaf(request_id: str, wallet: str, units: int) -> bytes:
    """What a wallet gets for one request, as a leaf of a batch's tree."""
    return _leaf(("bytes32", "address", "uint256"), keccak(text=request_id), wallet, units * WEI_PER_UNIT)


def payout_leaf(wallet: str, cumulative_units: int) -> bytes:
    """All that payout roots ever gave to a wallet, as a leaf of a root's tree."""
    return _leaf(("address", "uint256"), wallet, cumulative_units * WEI_PER_UNIT)


def is_proven(root: bytes, leaf: bytes, proof: Iterable[bytes]) -> bool:
    """Whether ``proof`` leads from ``leaf`` to ``root``."""
    for other in proof:
        leaf = keccak(min(leaf, other) + max(leaf, other))
    return leaf == root


def _leaf(types: tuple[str, ...], *values: object) -> bytes:
    return keccak(keccak(encode(types, values)))
