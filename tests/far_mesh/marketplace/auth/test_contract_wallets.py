"""Wallets that are contracts sign in by what they say themselves, and can say what they like without harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from discovery.protocol.ids import Wallet, check_wallet
from far_mesh.marketplace.auth import contract_wallets
from far_mesh.marketplace.auth.contract_wallets import MAX_SIGNATURE_BYTES, ContractWallets
from far_mesh.marketplace.auth.service import Audience, AuthService
from far_mesh.marketplace.auth.tokens import Tokens
from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.node import Node
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import BadSignature, ChainUnavailable, NonceUsed
from far_mesh.marketplace.keys.service import KeyService
from tests.far_mesh.marketplace.auth.contracts import (
    SAYS_YES,
    WRITES_AND_SAYS_YES,
    WRONG_CONTRACTS,
    deploy_wallet,
    put_code,
)
from tests.far_mesh.marketplace.house import LiveChain, rpc

OWNER, STRANGER = "0x" + "42" * 32, "0x" + "43" * 32
HERE = Audience("far.test", "https://far.test", CHAIN_ID, 300)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    opened = Database(sqlite_url)
    yield opened
    await opened.close()


def service_on(database: Database, node: Node | None) -> AuthService:
    tokens = Tokens("a secret that is long enough for HS256", HERE.uri, 3600)
    contracts = None if node is None else ContractWallets(node)
    return AuthService(database, tokens, HERE, KeyService(database, 0), contracts=contracts)


@pytest.fixture
async def service(database: Database, live_chain: LiveChain) -> AsyncIterator[AuthService]:
    node = Node(live_chain.rpc_url, CHAIN_ID)
    yield service_on(database, node)
    await node.close()


def sign(message: str, key: str = OWNER) -> str:
    return str(Account.sign_message(encode_defunct(text=message), key).signature.to_0x_hex())


async def sign_in(service: AuthService, wallet: str, key: str = OWNER) -> Wallet:
    message = (await service.offer(wallet)).text()
    signed_in, token = await service.login(wallet, message, sign(message, key))
    assert (await service.principal_of(token.text)).wallet == signed_in
    return signed_in


async def test_a_contract_wallet_signs_in_by_its_owners_signature(service: AuthService, live_chain: LiveChain) -> None:
    wallet = await deploy_wallet(live_chain.rpc_url, Account.from_key(OWNER).address)
    assert await sign_in(service, wallet) == check_wallet(wallet)
    with pytest.raises(BadSignature):
        await sign_in(service, wallet, STRANGER)


async def test_its_message_signs_in_once_too(service: AuthService, live_chain: LiveChain) -> None:
    wallet = await deploy_wallet(live_chain.rpc_url, Account.from_key(OWNER).address)
    message = (await service.offer(wallet)).text()
    done = await asyncio.gather(
        *(service.login(wallet, message, sign(message)) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(one, tuple) for one in done) == 1
    assert sum(isinstance(one, NonceUsed) for one in done) == 19


async def test_the_owner_is_not_the_wallet(service: AuthService, live_chain: LiveChain) -> None:
    owner = Account.from_key(OWNER).address
    wallet = await deploy_wallet(live_chain.rpc_url, owner)
    message = (await service.offer(wallet)).text()
    for signature in (sign(message)[:-2], "0x", "0x" + "00" * 65):
        with pytest.raises(BadSignature):
            await service.login(wallet, message, signature)
    assert await sign_in(service, owner) == owner


async def test_a_key_counts_for_its_own_address_though_code_lives_there(
    service: AuthService, live_chain: LiveChain
) -> None:
    key = Account.create()  # an account that has delegated to a contract (EIP-7702) has code, and keeps its key
    await put_code(live_chain.rpc_url, key.address, "5f5ffd")
    assert await sign_in(service, key.address, key.key.to_0x_hex()) == key.address


@pytest.mark.parametrize("program", WRONG_CONTRACTS.values(), ids=list(WRONG_CONTRACTS))
async def test_what_says_anything_but_yes_says_no(service: AuthService, live_chain: LiveChain, program: str) -> None:
    wallet = Account.create().address
    await put_code(live_chain.rpc_url, wallet, program)
    message = (await service.offer(wallet)).text()
    with pytest.raises(BadSignature):
        await service.login(wallet, message, sign(message))
    await put_code(live_chain.rpc_url, wallet, SAYS_YES)
    assert (await service.login(wallet, message, "0x"))[0] == wallet  # the nonce was not used up by the failure


async def test_an_address_without_code_needs_its_own_key(service: AuthService) -> None:
    with pytest.raises(BadSignature, match="not signed by"):
        await sign_in(service, Account.create().address)


@pytest.mark.parametrize("signature", ["", "zz", "0xzz", "0x0", "00" * 65, "0x" + "00" * (MAX_SIGNATURE_BYTES + 1)])
async def test_what_is_no_signature_is_not_shown_to_the_contract(
    service: AuthService, live_chain: LiveChain, signature: str
) -> None:
    wallet = Account.create().address
    await put_code(live_chain.rpc_url, wallet, SAYS_YES)
    message = (await service.offer(wallet)).text()
    with pytest.raises(BadSignature, match="hexadecimal"):
        await service.login(wallet, message, signature)


async def test_without_a_chain_only_wallets_with_a_key_sign_in(database: Database, live_chain: LiveChain) -> None:
    service = service_on(database, None)
    wallet = await deploy_wallet(live_chain.rpc_url, Account.from_key(OWNER).address)
    with pytest.raises(BadSignature, match="no chain to ask"):
        await sign_in(service, wallet)
    await sign_in(service, Account.from_key(OWNER).address)


async def test_a_chain_that_says_nothing_is_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    node = Node(f"http://127.0.0.1:{hangs.sockets[0].getsockname()[1]}", CHAIN_ID)
    monkeypatch.setattr(contract_wallets, "SECONDS", 0.1)
    service = service_on(database, node)
    try:
        with pytest.raises(ChainUnavailable):
            await sign_in(service, Account.create().address)
        await sign_in(service, Account.from_key(OWNER).address)  # which needs no chain
    finally:
        await node.close()
        hangs.close()


async def test_a_chain_that_is_down_is_not_the_users_fault(database: Database) -> None:
    node = Node("http://127.0.0.1:1", CHAIN_ID)
    with pytest.raises(ChainUnavailable):
        await sign_in(service_on(database, node), Account.create().address)
    await node.close()


async def test_what_a_contract_is_asked_costs_nothing_and_changes_nothing(
    service: AuthService, live_chain: LiveChain
) -> None:
    before = await rpc(live_chain.rpc_url, "eth_blockNumber")
    wallet = Account.create().address
    await put_code(live_chain.rpc_url, wallet, WRITES_AND_SAYS_YES)
    assert await sign_in(service, wallet) == wallet
    assert int(await rpc(live_chain.rpc_url, "eth_getStorageAt", wallet, "0x0", "latest"), 16) == 0
    assert await rpc(live_chain.rpc_url, "eth_blockNumber") == before
