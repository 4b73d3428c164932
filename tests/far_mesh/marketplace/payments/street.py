"""A chain of one test's own, its contracts, and what people do there."""

from __future__ import annotations

from typing import Any

from eth_account import Account

from far_mesh.marketplace.chain.anvil import CHAIN_ID, dev_key
from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.chain.deploy import Deployment
from far_mesh.marketplace.chain.node import Node, call_data
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.payments import evm
from far_mesh.marketplace.payments.evm import EvmPayments
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.house import mined, rpc
from tests.far_mesh.marketplace.payments.odd_token import BYTECODE, Manner

FAR = 10**9
DEPLOYER, SETTLER, PAYER = dev_key(0), dev_key(1), dev_key(2)
TILL = address_of(dev_key(9))


class Street:
    """One anvil, its contracts, and what people do there."""

    def __init__(self, url: str, deployment: Deployment) -> None:
        self.url, self.deployment = url, deployment
        self.node = Node(url, CHAIN_ID)
        self.chain = Chain(url, CHAIN_ID, deployment.token, deployment.escrow)
        self._open: list[EvmPayments] = []

    def provider(self, **changes: Any) -> EvmPayments:
        """One that takes the FAR token by plain transfers, unless told otherwise."""
        values = {
            "chain_rpc_url": self.url,
            "token_address": self.deployment.token,
            "settler_private_key": PAYER,
            "deposit_address": TILL,
        }
        create = changes.pop("create", evm.create)
        self._open.append(create(Settings.read(**(values | changes))))
        return self._open[-1]

    def hype(self, **changes: Any) -> EvmPayments:
        """One for the chain's own coin."""
        values = {"create": lambda settings: evm.from_settings(settings, "HYPE"), "token_address": ""}
        return self.provider(**(values | changes))

    async def fund(self, units: int = 100 * FAR, key: str = PAYER) -> None:
        await ChainWallet(self.chain, DEPLOYER).transfer(address_of(key), units)

    async def pay(self, units: int, to: str = TILL, key: str = DEPLOYER) -> str:
        return await ChainWallet(self.chain, key).transfer(to, units)

    async def send(self, key: str, to: str, data: str = "0x", value: int = 0) -> str:
        return await self.node.send(await self.node.call(address_of(key), to, data, value), key)

    async def odd_token(self) -> str:
        """A fresh one, all of which the deployer has."""
        nonce = await self.node.transaction_count(address_of(DEPLOYER))
        supply = (10**12).to_bytes(32).hex()
        transaction = {"from": address_of(DEPLOYER), "data": "0x" + BYTECODE + supply, "nonce": hex(nonce)}
        return str((await mined(self.url, transaction))["contractAddress"])

    async def behave(self, token: str, manner: Manner) -> None:
        await self.send(DEPLOYER, token, call_data("behave(uint8)", int(manner)))

    async def mine(self, blocks: int = 1) -> None:
        await rpc(self.url, "anvil_mine", hex(blocks))

    async def balance(self, wallet: str) -> int:
        return await self.chain.token_balance_wei(wallet)

    async def close(self) -> None:
        await self.node.close()
        await self.chain.close()
        for one in self._open:
            await one.close()


def stranger() -> str:
    return str(Account.create().address)
