"""The trees are those of OpenZeppelin's library, and the escrow takes our proofs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.ids import ZERO_ADDRESS
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.errors import TransactionReverted
from far_mesh.marketplace.settlement.merkle import (
    PAYOUT,
    Tree,
    detail_leaves,
    is_proven,
    leaf_of,
    payout_leaf,
    payout_tree,
)
from tests.far_mesh.marketplace.house import SETTLER, LiveChain, new_user, rpc
from tests.support.documents import wallet_of

ONES, TWOS = "0x" + "11" * 20, "0x" + "22" * 20
DAY = 86_400


def test_the_example_of_the_library_has_the_root_that_it_says() -> None:
    tree = Tree.of([leaf_of(PAYOUT, (ONES, 5 * 10**18)), leaf_of(PAYOUT, (TWOS, 25 * 10**17))])
    assert tree.root.hex() == "d4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"
    proof = tree.proof(payout_leaf(ONES, 5 * 10**9))
    assert [one.hex() for one in proof] == ["b92c48e9d7abe27fd8dfd6b5dfdbfb1c9a463f80c712b66f3a5180a090cccafc"]


def test_a_tree_of_one_leaf_is_that_leaf() -> None:
    tree = payout_tree({ONES: 7})
    assert tree.root == payout_leaf(ONES, 7)
    assert tree.proof(tree.root) == []


def test_a_tree_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        payout_tree({})


def test_a_leaf_that_is_not_there_has_no_proof() -> None:
    for units in (6, 8):
        with pytest.raises(KeyError):
            payout_tree({ONES: 7}).proof(payout_leaf(ONES, units))


@given(st.sets(st.integers(1, 10**30), min_size=1, max_size=40))
def test_every_leaf_is_proven_and_nothing_else(numbers: set[int]) -> None:
    leaves = [leaf_of(["uint256"], [number]) for number in numbers]
    tree, other = Tree.of(leaves), leaf_of(["uint256"], [0])
    assert Tree.of(reversed(leaves)) == tree
    for leaf in leaves:
        assert is_proven(tree.root, leaf, tree.proof(leaf))
        assert not is_proven(tree.root, other, tree.proof(leaf))


def test_a_request_has_a_line_for_each_provider_and_one_for_its_fee() -> None:
    lines = detail_leaves("r1", {ONES: 3, TWOS: 4}, 2)
    assert len(set(lines)) == 3
    assert lines == detail_leaves("r1", {ONES: 3, TWOS: 4}, 0) + detail_leaves("r1", {ZERO_ADDRESS: 2}, 0)
    assert not set(lines) & set(detail_leaves("r2", {ONES: 3, TWOS: 4}, 2))


async def test_the_escrow_pays_by_our_proofs_and_refuses_others(live_chain: LiveChain) -> None:
    chain, epoch = live_chain.connect(), 900_001
    user = address_of(await new_user(chain, 1_000))
    cumulative = {str(wallet_of(f"claimer {index}")): 10 + index for index in range(5)}
    tree, total = payout_tree(cumulative), sum(cumulative.values())
    call = await chain.commit_payout_root(address_of(SETTLER), epoch, tree.root, total, 3, {user: total + 3})
    await chain.send(call, SETTLER)
    committed = await chain.payout_root_of(epoch)
    assert (committed.root, committed.total_units) == (tree.root, total)
    snapshot = await rpc(chain.rpc_url, "evm_snapshot")
    await rpc(chain.rpc_url, "evm_increaseTime", DAY)
    wallet = ChainWallet(chain, SETTLER)  # anybody may ask, and the provider gets it
    for provider, units in cumulative.items():
        proof = tree.proof(payout_leaf(provider, units))
        with pytest.raises(TransactionReverted, match="PayoutProofInvalid"):
            await wallet.claim_payout(epoch, provider, units + 1, proof)
        await wallet.claim_payout(epoch, provider, units, proof)
        assert await chain.credit_of_wei(provider) == units * 10**9
        assert await chain.claimed_of(provider) == units
    await rpc(chain.rpc_url, "evm_revert", snapshot)
    await chain.close()
