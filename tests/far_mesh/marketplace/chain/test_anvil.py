"""The embedded chain starts, keeps its state, and says plainly when it cannot."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from far_mesh.marketplace.chain.anvil import CHAIN_ID, Anvil, dev_key, find_anvil
from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.chain.deploy import deploy
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.errors import AddressInUse, AnvilMissing, ChainMismatch, ChainUnavailable, TransactionReverted
from tests.far_mesh.marketplace.house import SETTLER, LiveChain, new_user, rpc


async def test_a_stopped_chain_goes_on_where_it_was(tmp_path: Path) -> None:
    record, settler = tmp_path / "deployment.json", address_of(SETTLER)
    anvil = await Anvil.start(tmp_path / "state.json")
    deployment = await deploy(anvil.rpc_url, CHAIN_ID, dev_key(0), settler, record)
    chain = Chain(anvil.rpc_url, CHAIN_ID, deployment.token, deployment.escrow)
    genesis = await chain.genesis_hash()
    await ChainWallet(chain, dev_key(0)).deposit(77)
    await chain.close()
    await anvil.stop()
    await anvil.stop()

    anvil = await Anvil.start(tmp_path / "state.json")
    assert await deploy(anvil.rpc_url, CHAIN_ID, dev_key(0), settler, record) == deployment
    chain = Chain(anvil.rpc_url, CHAIN_ID, deployment.token, deployment.escrow)
    await chain.check()
    assert await chain.genesis_hash() == genesis
    assert await chain.deposit_of(address_of(dev_key(0))) == 77
    (deposited,) = await chain.escrow_events(["Deposited"], 0, await chain.block_number())
    assert deposited.fields["amount"] == 77 * 10**9
    assert await chain.escrow_events_of(["Deposited"], deposited.tx_hash) == [deposited]
    assert await chain.escrow_events_of(["DepositWithdrawn"], deposited.tx_hash) == []
    await chain.close()
    await anvil.stop()
    with pytest.raises(ChainUnavailable):
        await deploy(anvil.rpc_url, CHAIN_ID, dev_key(0), settler, record)


async def test_a_chain_is_the_same_chain_after_every_start(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        anvil = await Anvil.start(tmp_path / "state.json")
        found = await deploy(anvil.rpc_url, CHAIN_ID, dev_key(0), address_of(SETTLER), tmp_path / "deployment.json")
        chain = Chain(anvil.rpc_url, CHAIN_ID, found.token, found.escrow)
        names.add(await chain.genesis_hash())
        await chain.close()
        await anvil.stop()
        await asyncio.sleep(1.05)  # anvil's first block is named by the second it was made in
    assert len(names) == 1


async def test_another_chain_gets_fresh_contracts(tmp_path: Path, live_chain: LiveChain) -> None:
    record = tmp_path / "deployment.json"
    known = {"chain_id": 31337, "token": "0x" + "11" * 20, "escrow": "0x" + "22" * 20, "block": 1}
    record.write_text(json.dumps(known))
    fresh = await deploy(live_chain.rpc_url, CHAIN_ID, dev_key(5), address_of(SETTLER), record)
    assert fresh.escrow not in (live_chain.deployment.escrow, "0x" + "22" * 20)
    assert await deploy(live_chain.rpc_url, CHAIN_ID, dev_key(5), address_of(SETTLER), record) == fresh


async def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=str(port)):
            await Anvil.start(tmp_path / "state.json", port=port)


def test_a_missing_program_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_ANVIL", str(tmp_path / "no-anvil"))
    with pytest.raises(AnvilMissing, match="FAR_ANVIL"):
        find_anvil()
    monkeypatch.delenv("FAR_ANVIL")
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnvilMissing, match="npm install"):
        find_anvil()


async def test_a_program_that_ends_at_once_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "anvil"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("FAR_ANVIL", str(program))
    with pytest.raises(ChainUnavailable, match="exit code 3"):
        await Anvil.start(tmp_path / "state.json")


async def test_a_chain_that_is_not_ours_is_refused(live_chain: LiveChain) -> None:
    token, escrow = live_chain.deployment.token, live_chain.deployment.escrow
    wrong_id = Chain(live_chain.rpc_url, 56, token, escrow)
    with pytest.raises(ChainMismatch, match="31337"):
        await wrong_id.check()
    wrong_address = Chain(live_chain.rpc_url, CHAIN_ID, token, "0x" + "99" * 20)
    with pytest.raises(ChainMismatch, match="FAR_ESCROW_ADDRESS"):
        await wrong_address.check()
    nobody = Chain("http://127.0.0.1:9", CHAIN_ID, token, escrow)
    with pytest.raises(ChainUnavailable):
        await nobody.check()
    for chain in (wrong_id, wrong_address, nobody):
        await chain.close()


async def test_the_contract_says_why_it_refuses(live_chain: LiveChain) -> None:
    chain = live_chain.connect()
    user = address_of(await new_user(chain, 100, allowance=50))
    settler = address_of(SETTLER)
    with pytest.raises(TransactionReverted) as caught:
        await chain.lock(settler, user, "r1", 51, 1800)
    assert caught.value.facts["reason"] == "EscrowInsufficientAllowance"
    with pytest.raises(TransactionReverted) as caught:
        await chain.lock(user, user, "r1", 50, 1800)
    assert caught.value.facts["reason"] == "AccessControlUnauthorizedAccount"
    await chain.close()


async def test_a_settler_without_gas_is_not_a_reverted_contract(live_chain: LiveChain) -> None:
    chain = live_chain.connect()
    user = address_of(await new_user(chain, 100))
    call = await chain.lock(address_of(SETTLER), user, "poor", 50, 1800)
    poor = await new_user(chain)
    signed = await chain.sign(call, 0, poor)
    assert "nsufficient funds" in str(await chain.send_raw(signed.raw))
    assert await rpc(live_chain.rpc_url, "eth_getTransactionReceipt", signed.tx_hash) is None
    await chain.close()
