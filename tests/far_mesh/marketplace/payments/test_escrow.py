"""The escrow itself takes what we take as a voucher, refuses what we refuse, and pays batches once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from eth_account import Account

from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.node import call_data
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.errors import TransactionReverted
from far_mesh.marketplace.payments.errors import PayoutInvalid, VoucherRefused
from far_mesh.marketplace.payments.provider import Batch, Payout, State
from far_mesh.marketplace.payments.vouchers import Channel, Domain, Voucher, channel_id_of, check, parse, sign
from tests.far_mesh.marketplace.payments.street import DEPLOYER, FAR, SETTLER, Street, stranger
from tests.support.vouchers import KINDS, Bench

OPEN = "openChannel(bytes32,address,uint256,uint32)"
REDEEM = "redeemVouchers((bytes32,uint128,uint128,bytes)[])"
SALT, HOUR = b"\7" * 32, 3_600
DEPOSIT, PROMISED = 1_000_000, 400_000


async def open_channel(street: Street, key: str) -> Bench:
    """The deployer's channel, whose vouchers the key of a session signs; ``PROMISED`` is redeemed."""
    await ChainWallet(street.chain, DEPLOYER).deposit(10 * FAR)
    escrow, user = street.deployment.escrow, address_of(DEPLOYER)
    data = call_data(OPEN, SALT, address_of(key), DEPOSIT * 10**9, HOUR)
    await street.send(DEPLOYER, escrow, data)
    domain, channel_id = Domain(CHAIN_ID, escrow), channel_id_of(user, SALT)
    await redeem(street, sign(domain, channel_id, PROMISED, key))
    channel = Channel(channel_id, user, address_of(key), DEPOSIT, promised_units=PROMISED)
    return Bench(domain, channel, key, DEPLOYER)


async def redeem(street: Street, voucher: Voucher, units: int | None = None) -> None:
    amount, earned = voucher.units * 10**9, (units or voucher.units) * 10**9
    claim = (bytes.fromhex(voucher.channel_id[2:]), amount, earned, bytes.fromhex(voucher.signature[2:]))
    await street.send(SETTLER, street.deployment.escrow, call_data(REDEEM, [claim]))


async def test_a_voucher_that_is_accepted_here_is_redeemed_there(street: Street) -> None:
    key = str(Account.create().key.to_0x_hex())
    on = await open_channel(street, key)
    voucher = sign(on.domain, on.channel.channel_id, 700_000, key)
    assert check(on.domain, on.channel, parse(voucher.document())) == 300_000
    await redeem(street, voucher, 600_000)
    with pytest.raises(TransactionReverted):
        await redeem(street, voucher, 600_000)
    with pytest.raises(TransactionReverted):
        await redeem(street, voucher, 700_001)


async def test_what_is_refused_here_is_refused_there(street: Street) -> None:
    chance = random.Random(11)
    on = await open_channel(street, f"0x{chance.randbytes(32).hex()}")
    for kind in sorted(KINDS.keys() - {"malformed"}):
        voucher = parse(KINDS[kind](on, chance))
        with pytest.raises(VoucherRefused):
            check(on.domain, on.channel, voucher)
        with pytest.raises(TransactionReverted):
            await redeem(street, voucher)


async def test_a_batch_credits_many_providers_out_of_the_pool_and_only_once(street: Street) -> None:
    await open_channel(street, str(Account.create().key.to_0x_hex()))
    provider = street.provider(escrow_address=street.deployment.escrow, settler_private_key=SETTLER)
    assert provider.max_payouts == 100
    ann, bob = stranger(), stranger()
    payouts = [Payout(ann, 100_000), Payout(bob, 200_000)]
    signed = await provider.prepare(payouts, batch=Batch(1))
    await provider.send(signed)
    assert (await provider.status(signed)).state is State.CONFIRMED
    credits = [await street.chain.credit_of_wei(one) for one in (ann, bob)]
    assert credits == [100_000 * 10**9, 200_000 * 10**9]
    with pytest.raises(TransactionReverted) as caught:
        await provider.prepare(payouts, batch=Batch(1))
    assert caught.value.facts["reason"] == "BatchAlreadySettled"
    with pytest.raises(TransactionReverted) as caught:
        await provider.prepare([Payout(ann, 100_001)], batch=Batch(2))
    assert caught.value.facts["reason"] == "EscrowInsufficientPool"
    with pytest.raises(PayoutInvalid, match="1 to 100"):
        await provider.prepare([Payout(stranger(), 1) for _ in range(101)], batch=Batch(3))


async def test_a_batch_charges_users_and_pays_the_fee(street: Street) -> None:
    user, ann = address_of(DEPLOYER), stranger()
    wallet = ChainWallet(street.chain, DEPLOYER)
    await wallet.deposit(10 * FAR)
    await wallet.allow_spending(10 * FAR)
    provider = street.provider(escrow_address=street.deployment.escrow, settler_private_key=SETTLER)
    batch = Batch(7, {user: 5 * FAR}, fee_units=FAR, details=b"\5" * 32)
    await provider.send(await provider.prepare([Payout(ann, 4 * FAR)], batch=batch))
    assert await street.chain.credit_of_wei(ann) == 4 * 10**18
    assert await street.chain.deposit_of(user) == 5 * FAR
    assert await street.chain.fees_accrued_wei() == 10**18
    for bad in (
        replace(batch, number=-1),
        replace(batch, charges={user: 0}),
        replace(batch, charges={"nobody": 1}),
        replace(batch, fee_units=-1),
        replace(batch, details=b""),
    ):
        with pytest.raises(PayoutInvalid):
            await provider.prepare([Payout(ann, 1)], batch=bad)
