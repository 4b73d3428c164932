"""The node's own proofs are those of the contracts, and those that a marketplace computes."""

from __future__ import annotations

import random

from far_mesh.marketplace.settlement import merkle as of_marketplace
from far_node.rewards.merkle import detail_leaf, is_proven, payout_leaf
from tests.support.documents import wallet_of


def test_both_sides_make_the_same_leaves() -> None:
    dice = random.Random(5)
    for index in range(50):
        wallet, units = wallet_of(str(index)), dice.randrange(2**60)
        assert [detail_leaf(f"req_{index}", wallet, units)] == of_marketplace.detail_leaves(
            f"req_{index}", {wallet: units}, 0
        )
        assert payout_leaf(wallet, units) == of_marketplace.payout_leaf(wallet, units)


def test_a_proof_holds_for_its_leaf_and_no_other() -> None:
    for size in (1, 2, 3, 7, 64):
        leaves = [payout_leaf(wallet_of(str(index)), index) for index in range(size)]
        tree = of_marketplace.Tree.of(leaves)
        for index, leaf in enumerate(leaves):
            proof = tree.proof(leaf)
            assert is_proven(tree.root, leaf, proof)
            assert not is_proven(tree.root, payout_leaf(wallet_of(str(index)), index + 1), proof)
            assert not is_proven(tree.root, leaf, [*proof, bytes(32)])
            if proof:
                assert not is_proven(tree.root, leaf, proof[1:])
