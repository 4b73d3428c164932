"""Ways to pay for a request: what the caller wants, what the facts allow, and what an answer of 402 offers. Pure.

auto      netted while that is safe for both sides, or else an escrow of the request's own (the default)
balance   netted: charged to the deposit afterwards, together with others, through the spending allowance
escrow    locked on chain before the answer begins
channel   covered by vouchers of a payment channel; ``channel:<id>`` names it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.errors import AllowanceTooLow, InsufficientBalance, PaymentRequired
from far_mesh.marketplace.payments.errors import UnsettledLimit, VoucherNeeded
from far_mesh.marketplace.payments.intents import Intent
from far_mesh.marketplace.payments.vouchers import ESCROW_NAME, ESCROW_VERSION
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.owed import Owed

PARAM = "payment"


class Way(StrEnum):
    """What a caller can ask for."""

    AUTO = "auto"
    BALANCE = "balance"
    ESCROW = "escrow"
    CHANNEL = "channel"


@dataclass(frozen=True)
class Wanted:
    """How the caller wants to pay. ``channel_id`` None: any of the caller's. An ``intent`` is for an escrow."""

    way: Way = Way.AUTO
    channel_id: str | None = None
    intent: Intent | None = None


AS_IT_IS_BEST = Wanted()


def wanted(text: str | None, intent: Intent | None = None) -> Wanted:
    """What ``payment`` of a body, or ``X-Far-Payment`` of a header, asks for.

    Raises:
        InvalidArgument: no way that there is, or one that contradicts the intent.
    """
    name, colon, channel_id = (Way.AUTO.value if text is None else text).partition(":")
    way = next((one for one in Way if one.value == name), None)
    if way is None or (colon and (way is not Way.CHANNEL or not channel_id)):
        ways = ", ".join(one.value for one in Way)
        raise InvalidArgument(f"payment is one of {ways}, or channel:<id>", param=PARAM)
    if intent is None:
        return Wanted(way, channel_id or None)
    if way not in (Way.AUTO, Way.ESCROW):
        raise InvalidArgument("an escrow intent pays for an escrow, and payment says otherwise", param=PARAM)
    return Wanted(Way.ESCROW, intent=intent)


@dataclass(frozen=True)
class Means:
    """``chargeable_units`` is what the chain lets us charge to the user: the deposit, but not more than the allowance.
    ``limit_units`` is the most that one user may owe before it is charged."""

    chargeable_units: int
    limit_units: int


def choose(way: Way, means: Means, held_units: int, owed: Owed) -> Payment:
    """Netted or escrow, for a request that holds ``held_units`` of a user who owes ``owed``.

    Raises:
        UnsettledLimit, AllowanceTooLow: the caller wants the balance, and it is not safe now.
    """
    if way not in (Way.AUTO, Way.BALANCE):
        raise ValueError(f"{way} leaves nothing to choose")
    netted = owed.netted_units + held_units
    needed = netted + owed.locking_units
    if netted <= means.limit_units and needed <= means.chargeable_units:
        return Payment.NETTED
    if way is Way.AUTO:
        return Payment.ESCROW
    if netted > means.limit_units:
        raise UnsettledLimit(
            f"{owed.netted_units} units are owed and not charged yet, and with this request it may be more than the "
            f"{means.limit_units} that are allowed: wait for the next batch, or ask with payment escrow",
            needed_units=held_units,
            param=PARAM,
        )
    raise AllowanceTooLow(
        f"deposit and spending allowance on chain cover {means.chargeable_units} units, and {needed} are needed: "
        "deposit, or raise it with setSpendingAllowance",
        needed_units=needed,
        available_units=means.chargeable_units,
    )


# ---- what to do about a 402


@dataclass(frozen=True)
class Terms:
    """What a client needs to know to pay here."""

    chain_id: int
    token: str
    escrow: str
    lock_seconds: int
    fee_bps: int
    step_units: int

    def accepts(self, error: FarError) -> list[dict[str, Any]] | None:
        """The ways in which what ``error`` misses can be paid, in the form of the ``accepts`` of x402 version 2; None
        where it is not an amount that is missing. ``amount`` is wei of the token."""
        if not isinstance(error, PaymentRequired):
            return None
        facts = error.facts
        if isinstance(error, VoucherNeeded):
            return [self._by_voucher(facts)]
        units = facts.get("needed_units")
        if units is None:
            return None
        offers = [self._by_balance(units), self._by_intent(units), self._by_voucher({"promise_units": units})]
        return offers[:1] if isinstance(error, InsufficientBalance) else offers

    def _by_balance(self, units: int) -> dict[str, Any]:
        acts = ["approve(address,uint256)", "deposit(uint256)", "setSpendingAllowance(uint256)"]
        return self._offer("far-balance", units, {"calls": acts, "header": "X-Far-Payment: balance"})

    def _by_intent(self, units: int) -> dict[str, Any]:
        extra = {
            "name": ESCROW_NAME,
            "version": ESCROW_VERSION,
            "primaryType": "EscrowIntent",
            "minLockSeconds": self.lock_seconds,
            "minFeeBps": self.fee_bps,
            "header": "X-Far-Escrow-Intent",
            "quote": "/api/inference/quote",
        }
        return self._offer("far-escrow-intent", units, extra)

    def _by_voucher(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        extra = {
            "name": ESCROW_NAME,
            "version": ESCROW_VERSION,
            "primaryType": "Voucher",
            "channelId": facts.get("channel_id"),
            "stepAmount": str(units_to_wei(self.step_units)),
            "header": "X-Far-Payment: channel",
            "vouchers": "/api/channels/{channelId}/vouchers",
        }
        return self._offer("batch-settlement", facts["promise_units"], extra)

    def _offer(self, scheme: str, units: int, extra: dict[str, Any]) -> dict[str, Any]:
        return {
            "scheme": scheme,
            "network": f"eip155:{self.chain_id}",
            "amount": str(units_to_wei(units)),
            "asset": self.token,
            "payTo": self.escrow,
            "maxTimeoutSeconds": self.lock_seconds,
            "extra": extra,
        }
