"""Merkle trees in the standard format of OpenZeppelin: what the contracts verify, and what anybody can recompute.

A leaf is ``keccak256(bytes.concat(keccak256(abi.encode(values))))``: hashed twice, so that no inner node passes for
one. Leaves are sorted, and so is each pair before it is hashed, so a proof is a list of hashes without sides
(https://github.com/OpenZeppelin/merkle-tree, ``StandardMerkleTree``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from discovery.protocol.ids import ZERO_ADDRESS
from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import request_key

PAYOUT = ("address", "uint256")
DETAIL = ("bytes32", "address", "uint256")


@dataclass(frozen=True)
class Tree:
    """A tree of ``2n - 1`` hashes of 32 bytes: the root first, the children of node i at 2i + 1 and 2i + 2, and the
    sorted leaves at the end, the smallest last."""

    nodes: tuple[bytes, ...]

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> Tree:
        """The tree over these leaves, in whatever order they come.

        Raises:
            ValueError: there is none.
        """
        ordered = sorted(leaves)
        if not ordered:
            raise ValueError("a tree has at least one leaf")
        inner = len(ordered) - 1
        nodes = [b""] * inner + ordered[::-1]
        for index in reversed(range(inner)):
            nodes[index] = _pair(nodes[2 * index + 1], nodes[2 * index + 2])
        return cls(tuple(nodes))

    @property
    def root(self) -> bytes:
        """What stands for all of the leaves."""
        return self.nodes[0]

    def proof(self, leaf: bytes) -> list[bytes]:
        """The hashes that lead from ``leaf`` to the root: empty when it is the only one.

        Raises:
            KeyError: there is no such leaf.
        """
        index = self._place_of(leaf)
        proof = []
        while index:
            proof.append(self.nodes[index + 1 if index % 2 else index - 1])
            index = (index - 1) // 2
        return proof

    def _place_of(self, leaf: bytes) -> int:
        ordered = self.nodes[len(self.nodes) // 2 :][::-1]
        place = bisect_left(ordered, leaf)
        if place == len(ordered) or ordered[place] != leaf:
            raise KeyError(leaf.hex())
        return len(self.nodes) - 1 - place


def leaf_of(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """The leaf of a line, with the ABI types of its values."""
    return keccak(keccak(encode(types, values)))


def is_proven(root: bytes, leaf: bytes, proof: Iterable[bytes]) -> bool:
    """Whether ``proof`` leads from ``leaf`` to ``root``: ``MerkleProof.verify`` of the contracts."""
    for other in proof:
        leaf = _pair(leaf, other)
    return leaf == root


def _pair(left: bytes, right: bytes) -> bytes:
    return keccak(min(left, right) + max(left, right))


# ---- the two trees that we make


def payout_leaf(wallet: str, cumulative_units: int) -> bytes:
    """The leaf from which a provider claims: all that payout roots ever gave to ``wallet``."""
    return leaf_of(PAYOUT, (wallet, units_to_wei(cumulative_units)))


def payout_tree(cumulative_units: Mapping[str, int]) -> Tree:
    """The tree of a payout root, from the cumulative units of each wallet in it.

    Raises:
        ValueError: it is of nobody.
    """
    return Tree.of(payout_leaf(wallet, units) for wallet, units in cumulative_units.items())


def detail_leaves(request_id: str, payouts: Mapping[str, int], fee_units: int) -> list[bytes]:
    """The lines of a request in the tree of a batch: (request key, provider, wei) for each provider, and its fee as a
    line of the zero address if there is one."""
    lines = [*payouts.items(), *([(ZERO_ADDRESS, fee_units)] if fee_units else [])]
    return [leaf_of(DETAIL, (request_key(request_id), wallet, units_to_wei(units))) for wallet, units in lines]
