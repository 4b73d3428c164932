"""Payments on HyperEVM, the EVM of Hyperliquid: HYPE itself, or an ERC-20 token if ``FAR_TOKEN_ADDRESS`` is set.

HYPE is sent there from Hyperliquid's own ledger (HyperCore) by a transfer to 0x2222…2222, and back the same way; what
lies on HyperCore is not seen from here.
"""

from __future__ import annotations

from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.payments.evm import EvmPayments, from_settings
from far_mesh.marketplace.settings import Settings

CHAINS = {999: "mainnet", 998: "testnet"}
"""https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/hyperevm"""
NATIVE_SYMBOL = "HYPE"


def create(settings: Settings) -> EvmPayments:
    """For ``FAR_PAYMENT_PROVIDER=hyperliquid``.

    Raises:
        MissingSetting: the node or the key is not set.
        InvalidSetting: the chain id is not one of HyperEVM, or an address or the key is none.
    """
    settings.require("chain_rpc_url", "settler_private_key")
    if settings.chain_id not in CHAINS:
        names = " or ".join(f"{number} ({name})" for number, name in CHAINS.items())
        raise InvalidSetting(
            f"FAR_PAYMENT_PROVIDER=hyperliquid needs FAR_CHAIN_ID={names}, not {settings.chain_id}",
            setting="FAR_CHAIN_ID",
        )
    return from_settings(settings, native_symbol=NATIVE_SYMBOL)
