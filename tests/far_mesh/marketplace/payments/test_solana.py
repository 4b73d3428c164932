"""Deposits and payouts on the virtual machine of Solana."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, TransferParams, create_account
from solders.system_program import transfer as transfer_sol
from solders.token.associated import get_associated_token_address as account_of

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, InvalidSetting, MissingSetting
from far_mesh.marketplace.payments import solana
from far_mesh.marketplace.payments.errors import (
    DepositPending,
    DepositRefused,
    DepositUnknown,
    PayoutFundsShort,
    PayoutInvalid,
)
from far_mesh.marketplace.payments.provider import AddressKind, Payout, State
from far_mesh.marketplace.payments.solana import MAX_PAYOUTS, SYSTEM_PROGRAM, TOKEN_PROGRAM, SolanaPayments
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.payments.solana_node import (
    FINAL_AFTER,
    SOL,
    SolanaNode,
    create_ata,
    mint_to,
    transfer,
)

TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")


class Square:
    """One machine, one token of which Ann has much, a till for deposits, and a paying wallet."""

    def __init__(self) -> None:
        self.node = SolanaNode()
        self.ann, self.payer = self.node.wallet(), self.node.wallet()
        self.till = Keypair().pubkey()
        self.mint = self.node.mint(self.ann)
        self.give(self.ann.pubkey(), 10**15)
        self._open: list[SolanaPayments] = []

    def give(self, owner: Pubkey, atoms: int, mint: Pubkey | None = None) -> None:
        mint = mint or self.mint
        ann = self.ann.pubkey()
        made = [create_ata(ann, owner, mint), mint_to(mint, account_of(owner, mint), ann, atoms)]
        assert self.node.landed[self.node.send(made, self.ann)].err is None

    def pay(self, atoms: int, to: Pubkey | None = None, mint: Pubkey | None = None) -> str:
        """Ann pays somebody, or the till."""
        mint, to, ann = mint or self.mint, to or self.till, self.ann.pubkey()
        source = account_of(ann, mint)
        steps = [create_ata(ann, to, mint), transfer(source, account_of(to, mint), ann, atoms)]
        return self.node.send(steps, self.ann)

    def held(self, owner: Pubkey) -> int:
        return self.node.tokens(account_of(owner, self.mint))

    def provider(self, **changes: Any) -> SolanaPayments:
        values = {
            "solana_rpc_url": self.node.url,
            "solana_mint": str(self.mint),
            "solana_private_key": str(self.payer),
            "deposit_address": str(self.till),
        }
        self._open.append(solana.create(Settings.read(**(values | changes))))
        return self._open[-1]

    async def close(self) -> None:
        for one in self._open:
            await one.close()
        await self.node.stop()


@pytest.fixture
async def square() -> AsyncIterator[Square]:
    opened = Square()
    await opened.node.start()
    yield opened
    await opened.close()


# ---- deposits


async def test_a_transfer_to_the_till_is_a_deposit_of_its_sender_once_it_is_final(square: Square) -> None:
    provider = square.provider()
    signature = square.pay(5_000_000_123)
    for _ in range(2):
        with pytest.raises(DepositPending, match="not finalized"):
            await provider.verify_deposit(signature)
        square.node.advance(FINAL_AFTER // 2)
    (deposit,) = await provider.verify_deposit(signature)
    assert (deposit.payer, deposit.atoms, deposit.units) == (str(square.ann.pubkey()), 5_000_000_123, 5_000_000_123)
    assert deposit.deposit_id == f"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:{signature}:0"
    assert await provider.verify_deposit(signature) == (deposit,)


async def test_what_pays_us_nothing_is_refused(square: Square) -> None:
    node, ann = square.node, square.ann
    other = node.mint(ann)
    square.give(ann.pubkey(), 100, other)
    square.give(square.till, 0)
    square.give(square.payer.pubkey(), 100)
    till, mint = account_of(square.till, square.mint), square.mint
    sol = TransferParams(from_pubkey=ann.pubkey(), to_pubkey=square.till, lamports=SOL)
    two = [transfer(account_of(who.pubkey(), mint), till, who.pubkey(), 5) for who in (ann, square.payer)]
    cases = {
        "another token": (square.pay(5, mint=other), "pays no"),
        "to somebody else": (square.pay(5, to=Keypair().pubkey()), "pays no"),
        "nothing": (square.pay(0), "pays no"),
        "SOL": (node.send([transfer_sol(sol)], ann), "pays no"),
        "too much": (square.pay(10**16), "has failed"),
        "out of nowhere": (node.send([mint_to(mint, till, ann.pubkey(), 5)], ann), "who paid"),
        "by two": (node.send(two, ann, square.payer), "who paid"),
    }
    node.advance(FINAL_AFTER)
    for name, (signature, reason) in cases.items():
        with pytest.raises(DepositRefused, match=reason):
            await square.provider().verify_deposit(signature)
        assert node.landed[signature] is not None, name


async def test_only_the_account_that_belongs_to_the_till_counts(square: Square) -> None:
    """A token account can be given away to the till while its maker keeps a hold on it."""
    node, ann, loose = square.node, square.ann, Keypair()
    rent = node.svm.minimum_balance_for_rent_exemption(165)
    made = CreateAccountParams(
        from_pubkey=ann.pubkey(), to_pubkey=loose.pubkey(), lamports=rent, space=165, owner=TOKEN_PROGRAM
    )
    accounts = [AccountMeta(loose.pubkey(), False, True), AccountMeta(square.mint, False, False)]
    initialize = Instruction(TOKEN_PROGRAM, bytes([18]) + bytes(square.till), accounts)
    pay = transfer(account_of(ann.pubkey(), square.mint), loose.pubkey(), ann.pubkey(), 7)
    signature = node.send([create_account(made), initialize, pay], ann, loose)
    assert node.landed[signature].err is None
    node.advance(FINAL_AFTER)
    with pytest.raises(DepositRefused, match="pays no"):
        await square.provider().verify_deposit(signature)


async def test_what_is_no_signature_or_not_known_is_said_to_be_that(square: Square) -> None:
    for text in ("", "abc", "0x" + "ab" * 32, "1" * 200):
        with pytest.raises(InvalidArgument):
            await square.provider().verify_deposit(text)
    unknown = str(square.payer.sign_message(b"never sent"))
    with pytest.raises(DepositUnknown):
        await square.provider().verify_deposit(unknown)


# ---- payouts


async def test_as_many_payouts_as_fit_are_one_transaction(square: Square) -> None:
    square.give(square.payer.pubkey(), 10**6)
    provider, owners = square.provider(), [Keypair().pubkey() for _ in range(MAX_PAYOUTS)]
    signed = await provider.prepare([Payout(str(owner), 100 + index) for index, owner in enumerate(owners)])
    assert len(base64.b64decode(signed.raw)) <= 1_232
    assert (await provider.status(signed)).state is State.PENDING
    assert [square.held(owner) for owner in owners] == [0] * MAX_PAYOUTS
    assert await provider.send(signed) is None
    await provider.send(signed)  # again is harmless
    assert [square.held(owner) for owner in owners] == list(range(100, 100 + MAX_PAYOUTS))
    status = await provider.status(signed)
    assert status.state is State.CONFIRMING
    square.node.advance(FINAL_AFTER)
    status = await provider.status(signed, status.block)
    assert status.state is State.CONFIRMED
    assert await provider.hasten(signed) == signed


async def test_a_payout_that_came_too_late_never_happens_and_may_be_paid_again(square: Square) -> None:
    square.give(square.payer.pubkey(), 1_000)
    provider, bob = square.provider(), Keypair().pubkey()
    late = await provider.prepare([Payout(str(bob), 5)])
    square.node.advance(200)
    assert square.node.height - FINAL_AFTER > late.fence
    assert "BlockhashNotFound" in str(await provider.send(late))
    status = await provider.status(late)
    assert (status.state, status.may_pay_again) == (State.DISPLACED, True)
    again = await provider.prepare([Payout(str(bob), 5)])
    await provider.send(again)
    assert square.held(bob) == 5


async def test_a_node_that_forgets_does_not_make_us_pay_twice(square: Square) -> None:
    square.give(square.payer.pubkey(), 1_000)
    provider = square.provider()
    signed = await provider.prepare([Payout(str(Keypair().pubkey()), 5)])
    await provider.send(signed)
    square.node.advance(500)
    square.node.landed.clear()
    square.node.first = signed.fence
    with pytest.raises(ChainUnavailable, match="forgotten"):
        await provider.status(signed)


async def test_a_payout_whose_block_is_given_up_has_vanished_and_is_sent_again(square: Square) -> None:
    square.give(square.payer.pubkey(), 1_000)
    provider, bob = square.provider(), Keypair().pubkey()
    signed = await provider.prepare([Payout(str(bob), 5)])
    await provider.send(signed)
    seen = (await provider.status(signed)).block
    square.node.roll_back(signed.tx_id)
    assert square.held(bob) == 0
    status = await provider.status(signed, seen)
    assert (status.state, status.may_pay_again) == (State.VANISHED, False)
    await provider.send(signed)
    assert square.held(bob) == 5


async def test_a_payout_that_the_chain_refuses_has_failed(square: Square) -> None:
    square.give(square.payer.pubkey(), 1_000)
    provider, bob = square.provider(), Keypair().pubkey()
    signed = await provider.prepare([Payout(str(bob), 900)])
    source = account_of(square.payer.pubkey(), square.mint)
    away = transfer(source, account_of(square.ann.pubkey(), square.mint), square.payer.pubkey(), 500)
    square.node.send([away], square.payer)
    await provider.send(signed)
    square.node.advance(FINAL_AFTER)
    status = await provider.status(signed)
    assert (status.state, status.may_pay_again, square.held(bob)) == (State.FAILED, True, 0)


async def test_too_little_money_is_said_to_be_that(square: Square) -> None:
    bob = Payout(str(Keypair().pubkey()), 5)
    with pytest.raises(PayoutFundsShort, match="smallest parts"):
        await square.provider().prepare([bob])
    poor = Keypair()
    square.give(poor.pubkey(), 1_000)
    with pytest.raises(PayoutFundsShort, match="SOL"):
        await square.provider(solana_private_key=str(poor)).prepare([bob])
    nearly = square.node.wallet(1_000_000)
    square.give(nearly.pubkey(), 1_000)
    with pytest.raises(PayoutFundsShort, match="SOL"):
        await square.provider(solana_private_key=str(nearly)).prepare([bob])


async def test_what_cannot_be_paid_is_refused_before_anything_is_signed(square: Square) -> None:
    square.give(square.payer.pubkey(), 1_000)
    good = Payout(str(Keypair().pubkey()), 5)
    cases: list[list[Payout]] = [
        [],
        [good, good],
        [replace(good, to=str(Keypair().pubkey())) for _ in range(MAX_PAYOUTS + 1)],
        [replace(good, units=0)],
        [replace(good, units=2**64)],
        [replace(good, to="0x" + "11" * 20)],
        [replace(good, to=str(square.till))],
        [replace(good, to=str(account_of(square.ann.pubkey(), square.mint)))],
        [replace(good, to=str(TOKEN_PROGRAM))],
        [replace(good, to=str(Pubkey.find_program_address([b"x"], TOKEN_PROGRAM)[0]))],
    ]
    for payouts in cases:
        with pytest.raises(PayoutInvalid):
            await square.provider().prepare(payouts)


# ---- addresses and settings


async def test_addresses_are_explained(square: Square) -> None:
    bob, ann_account = Keypair().pubkey(), account_of(square.ann.pubkey(), square.mint)
    expected = {
        str(bob): (AddressKind.WALLET, True, "a wallet"),
        str(square.ann.pubkey()): (AddressKind.WALLET, True, "a wallet"),
        str(ann_account): (AddressKind.TOKEN_ACCOUNT, False, str(square.ann.pubkey())),
        str(square.mint): (AddressKind.OURS, False, "mint"),
        str(square.node.mint(square.ann)): (AddressKind.TOKEN_ACCOUNT, False, "a mint"),
        str(square.payer.pubkey()): (AddressKind.OURS, False, "pays"),
        str(square.till): (AddressKind.OURS, False, "deposits"),
        str(TOKEN_PROGRAM): (AddressKind.CONTRACT, False, "program"),
        str(SYSTEM_PROGRAM): (AddressKind.CONTRACT, False, "program"),
        "": (AddressKind.UNUSABLE, False, "base58"),
        "0x" + "11" * 20: (AddressKind.UNUSABLE, False, "base58"),
    }
    for address, (kind, payable, words) in expected.items():
        info = await square.provider().explain_address(address)
        assert (info.kind, info.payable) == (kind, payable), address
        assert words in info.explanation


async def test_a_mint_that_is_none_of_the_token_program_is_refused(square: Square) -> None:
    coin = await square.provider().check()
    assert (coin.decimals, coin.token) == (9, str(square.mint))
    newer = square.node.mint(square.ann, program=TOKEN_2022)
    for mint in (newer, Keypair().pubkey(), square.ann.pubkey(), account_of(square.ann.pubkey(), square.mint)):
        with pytest.raises(ChainMismatch, match="FAR_SOLANA_MINT"):
            await square.provider(solana_mint=str(mint)).check()


async def test_a_node_that_answers_nonsense_is_not_there() -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(text=request.path.strip("/"))

    app = web.Application()
    app.router.add_post("/{answer}", nonsense)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for url in ("http://127.0.0.1:9", f"{here}/<html>", f"{here}/[]", f"{here}/null", f'{here}/{{"error":null}}'):
        rpc = solana.Rpc(url)
        with pytest.raises(ChainUnavailable):
            await rpc.ask("getGenesisHash")
        await rpc.close()
    await runner.cleanup()


def test_what_is_missing_or_unusable_is_named_and_not_shown() -> None:
    key = Keypair()
    values: dict[str, Any] = {
        "solana_rpc_url": "http://127.0.0.1:9",
        "solana_mint": str(Keypair().pubkey()),
        "solana_private_key": str(key),
    }
    provider = solana.create(Settings.read(**values))
    assert str(key) not in repr(provider)
    listed = solana.create(Settings.read(**(values | {"solana_private_key": json.dumps(list(bytes(key)))})))
    assert listed.payer == provider.payer == key.pubkey()
    for name in values:
        with pytest.raises(MissingSetting, match=name.upper()):
            solana.create(Settings.read(**{other: value for other, value in values.items() if other != name}))
    unusable = {
        "solana_mint": ["0x11", "x"],
        "deposit_address": ["0x11"],
        "solana_private_key": ["secret", "[1, 2]", "[300]", '["secret"]', "[", "1" * 100, str(key)[:-1]],
    }
    for name, texts in unusable.items():
        for text in texts:
            with pytest.raises(InvalidSetting, match=name.upper()) as caught:
                solana.create(Settings.read(**(values | {name: text})))
            assert "secret" not in str(caught.value)
            assert caught.value.__context__ is None or caught.value.__suppress_context__
