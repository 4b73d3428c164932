"""Wallets that sign, and what they sign: sign-in messages (EIP-4361) and vouchers (EIP-712)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from farlabs.amounts import WEI_PER_UNIT
from farlabs.errors import AuthenticationError, FarLabsError
from farlabs.models import QuoteAnswer, VoucherEvent

_SIGN_IN = re.compile(
    r"(\S{1,255}) wants you to sign in with your Ethereum account:\n(0x[0-9a-fA-F]{40})\n\n(?:[ -~]{1,1024}\n)?\nURI: "
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class TypedData:
    """As ``eth_signTypedData_v4`` takes it (https://eips.ethereum.org/EIPS/eip-712), without the type of the domain."""

    domain: Mapping[str, Any]
    types: Mapping[str, Sequence[Mapping[str, str]]]
    primary_type: str
    message: Mapping[str, Any]


class Signer(Protocol):
    """A wallet. With :class:`~farlabs.AsyncFarLabsClient` its methods may be coroutines.

    ``sign_typed_data`` is needed for vouchers alone.
    """

    @property
    def address(self) -> str:
        """0x and 40 hexadecimal digits, in EIP-55 form."""

    def sign_message(self, message: str) -> str | Awaitable[str]:
        """EIP-191 signature of a text: 0x and 130 hexadecimal digits."""


class TypedDataSigner(Signer, Protocol):
    """A wallet that signs typed data too."""

    def sign_typed_data(self, data: TypedData) -> str | Awaitable[str]:
        """EIP-712 signature: 0x and 130 hexadecimal digits."""


@dataclass(frozen=True)
class EscrowDomain:
    """The escrow that vouchers are for."""

    chain_id: int
    escrow: str


@dataclass(frozen=True)
class Voucher:
    """``max_claimable_amount`` is in wei: the most that may be claimed over the channel in all."""

    channel_id: str
    max_claimable_amount: int
    signature: str

    def document(self) -> dict[str, str]:
        """As it travels."""
        amount = str(self.max_claimable_amount)
        return {"channelId": self.channel_id, "maxClaimableAmount": amount, "signature": self.signature}


def check_sign_in(message: str, address: str, url: str, domain: str | None = None) -> str:
    """``message``, if it signs ``address`` in at the gateway of ``url`` and nothing else.

    A gateway could hand on the message of another one and sign in there, so the host that it names has to be the one
    that was asked, or ``domain`` if that is given. On one's own machine any name will do.

    Raises:
        AuthenticationError: ``wrong_message``, ``wrong_wallet`` or ``wrong_domain``; do not sign it.
    """
    match = _SIGN_IN.match(message)
    if match is None:
        raise AuthenticationError("the gateway wants a text signed that is no sign-in message", code="wrong_message")
    if match[2].lower() != address.lower():
        raise AuthenticationError(f"the gateway wants {match[2]} signed in, not {address}", code="wrong_wallet")
    parts = urlsplit(url)
    expected = domain or parts.netloc.rpartition("@")[2]
    if match[1].lower() != expected.lower() and (domain is not None or parts.hostname not in _LOOPBACK):
        raise AuthenticationError(
            f"the gateway at {expected} wants you signed in at {match[1]}: if that is right, give sign_in_domain",
            code="wrong_domain",
        )
    return message


def voucher_data(domain: EscrowDomain, channel_id: str, units: int) -> TypedData:
    """What is signed to promise so many units in all: ``Voucher(bytes32 channelId,uint128 maxClaimableAmount)``."""
    fields = [{"name": "channelId", "type": "bytes32"}, {"name": "maxClaimableAmount", "type": "uint128"}]
    return TypedData(
        domain={
            "name": "Far Mesh Escrow",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.escrow,
        },
        types={"Voucher": fields},
        primary_type="Voucher",
        message={"channelId": channel_id, "maxClaimableAmount": units * WEI_PER_UNIT},
    )


def due(
    quote: QuoteAnswer, needed: VoucherEvent, tokens: int, charged_units: int, step_units: int | None, most: int | None
) -> int:
    """How much to promise in all: what the channel was charged before, what has come of this answer at the quoted
    prices, and one step, as far as ``most`` and the channel reach.

    Raises:
        FarLabsError: ``voucher_limit``; the stream wants more.
    """
    received = charged_units + quote.prompt_tokens * quote.prompt_price_units + tokens * quote.completion_price_units
    step = needed.step_units if step_units is None else step_units
    promise = min(received + step, needed.deposit_units, needed.deposit_units if most is None else most)
    if needed.promise_units > promise:
        raise FarLabsError(
            f"the stream wants {needed.promise_units} units promised, and {promise} is the most that is due",
            code="voucher_limit",
        )
    return promise
