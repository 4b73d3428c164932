"""Deposits and payouts on a real EVM: what is verified, what is refused, and what a reorganisation does to both."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh.marketplace.chain.anvil import CHAIN_ID, dev_key
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.node import Call, call_data
from far_mesh.marketplace.errors import (
    ChainMismatch,
    ChainUnavailable,
    InvalidSetting,
    MissingSetting,
    TransactionReverted,
)
from far_mesh.marketplace.payments import evm, hyperliquid
from far_mesh.marketplace.payments.errors import (
    DepositPending,
    DepositRefused,
    DepositUnknown,
    PayoutFundsShort,
    PayoutInFlight,
    PayoutInvalid,
)
from far_mesh.marketplace.payments.provider import AddressKind, Payout, State
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.house import rpc
from tests.far_mesh.marketplace.payments.odd_token import Manner
from tests.far_mesh.marketplace.payments.street import DEPLOYER, FAR, PAYER, TILL, Street, stranger

# ---- deposits


async def test_a_transfer_to_the_deposit_address_is_a_deposit_of_its_sender(street: Street) -> None:
    provider = street.provider()
    tx_hash = await street.pay(5 * FAR)
    (deposit,) = await provider.verify_deposit(tx_hash)
    assert (deposit.payer, deposit.units, deposit.atoms) == (address_of(DEPLOYER), 5 * FAR, 5 * 10**18)
    assert deposit.block.hash == await street.node.block_hash(deposit.block.number)
    assert deposit.deposit_id == f"eip155:{CHAIN_ID}:{tx_hash}:0"
    again = await street.provider().verify_deposit("0x" + tx_hash[2:].upper())
    assert again == (deposit,)


async def test_a_deposit_in_the_escrow_is_of_whom_it_is_for(street: Street) -> None:
    provider = street.provider(escrow_address=street.deployment.escrow)
    user = stranger()
    await street.send(
        DEPLOYER,
        street.deployment.token,
        call_data("approve(address,uint256)", street.deployment.escrow, 10**19),
    )
    deposit_for = call_data("depositFor(address,uint256)", user, 7 * 10**18)
    (deposit,) = await provider.verify_deposit(await street.send(DEPLOYER, street.deployment.escrow, deposit_for))
    assert (deposit.payer, deposit.units) == (user, 7 * FAR)
    with pytest.raises(DepositRefused, match="deposits nothing in the escrow"):
        await provider.verify_deposit(await street.pay(1, to=street.deployment.escrow))


async def test_the_chains_own_coin_is_a_deposit_where_no_token_is_set(street: Street) -> None:
    provider = street.hype()
    (deposit,) = await provider.verify_deposit(await street.send(DEPLOYER, TILL, value=3 * 10**18 + 1))
    assert (deposit.payer, deposit.units, deposit.atoms) == (address_of(DEPLOYER), 3 * FAR, 3 * 10**18 + 1)
    for to, value in ((TILL, 0), (stranger(), 5)):
        with pytest.raises(DepositRefused, match=f"no HYPE to {TILL}"):
            await provider.verify_deposit(await street.send(DEPLOYER, to, value=value))


async def test_what_pays_us_nothing_is_refused_with_the_reason(street: Street) -> None:
    provider, odd = street.provider(), await street.odd_token()
    transfer = call_data("transfer(address,uint256)", TILL, 5)
    cases = {
        "pays another token": await street.send(DEPLOYER, odd, transfer),
        f"to {TILL}": await street.pay(5, to=stranger()),
        "pays no": await street.pay(0),
    }
    for reason, tx_hash in cases.items():
        with pytest.raises(DepositRefused, match=reason):
            await provider.verify_deposit(tx_hash)
    await street.fund(1, dev_key(9))
    with pytest.raises(DepositRefused, match="pays no"):  # to itself
        await provider.verify_deposit(await street.pay(1, key=dev_key(9)))


async def test_a_reverted_transaction_pays_nothing(street: Street) -> None:
    call = Call(street.deployment.token, call_data("transfer(address,uint256)", TILL, 10**30), 100_000)
    nonce = await street.node.transaction_count(address_of(PAYER))
    signed = await street.node.sign(call, nonce, PAYER)
    await street.node.send_raw(signed.raw)
    with pytest.raises(DepositRefused, match="reverted"):
        await street.provider().verify_deposit(signed.tx_hash)


@pytest.mark.parametrize("text", ["", "0x12", "0x" + "g" * 64, "0x" + "a" * 64 + "\n", "a" * 66, "0x" + "a" * 65])
async def test_what_is_no_hash_is_said_to_be_none(street: Street, text: str) -> None:
    with pytest.raises(InvalidArgument):
        await street.provider().verify_deposit(text)


async def test_an_unknown_transaction_is_unknown(street: Street) -> None:
    with pytest.raises(DepositUnknown):
        await street.provider().verify_deposit("0x" + "ab" * 32)


async def test_what_arrives_counts_and_not_what_a_token_announces(street: Street) -> None:
    odd = await street.odd_token()
    provider = street.provider(token_address=odd)
    transfer = call_data("transfer(address,uint256)", TILL, 1_000)
    await street.behave(odd, Manner.TAKES_A_FEE)
    (deposit,) = await provider.verify_deposit(await street.send(DEPLOYER, odd, transfer))
    assert (deposit.atoms, deposit.units) == (900, 900_000)
    await street.behave(odd, Manner.ONLY_SAYS_SO)
    with pytest.raises(DepositRefused, match="do not bear out"):
        await provider.verify_deposit(await street.send(DEPLOYER, odd, transfer))


async def test_two_deposits_in_one_block_are_told_apart(street: Street) -> None:
    await street.fund(10 * FAR)
    provider = street.provider()
    await rpc(street.url, "evm_setAutomine", False)
    token, hashes = street.deployment.token, []
    for key, units in ((DEPLOYER, 3 * FAR), (PAYER, 4 * FAR)):
        call = Call(token, call_data("transfer(address,uint256)", TILL, units * FAR), 100_000)
        signed = await street.node.sign(call, await street.node.transaction_count(address_of(key)), key)
        await street.node.send_raw(signed.raw)
        hashes.append(signed.tx_hash)
    await street.mine()
    found = [(await provider.verify_deposit(tx_hash))[0] for tx_hash in hashes]
    assert [one.units for one in found] == [3 * FAR, 4 * FAR]
    assert [one.deposit_id.endswith(":0") for one in found] == [True, True]  # wherever in the block they are
    assert found[0].block == found[1].block


async def test_a_deposit_waits_for_its_block_and_those_on_top(street: Street) -> None:
    provider = street.provider(confirmations=3)
    await rpc(street.url, "evm_setAutomine", False)
    call = Call(street.deployment.token, call_data("transfer(address,uint256)", TILL, 5), 100_000)
    signed = await street.node.sign(call, await street.node.transaction_count(address_of(DEPLOYER)), DEPLOYER)
    await street.node.send_raw(signed.raw)
    with pytest.raises(DepositPending, match="in no block"):
        await provider.verify_deposit(signed.tx_hash)
    for on_top in range(3):
        await street.mine()
        with pytest.raises(DepositPending) as caught:
            await provider.verify_deposit(signed.tx_hash)
        assert (caught.value.facts["confirmations"], caught.value.facts["needed"]) == (on_top, 3)
    await street.mine()
    assert (await provider.verify_deposit(signed.tx_hash))[0].atoms == 5


async def test_a_reorganisation_of_three_blocks_takes_a_deposit_away_and_brings_it_back_as_the_same(
    street: Street,
) -> None:
    hasty, patient = street.provider(), street.provider(confirmations=4)
    snapshot = await street.node.block_number()
    tx_hash = await street.pay(5 * FAR)
    raw = (await rpc(street.url, "eth_getRawTransactionByHash", tx_hash)) or ""
    await street.mine(2)
    (before,) = await hasty.verify_deposit(tx_hash)
    with pytest.raises(DepositPending):
        await patient.verify_deposit(tx_hash)
    await rpc(street.url, "anvil_reorg", 3, [])
    assert await street.node.block_number() == snapshot + 3
    for provider in (hasty, patient):
        with pytest.raises((DepositUnknown, DepositPending)):
            await provider.verify_deposit(tx_hash)
    await street.node.send_raw(raw)
    await street.mine(4)
    (after,) = await hasty.verify_deposit(tx_hash)
    assert after.deposit_id == before.deposit_id
    assert after.block != before.block


# ---- payouts


async def test_a_payout_moves_the_money_once_it_is_sent_and_not_before(street: Street) -> None:
    await street.fund()
    provider, ann = street.provider(), stranger()
    signed = await provider.prepare([Payout(ann, 2 * FAR)])
    assert (await provider.status(signed)).state is State.PENDING
    assert await street.balance(ann) == 0
    assert [await provider.send(signed), await street.balance(ann)] == [None, 2 * 10**18]
    status = await provider.status(signed)
    assert status.state is State.CONFIRMED
    assert status.block is not None
    await provider.send(signed)  # again is harmless
    assert await street.balance(ann) == 2 * 10**18


async def test_the_chains_own_coin_is_paid_too(street: Street) -> None:
    provider, ann = street.hype(), stranger()
    await provider.send(await provider.prepare([Payout(ann, 123)]))
    assert await street.node.native_balance(ann) == 123 * 10**9


async def test_of_two_that_were_prepared_at_once_one_happens(street: Street) -> None:
    await street.fund()
    first, second, ann = street.provider(), street.provider(), stranger()
    signed = [await one.prepare([Payout(ann, units)]) for one, units in ((first, 1 * FAR), (second, 2 * FAR))]
    assert signed[0].fence == signed[1].fence
    await second.send(signed[1])
    assert await first.send(signed[0]) is not None
    states = [(await first.status(one)).state for one in signed]
    assert states == [State.DISPLACED, State.CONFIRMED]
    assert (await first.status(signed[0])).may_pay_again
    assert await street.balance(ann) == 2 * 10**18


async def test_while_one_is_on_its_way_no_other_is_signed_and_it_can_be_hastened(street: Street) -> None:
    await street.fund()
    provider, ann = street.provider(), stranger()
    await rpc(street.url, "evm_setAutomine", False)
    slow = await provider.prepare([Payout(ann, FAR)])
    await provider.send(slow)
    with pytest.raises(PayoutInFlight):
        await provider.prepare([Payout(ann, FAR)])
    fast = await provider.hasten(slow)
    assert (fast.fence, fast.tx_id == slow.tx_id) == (slow.fence, False)
    assert await provider.send(fast) is None
    await street.mine()
    assert [(await provider.status(one)).state for one in (slow, fast)] == [State.DISPLACED, State.CONFIRMED]
    assert await street.balance(ann) == 10**18


async def test_a_payout_is_confirmed_when_enough_blocks_are_on_top(street: Street) -> None:
    await street.fund()
    provider = street.provider(confirmations=2)
    signed = await provider.prepare([Payout(stranger(), FAR)])
    await provider.send(signed)
    while (await provider.status(signed)).state is State.PENDING:
        await asyncio.sleep(0.02)
    for on_top in range(2):
        status = await provider.status(signed)
        assert (status.state, status.confirmations) == (State.CONFIRMING, on_top)
        await street.mine()
    assert (await provider.status(signed)).state is State.CONFIRMED


async def test_a_reorganisation_of_three_blocks_under_a_payout_is_seen_and_mended(street: Street) -> None:
    await street.fund()
    provider, ann = street.provider(), stranger()
    signed = await provider.prepare([Payout(ann, FAR)])
    await provider.send(signed)
    await street.mine(2)
    before = await provider.status(signed)
    assert before.state is State.CONFIRMED
    await rpc(street.url, "anvil_reorg", 3, [])
    gone = await provider.status(signed, before.block)
    assert (gone.state, gone.may_pay_again) == (State.VANISHED, False)
    assert await street.balance(ann) == 0
    await provider.send(signed)
    await street.mine()
    after = await provider.status(signed, before.block)
    assert after.state is State.CONFIRMED
    assert after.block != before.block
    assert await street.balance(ann) == 10**18


async def test_a_nonce_that_something_else_has_used_displaces_for_good_only_when_it_is_deep(street: Street) -> None:
    await street.fund()
    provider = street.provider(confirmations=2)
    signed = await provider.prepare([Payout(stranger(), FAR)])
    await street.send(PAYER, stranger(), value=1)
    for _ in range(2):
        assert (await provider.status(signed)).state is State.PENDING
        await street.mine()
    assert (await provider.status(signed)).state is State.DISPLACED


async def test_a_payout_that_the_token_refuses_has_failed_and_may_be_paid_again(street: Street) -> None:
    odd = await street.odd_token()
    await street.send(DEPLOYER, odd, call_data("transfer(address,uint256)", address_of(PAYER), 1000))
    provider = street.provider(token_address=odd)
    signed = await provider.prepare([Payout(stranger(), 1_000)])
    await street.behave(odd, Manner.REVERTS)
    await provider.send(signed)
    status = await provider.status(signed)
    assert (status.state, status.may_pay_again) == (State.FAILED, True)
    for manner in (Manner.REVERTS, Manner.ANSWERS_FALSE):
        await street.behave(odd, manner)
        with pytest.raises(TransactionReverted):
            await provider.prepare([Payout(stranger(), 1_000)])
    await street.behave(odd, Manner.ANSWERS_NOTHING)
    await provider.prepare([Payout(stranger(), 1_000)])


async def test_too_little_money_is_said_to_be_that(street: Street) -> None:
    poor = str(Account.create().key.to_0x_hex())
    nothing = street.provider(settler_private_key=poor)
    with pytest.raises(PayoutFundsShort, match="pay the fees"):
        await nothing.prepare([Payout(stranger(), 1)])
    with pytest.raises(PayoutFundsShort, match="smallest parts"):
        await street.provider().prepare([Payout(stranger(), 1)])
    with pytest.raises(PayoutFundsShort, match="smallest parts"):
        await street.hype().prepare([Payout(stranger(), 10**9 * FAR)])
    all_of_it = await street.node.native_balance(address_of(PAYER)) // 10**9
    with pytest.raises(PayoutFundsShort, match="with the fee"):
        await street.hype().prepare([Payout(stranger(), all_of_it)])


async def test_what_cannot_be_paid_is_refused_before_anything_is_signed(street: Street) -> None:
    await street.fund()
    provider, odd = street.provider(), await street.odd_token()
    good = Payout(stranger(), 1)
    cases: list[list[Payout]] = [
        [],
        [good, Payout(stranger(), 1)],
        [replace(good, units=0)],
        [replace(good, units=-1)],
        [replace(good, to="0x" + "00" * 20)],
        [replace(good, to=street.deployment.token)],
        [replace(good, to=TILL)],
        [replace(good, to=provider.payer)],
        [replace(good, to=good.to[:-1])],
        [replace(good, to="somebody")],
    ]
    for payouts in cases:
        with pytest.raises(PayoutInvalid):
            await provider.prepare(payouts)
    with pytest.raises(PayoutInvalid, match="smallest part of ODD"):
        await street.provider(token_address=odd).prepare([Payout(stranger(), 1_500)])
    with pytest.raises(PayoutInvalid, match="batch"):
        await street.provider(escrow_address=street.deployment.escrow).prepare([good])


# ---- addresses and settings


async def test_addresses_are_explained(street: Street) -> None:
    provider, ann = street.provider(escrow_address=street.deployment.escrow), stranger()
    expected = {
        ann.lower(): (ann, AddressKind.WALLET, True),
        street.deployment.token: (street.deployment.token, AddressKind.OURS, False),
        street.deployment.escrow: (street.deployment.escrow, AddressKind.OURS, False),
        provider.payer: (provider.payer, AddressKind.OURS, False),
        TILL: (TILL, AddressKind.OURS, False),
        "0x" + "00" * 20: ("0x" + "00" * 20, AddressKind.UNUSABLE, False),
        "": ("", AddressKind.UNUSABLE, False),
        "x" * 200: ("x" * 100, AddressKind.UNUSABLE, False),
        ann.swapcase().replace("0X", "0x"): (ann.swapcase().replace("0X", "0x"), AddressKind.UNUSABLE, False),
    }
    for asked, (address, kind, payable) in expected.items():
        info = await provider.explain_address(asked)
        assert (info.address, info.kind, info.payable) == (address, kind, payable), asked
        assert info.explanation
    odd = await street.odd_token()
    assert (await provider.explain_address(odd)).payable
    assert not (await street.hype().explain_address(odd)).payable


async def test_a_chain_that_is_not_the_one_of_the_settings_is_refused(street: Street) -> None:
    coin = await street.provider(escrow_address=street.deployment.escrow).check()
    assert (coin.symbol, coin.decimals, coin.token) == ("FAR", 18, street.deployment.token)
    wrong: dict[str, dict[str, Any]] = {
        "id": {"chain_id": 56},
        "no token": {"token_address": stranger()},
        "no escrow": {"escrow_address": stranger()},
        "the escrow at": {"escrow_address": street.deployment.escrow, "token_address": await street.odd_token()},
    }
    for reason, changes in wrong.items():
        with pytest.raises(ChainMismatch, match=reason):
            await street.provider(**changes).check()
    with pytest.raises(ChainUnavailable):
        await street.provider(chain_rpc_url="http://127.0.0.1:9").check()


async def test_hype_is_paid_on_hyperevm(street: Street) -> None:
    await rpc(street.url, "anvil_setChainId", 998)
    provider, ann = street.provider(create=hyperliquid.create, token_address="", chain_id=998), stranger()
    assert (await provider.check()).symbol == "HYPE"
    signed = await provider.prepare([Payout(ann, FAR)])
    assert await provider.send(signed) is None
    assert await street.node.native_balance(ann) == 10**18
    assert (await provider.status(signed)).state is State.CONFIRMED


def test_hyperliquid_has_two_chains() -> None:
    values: dict[str, Any] = {"chain_rpc_url": "http://127.0.0.1:9", "settler_private_key": PAYER}
    for chain_id in (999, 998):
        hyperliquid.create(Settings.read(**values, chain_id=chain_id))
    with pytest.raises(InvalidSetting, match="999") as caught:
        hyperliquid.create(Settings.read(**values, chain_id=56))
    assert caught.value.facts["setting"] == "FAR_CHAIN_ID"


def test_what_is_missing_or_unusable_is_named_and_not_shown() -> None:
    values: dict[str, Any] = {
        "chain_rpc_url": "http://127.0.0.1:9",
        "token_address": "0x" + "11" * 20,
        "settler_private_key": PAYER,
    }
    provider = evm.create(Settings.read(**values))
    assert PAYER[2:] not in repr(provider)
    for name in values:
        with pytest.raises(MissingSetting, match=name.upper()):
            evm.create(Settings.read(**{key: value for key, value in values.items() if key != name}))
    unusable = {
        "settler_private_key": "0xsecret",
        "token_address": "0x11",
        "escrow_address": "0x11",
        "deposit_address": "x",
    }
    for name, value in unusable.items():
        with pytest.raises(FarError, match=name.upper()) as caught:
            evm.create(Settings.read(**(values | {name: value})))
        assert isinstance(caught.value, InvalidSetting)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
