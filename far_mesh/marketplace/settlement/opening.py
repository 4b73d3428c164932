"""The settler as the settings want it: in a gateway, or alone for ``far-mesh settle``."""

from __future__ import annotations

from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.payments.provider import Coin, PaymentProvider
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import transfers
from far_mesh.marketplace.settlement.acts import escrow_acts
from far_mesh.marketplace.settlement.batch_acts import batch_acts
from far_mesh.marketplace.settlement.batches import Rule
from far_mesh.marketplace.settlement.composer import BatchComposer
from far_mesh.marketplace.settlement.payer import Patience, Payer
from far_mesh.marketplace.settlement.service import Rules, Settlement, Settler


def rule_of(settings: Settings) -> Rule:
    """When to settle."""
    return Rule(settings.settle_seconds, settings.settle_threshold_units, settings.unsettled_limit_units)


def payer_of(
    settings: Settings,
    database: Database,
    provider: PaymentProvider,
    coin: Coin,
    gateway: Gateway,
    settlement: Settlement,
) -> Payer:
    """The owner of the paying wallet, where there is no escrow."""
    rule = transfers.Rule(settings.settle_seconds, settings.settle_threshold_units)
    patience = Patience(settings.bump_seconds, settings.reorg_blocks)
    return Payer(database, provider, coin, gateway, rule, patience, settlement.new_rows)


def settler_of(
    settings: Settings, database: Database, chain: Chain, gateway: Gateway, settlement: Settlement
) -> Settler:
    """The owner of the settler's key.

    Raises:
        MissingSetting: there is no key.
    """
    key = settings.settler_key()
    wallet, first_block = address_of(key), settings.chain_start_block
    acts = {**escrow_acts(database, chain, wallet), **batch_acts(database, chain, wallet, first_block)}
    max_fee_wei = round(settings.max_fee_gwei * 10**9) or None
    rules = Rules(settings.confirmations, settings.bump_seconds, max_fee_wei, settings.reorg_blocks)
    composer = BatchComposer(database, chain, wallet, rule_of(settings), first_block)
    return Settler(database, chain, key, gateway, settlement, acts, rules, composer)
