"""What can go wrong with payments, as members of the one error family.

FarError
├─ InvalidSetting ─ PaymentProviderUnknown · PaymentProviderBroken · MissingExtra             at start
├─ PaymentsOff                                                                                503
├─ DepositUnknown · DepositPending · DepositRefused · DepositNotYours                         404 409 400 403
├─ PayoutInvalid · PayoutFundsShort · PayoutInFlight                                          400 503 409
└─ PaymentRequired ─ UnsettledLimit · IntentRefused                                          402
                   ─ VoucherRefused ─ VoucherMalformed · VoucherForged · VoucherStale         402
                                    · VoucherTooHigh · ChannelClosing · VoucherNeeded
                                    · ChannelUnknown                                          404
"""

from __future__ import annotations

from discovery.protocol.errors import FarError
from far_mesh.marketplace.errors import InvalidSetting, PaymentRequired


class PaymentProviderUnknown(InvalidSetting):
    """``FAR_PAYMENT_PROVIDER`` names none that is built in or installed."""

    code = "payment_provider_unknown"


class PaymentProviderBroken(InvalidSetting):
    """An installed package offers a payment provider that cannot be loaded, is none, or takes a name that is taken."""

    code = "payment_provider_broken"


class MissingExtra(InvalidSetting):
    """The provider needs a library that is installed by an extra of this package only."""

    code = "missing_extra"


class PaymentsOff(FarError):
    """``FAR_PAYMENT_PROVIDER`` is ``none``."""

    code = "payments_off"
    status = 503


class DepositUnknown(FarError):
    """The chain knows of no such transaction."""

    code = "deposit_unknown"
    status = 404


class DepositPending(FarError):
    """The transaction is not in a block yet, or too few blocks are on top. ``confirmations`` and ``needed`` say it."""

    code = "deposit_pending"
    retry = True
    status = 409


class DepositRefused(FarError):
    """The transaction pays nothing to us: it failed, or is of another coin, or to somebody else."""

    code = "deposit_refused"
    status = 400


class DepositNotYours(FarError):
    """Somebody else has paid this. ``payer`` says who, and may claim it or sign for whoever does."""

    code = "deposit_not_yours"
    status = 403


class PayoutInvalid(FarError):
    """This cannot be paid as it is: the address, the amount or the number of payouts."""

    code = "payout_invalid"
    status = 400


class PayoutFundsShort(FarError):
    """The wallet that pays has too little of the coin, or nothing for the fees of the chain."""

    code = "payout_funds_short"
    status = 503


class PayoutInFlight(FarError):
    """An earlier transaction of the paying wallet is in no block yet."""

    code = "payout_in_flight"
    retry = True
    status = 409


class UnsettledLimit(PaymentRequired):
    """More than the limit would be owed and not charged yet: lock this request's money, or wait for the next batch."""

    code = "unsettled_limit"


class IntentRefused(PaymentRequired):
    """A signed escrow intent that does not pay for this request."""

    code = "intent_refused"


class VoucherRefused(PaymentRequired):
    """A voucher that is worth nothing here."""

    code = "voucher_refused"


class VoucherMalformed(VoucherRefused):
    """Not a voucher: a field is missing, too many, or has another form."""

    code = "voucher_malformed"


class VoucherForged(VoucherRefused):
    """Not signed by the key of the channel for this channel, this chain and this escrow."""

    code = "voucher_forged"


class VoucherStale(VoucherRefused):
    """As much or more was promised before. ``promised_units`` says how much."""

    code = "voucher_stale"


class VoucherTooHigh(VoucherRefused):
    """More than lies in the channel. ``deposit_units`` says how much that is."""

    code = "voucher_too_high"


class ChannelUnknown(VoucherRefused):
    """No such channel is known here, or it is somebody else's."""

    code = "channel_unknown"
    status = 404


class ChannelClosing(VoucherRefused):
    """The user has started to close the channel: nothing more is served over it."""

    code = "channel_closing"


class VoucherNeeded(VoucherRefused):
    """What was served and is not covered by a voucher would exceed the allowance. ``promise_units`` is what to sign."""

    code = "voucher_needed"
