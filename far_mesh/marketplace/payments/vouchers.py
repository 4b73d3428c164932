"""Vouchers: signed promises to pay over a payment channel, and the rules by which they are accepted.

The struct is that of the ``batch-settlement`` scheme of x402, signed as EIP-712 typed data in the domain of the escrow
(contracts/escrow/IPaymentChannels.sol). A voucher is cumulative: it covers all that was ever served over its channel,
and takes the place of the one before. Everything here is pure; :mod:`.channels` keeps what was accepted.

Neither side ever risks more than one step, an amount that both know: the gateway serves at most one step that is not
covered by a voucher (:func:`may_serve`), and the user signs for at most what was received and one step more
(:func:`next_promise`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from eth_abi.abi import encode
from eth_account import Account
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature as BadKeySignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as KeyValidationError

from discovery.protocol.errors import InvalidWallet
from discovery.protocol.ids import check_wallet
from far_mesh.marketplace.chain.amounts import WEI_PER_UNIT, units_to_wei
from far_mesh.marketplace.payments.errors import (
    ChannelClosing,
    VoucherForged,
    VoucherMalformed,
    VoucherStale,
    VoucherTooHigh,
)

ESCROW_NAME, ESCROW_VERSION = "Far Mesh Escrow", "1"
MAX_UNITS = 2**63 - 1
FIELDS = frozenset({"channelId", "maxClaimableAmount", "signature"})

_DOMAIN_TYPE = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_VOUCHER_TYPE = keccak(text="Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
_CHANNEL_ID = re.compile(r"0x[0-9a-f]{64}\Z")
_AMOUNT = re.compile(r"[1-9][0-9]{0,38}\Z")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}\Z")
_HALF_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2


@dataclass(frozen=True)
class Domain:
    """The escrow that vouchers are for: signatures for another chain or another escrow mean nothing in it."""

    chain_id: int
    escrow: str

    def separator(self) -> bytes:
        """The domain separator of EIP-712."""
        kinds = ("bytes32", "bytes32", "bytes32", "uint256", "address")
        named = (keccak(text=ESCROW_NAME), keccak(text=ESCROW_VERSION))
        return keccak(encode(kinds, (_DOMAIN_TYPE, *named, self.chain_id, self.escrow)))


@dataclass(frozen=True)
class Voucher:
    """``channel_id`` is 0x and 64 lower-case hexadecimal digits; ``units`` is the most that may be claimed, in all."""

    channel_id: str
    units: int
    signature: str = field(repr=False)

    def document(self) -> dict[str, str]:
        """As it travels: the amount is wei, in decimal digits."""
        amount = str(units_to_wei(self.units))
        return {"channelId": self.channel_id, "maxClaimableAmount": amount, "signature": self.signature}


@dataclass(frozen=True)
class Channel:
    """What is known of a channel. All amounts are cumulative.

    ``deposit_units`` is what the chain says was put in, ``promised_units`` the highest voucher, ``earned_units`` what
    was served, ``captured_units`` what of it the requests did cost that have ended, ``redeemed_units`` what was taken
    out on chain. ``signer`` is the key whose vouchers count: the user's or one of the session's. ``closes_at`` is when
    the user can take back what is left, once closing has started.
    """

    channel_id: str
    user: str
    signer: str
    deposit_units: int
    promised_units: int = 0
    earned_units: int = 0
    redeemed_units: int = 0
    signature: str | None = field(default=None, repr=False)
    closes_at: datetime | None = None
    captured_units: int = 0


def channel_id_of(user: str, salt: bytes) -> str:
    """The channel of ``user`` with a 32 byte ``salt``: ``channelIdOf`` of the escrow, without asking it."""
    return "0x" + keccak(encode(["address", "bytes32"], [user, salt])).hex()


def parse(document: Mapping[str, object]) -> Voucher:
    """A voucher from outside. Exactly the fields, exactly their form: what is accepted here the escrow accepts too.

    Raises:
        VoucherMalformed: it is none; the message says which field.
    """
    if document.keys() != FIELDS:
        raise VoucherMalformed(f"a voucher has exactly the fields {', '.join(sorted(FIELDS))}")
    channel_id = _text(document, "channelId", _CHANNEL_ID, "0x and 64 lower-case hexadecimal digits")
    amount = int(_text(document, "maxClaimableAmount", _AMOUNT, "a positive number of wei in decimal digits"))
    signature = _text(document, "signature", _SIGNATURE, "0x and 130 hexadecimal digits")
    units, rest = divmod(amount, WEI_PER_UNIT)
    if rest or not 0 < units <= MAX_UNITS:
        raise VoucherMalformed(f"maxClaimableAmount must be a multiple of {WEI_PER_UNIT} wei, up to {MAX_UNITS} times")
    return Voucher(channel_id, units, signature)


def _text(document: Mapping[str, object], name: str, form: re.Pattern[str], words: str) -> str:
    value = document[name]
    if not isinstance(value, str) or not form.match(value):
        raise VoucherMalformed(f"{name} must be {words}", field=name)
    return value


def digest(domain: Domain, channel_id: str, units: int) -> bytes:
    """The 32 bytes that are signed."""
    fields = encode(
        ("bytes32",) * 2 + ("uint128",), (_VOUCHER_TYPE, bytes.fromhex(channel_id[2:]), units_to_wei(units))
    )
    return keccak(b"\x19\x01" + domain.separator() + keccak(fields))


def sign(domain: Domain, channel_id: str, units: int, private_key: str) -> Voucher:
    """A promise of ``units`` in all: for wallets, the SDK and tests."""
    signed = Account.unsafe_sign_hash(digest(domain, channel_id, units), private_key)
    return Voucher(channel_id, units, signed.signature.to_0x_hex())


def signer_of(domain: Domain, voucher: Voucher) -> str:
    """The wallet whose key made the signature, in EIP-55 form.

    Raises:
        VoucherForged: see :func:`recover`.
    """
    return recover(digest(domain, voucher.channel_id, voucher.units), voucher.signature)


def recover(signed: bytes, signature: str) -> str:
    """The wallet whose key signed these 32 bytes, in EIP-55 form.

    Raises:
        VoucherForged: it is no signature, or one that the escrow would not accept: each signature has a twin with a
            high s, and of the two only one counts; v is 27 or 28.
    """
    raw = bytes.fromhex(signature[2:])
    if len(raw) != 65 or raw[64] not in (27, 28) or int.from_bytes(raw[32:64]) > _HALF_CURVE_ORDER:
        raise VoucherForged("the signature is malleable: its s is too high, or its v is not 27 or 28")
    try:
        key = Signature(raw[:64] + bytes([raw[64] - 27])).recover_public_key_from_msg_hash(signed)
    except (BadKeySignature, KeyValidationError, ValueError):
        raise VoucherForged("the signature is not one of any key") from None
    return str(key.to_checksum_address())


def check(domain: Domain, channel: Channel, voucher: Voucher) -> int:
    """How many units ``voucher`` adds to what was promised before. What is cheap to check is checked first.

    Raises:
        ChannelClosing: the user is taking the money out.
        VoucherStale: as much or more was promised before; also when the same voucher comes twice.
        VoucherTooHigh: more than lies in the channel.
        VoucherForged: not signed by the key of the channel, or for another channel, chain or escrow.
    """
    if voucher.channel_id != channel.channel_id:
        raise VoucherForged("the voucher is for another channel")
    if channel.closes_at is not None:
        raise ChannelClosing("this channel is being closed: nothing more is served over it")
    if voucher.units <= channel.promised_units:
        raise VoucherStale(
            f"{channel.promised_units} units were promised before: sign for more", promised_units=channel.promised_units
        )
    if voucher.units > channel.deposit_units:
        raise VoucherTooHigh(
            f"only {channel.deposit_units} units lie in the channel: top it up", deposit_units=channel.deposit_units
        )
    if signer_of(domain, voucher) != channel.signer:
        raise VoucherForged("the voucher is not signed by the key of its channel for this chain and this escrow")
    return voucher.units - channel.promised_units


def new_channel(channel_id: str, user: str, signer: str, deposit_units: int) -> Channel:
    """A channel as the chain announces it.

    Raises:
        VoucherMalformed: not an id, an address or an amount.
    """
    if not _CHANNEL_ID.match(channel_id) or not 0 < deposit_units <= MAX_UNITS:
        raise VoucherMalformed("a channel has an id of 0x and 64 hexadecimal digits, and a deposit")
    try:
        return Channel(channel_id, str(check_wallet(user)), str(check_wallet(signer)), deposit_units)
    except InvalidWallet as error:
        raise VoucherMalformed(error.message) from None


# ---- who risks what


def may_serve(cost_units: int, *, earned_units: int, promised_units: int, deposit_units: int, step_units: int) -> bool:
    """Whether the gateway may serve something worth ``cost_units`` before it sees another voucher.

    What was served and not promised never exceeds one step, and what was served never exceeds the channel.
    """
    after = earned_units + cost_units
    return after <= promised_units + step_units and after <= deposit_units


def next_promise(*, received_units: int, promised_units: int, deposit_units: int, step_units: int) -> int | None:
    """What the user should sign for now, or None while the last voucher will do.

    It is what was received and one step: the most that a gateway which takes the voucher and vanishes gains is that
    step. It is due while half a step is left, so that the answer does not wait for the voucher; a step must therefore
    be worth at least two of the dearest thing that is served at once.
    """
    most = min(received_units + step_units, deposit_units)
    due = 2 * (promised_units - received_units) <= step_units
    return most if due and most > promised_units else None
