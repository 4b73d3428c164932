"""Where users' money lies, and everything that depends on it: in an escrow of ours on an EVM chain, or with us.

With an escrow requests are locked, charged or covered by vouchers on chain. Without one deposits come by transfer to an
address of the operator's, or not at all, and the books alone say what is whose: every request is charged to them, and
providers are paid by transfer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from far_mesh.marketplace.account.deposits import Deposits, EscrowDeposits, PayIn, TransferDeposits
from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.chain.audit import AuditedChain
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.inference.payment import Terms
from far_mesh.marketplace.inference.till import BooksTill, Cashier, Credit, Till
from far_mesh.marketplace.payments.provider import PaymentProvider
from far_mesh.marketplace.payments.registry import open_provider
from far_mesh.marketplace.payments.vouchers import Domain
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import EVM, Settings
from far_mesh.marketplace.settlement.fees import FeeWatch
from far_mesh.marketplace.settlement.opening import payer_of, settler_of
from far_mesh.marketplace.settlement.payer import Payer
from far_mesh.marketplace.settlement.reconciler import Reconciler, reconciler_of
from far_mesh.marketplace.settlement.service import Settlement, Settler

Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class EscrowRooms:
    """What there is only with an escrow."""

    chain: Chain
    channels: ChannelService
    terms: Terms
    settler: Settler
    reconciler: Reconciler


@dataclass(frozen=True)
class TransferRooms:
    """What there is only without an escrow. ``payer`` is None where there are no payments at all."""

    provider: PaymentProvider
    payer: Payer | None


@dataclass(frozen=True)
class Money:
    """What other rooms need to know of money. ``answers`` raises when the chain does not."""

    pay_in: PayIn
    deposits: Deposits
    settlement: Settlement
    till: Cashier
    answers: Callable[[], Awaitable[object]]
    escrow: EscrowRooms | None = None
    transfers: TransferRooms | None = None
    tasks: dict[str, Task] = field(default_factory=dict)


def check_settings(settings: Settings) -> None:
    """Is all there that the way of the money needs, and nothing that contradicts it?

    Raises:
        MissingSetting, InvalidSetting: names the variable.
    """
    if settings.payment_provider != EVM:
        if settings.escrow_address:
            raise InvalidSetting(
                f"FAR_ESCROW_ADDRESS is set, and FAR_PAYMENT_PROVIDER={settings.payment_provider} knows no escrow: "
                "unset one of them",
                setting="FAR_ESCROW_ADDRESS",
            )
        return
    settings.require(*needed(settings))


def needed(settings: Settings) -> tuple[str, ...]:
    """The settings without which money cannot go its way. Providers of other chains say themselves what they need."""
    if settings.payment_provider != EVM:
        return ()
    escrow = () if settings.deposit_address else ("escrow_address",)  # who wants plain transfers says where to
    return ("chain_rpc_url", "token_address", *escrow, "settler_private_key")


async def open_money(settings: Settings, database: Database, gateway: Gateway, stack: AsyncExitStack) -> Money:
    """Open what the settings say.

    Raises:
        FarError: what is missing, or does not belong together, in words.
    """
    if settings.has_escrow:
        return await _in_escrow(settings, database, gateway, stack)
    return await _by_transfer(settings, database, gateway, stack)


async def _in_escrow(settings: Settings, database: Database, gateway: Gateway, stack: AsyncExitStack) -> Money:
    chain = Chain(settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address)
    stack.push_async_callback(chain.close)
    await chain.check()
    watcher = _watcher(settings, database, chain)
    await watcher.open()
    provider = open_provider(settings)
    stack.push_async_callback(provider.close)
    coin = await provider.check()
    fees = FeeWatch(chain, settings.fee_bps)
    await fees.check()
    settlement = Settlement(database, chain, settings.lock_timeout_seconds)
    settler = settler_of(settings, database, chain, gateway, settlement)
    domain = Domain(chain.chain_id, chain.escrow_address)
    channels = ChannelService(database, domain, watcher.look, settings.voucher_step_units)
    credit = Credit(settings.unsettled_limit_units, settings.lock_seconds, settings.voucher_seconds)
    reconciler = _reconciler(settings, database, stack)
    tasks: dict[str, Task] = {"settler": settler.run, "deposits": watcher.run, "fees": fees.run}
    if settings.reconcile_seconds:
        tasks["reconciler"] = partial(reconciler.run, gateway, settings.reconcile_seconds)
    return Money(
        pay_in=PayIn(EVM, chain.chain_id, coin.chain, chain.token_address, chain.escrow_address),
        deposits=EscrowDeposits(database, provider, settings.chain_start_block, chain),
        settlement=settlement,
        till=Till(database, chain, channels, fees, credit),
        answers=chain.block_number,
        escrow=EscrowRooms(chain, channels, _terms(settings, chain), settler, reconciler),
        tasks=tasks,
    )


async def _by_transfer(settings: Settings, database: Database, gateway: Gateway, stack: AsyncExitStack) -> Money:
    provider = open_provider(settings)
    stack.push_async_callback(provider.close)
    deposits = TransferDeposits(database, provider, settings.chain_start_block, settings.domain, settings.reorg_blocks)
    coin = await deposits.open()
    pay_in = PayIn(settings.payment_provider, settings.chain_id)
    settlement = Settlement(database, None, settings.lock_timeout_seconds)
    tasks: dict[str, Task] = {"deposits": deposits.run}
    payer = None
    if coin is not None:
        pay_in = replace(pay_in, chain=coin.chain, token_address=coin.token, deposit_address=provider.deposit_address)
        payer = payer_of(settings, database, provider, coin, gateway, settlement)
        tasks["payer"] = payer.run
    return Money(
        pay_in=pay_in,
        deposits=deposits,
        settlement=settlement,
        till=BooksTill(),
        answers=deposits.answers,
        transfers=TransferRooms(provider, payer),
        tasks=tasks,
    )


def _watcher(settings: Settings, database: Database, chain: Chain) -> DepositWatcher:
    return DepositWatcher(
        database,
        chain,
        confirmations=settings.confirmations,
        first_block=settings.chain_start_block,
        poll_seconds=settings.deposit_poll_seconds,
        reorg_blocks=settings.reorg_blocks,
    )


def _reconciler(settings: Settings, database: Database, stack: AsyncExitStack) -> Reconciler:
    chain = AuditedChain(settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address)
    stack.push_async_callback(chain.close)
    return reconciler_of(settings, database, chain)


def _terms(settings: Settings, chain: Chain) -> Terms:
    return Terms(
        chain_id=chain.chain_id,
        token=chain.token_address,
        escrow=chain.escrow_address,
        lock_seconds=settings.lock_seconds,
        fee_bps=settings.fee_bps,
        step_units=settings.voucher_step_units,
    )
