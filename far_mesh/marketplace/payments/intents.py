"""Escrow intents: a user's signature under the escrow of one request, in place of a standing allowance.

``EscrowIntent`` of contracts/escrow/IRequestEscrows.sol as EIP-712 typed data, in the domain of the escrow. Everything
here is pure. What only the chain can know is left to it: the deposit, and the signatures of contracts (EIP-1271).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from discovery.protocol.errors import InvalidArgument, InvalidWallet
from discovery.protocol.ids import check_wallet
from far_mesh.marketplace.chain.amounts import WEI_PER_UNIT, units_to_wei
from far_mesh.marketplace.payments.errors import IntentRefused, VoucherForged
from far_mesh.marketplace.payments.vouchers import ESCROW_NAME, ESCROW_VERSION, MAX_UNITS, Domain, recover

PARAM = "escrow_intent"
MAX_LOCK_SECONDS = 86_400
MAX_SIGNATURE_BYTES = 4_096
FIELDS = {
    "user": "address",
    "requestId": "bytes32",
    "maxAmount": "uint256",
    "lockSeconds": "uint32",
    "maxFeeBps": "uint16",
    "nonce": "uint256",
    "validUntil": "uint64",
}
"""The struct, in its order. ``maxAmount`` and ``nonce`` travel as decimal digits, for readers without big integers."""

_TYPE = keccak(text=f"EscrowIntent({','.join(f'{kind} {name}' for name, kind in FIELDS.items())})")
_KEY = re.compile(r"0x[0-9a-f]{64}\Z")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,77})\Z")
_SIGNATURE = re.compile(rf"0x([0-9a-fA-F]{{2}}){{1,{MAX_SIGNATURE_BYTES}}}\Z")


@dataclass(frozen=True)
class Intent:
    """What the user signs. ``request_key`` is 0x and the 32 bytes by which the escrow knows the request."""

    user: str
    request_key: str
    max_units: int
    lock_seconds: int
    max_fee_bps: int
    nonce: int
    valid_until: int
    signature: str = field(default="", repr=False)

    def values(self) -> tuple[str, bytes, int, int, int, int, int]:
        """The struct, as the escrow takes it."""
        amount, key = units_to_wei(self.max_units), bytes.fromhex(self.request_key[2:])
        return self.user, key, amount, self.lock_seconds, self.max_fee_bps, self.nonce, self.valid_until

    def message(self) -> dict[str, Any]:
        """The struct, as wallets show it and as it travels."""
        fields = dict(zip(FIELDS, self.values(), strict=True))
        return fields | {
            "requestId": self.request_key,
            "maxAmount": str(fields["maxAmount"]),
            "nonce": str(self.nonce),
        }

    def document(self) -> dict[str, Any]:
        """The struct and its signature."""
        return self.message() | {"signature": self.signature}


def parse(document: Mapping[str, object]) -> Intent:
    """An intent from outside. Exactly the fields, exactly their form.

    Raises:
        InvalidArgument: it is none; the message says which field.
    """
    if document.keys() != FIELDS.keys() | {"signature"}:
        raise _wrong(f"an intent has exactly the fields {', '.join(FIELDS)}, signature")
    units, rest = divmod(int(_text(document, "maxAmount", _NUMBER, "wei in decimal digits")), WEI_PER_UNIT)
    if rest or not 0 < units <= MAX_UNITS:
        raise _wrong(f"maxAmount must be a multiple of {WEI_PER_UNIT} wei, up to {MAX_UNITS} times")
    nonce = int(_text(document, "nonce", _NUMBER, "a number in decimal digits"))
    if nonce >= 2**256:
        raise _wrong("nonce must be below 2**256")
    user = document["user"]
    try:
        wallet = str(check_wallet(user)) if isinstance(user, str) else ""
    except InvalidWallet:
        wallet = ""
    if not wallet:
        raise _wrong("user must be a wallet")
    return Intent(
        user=wallet,
        request_key=_text(document, "requestId", _KEY, "0x and 64 lower-case hexadecimal digits"),
        max_units=units,
        lock_seconds=_integer(document, "lockSeconds", 32),
        max_fee_bps=_integer(document, "maxFeeBps", 16),
        nonce=nonce,
        valid_until=_integer(document, "validUntil", 64),
        signature=_text(document, "signature", _SIGNATURE, "0x and an even number of hexadecimal digits"),
    )


def from_header(text: str) -> Intent:
    """An intent as the header has it: its document as JSON in base64.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        document = json.loads(base64.b64decode(text.encode(), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _wrong("an escrow intent travels as JSON in base64") from None
    if not isinstance(document, dict):
        raise _wrong("an escrow intent is a JSON object")
    return parse(document)


def to_header(intent: Intent) -> str:
    """What :func:`from_header` reads: for wallets, the SDK and tests."""
    return base64.b64encode(json.dumps(intent.document()).encode()).decode()


def typed_data(domain: Domain, intent: Intent) -> dict[str, Any]:
    """What ``eth_signTypedData_v4`` of a wallet takes."""
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "EscrowIntent": [{"name": name, "type": kind} for name, kind in FIELDS.items()],
        },
        "primaryType": "EscrowIntent",
        "domain": {
            "name": ESCROW_NAME,
            "version": ESCROW_VERSION,
            "chainId": domain.chain_id,
            "verifyingContract": domain.escrow,
        },
        "message": intent.message(),
    }


def digest(domain: Domain, intent: Intent) -> bytes:
    """The 32 bytes that are signed."""
    fields = encode(["bytes32", *FIELDS.values()], [_TYPE, *intent.values()])
    return keccak(b"\x19\x01" + domain.separator() + keccak(fields))


def sign(domain: Domain, intent: Intent, private_key: str) -> Intent:
    """The intent with its signature: for wallets, the SDK and tests."""
    signed = Account.unsafe_sign_hash(digest(domain, intent), private_key)
    return replace(intent, signature=signed.signature.to_0x_hex())


def is_signed_by_key(domain: Domain, intent: Intent) -> bool:
    """Whether the user's own key made the signature. One that it did not make may still be a contract's."""
    if len(intent.signature) != 2 + 2 * 65:
        return False
    try:
        return recover(digest(domain, intent), intent.signature) == intent.user
    except VoucherForged:
        return False


def check(
    intent: Intent, *, user: str, request_key: str, held_units: int, lock_seconds: int, fee_bps: int, at: int
) -> None:
    """Whether ``intent`` pays for this request, as far as that needs no chain. ``at`` is unix seconds.

    Raises:
        IntentRefused: it does not; the message says why.
    """
    if intent.user != user:
        raise IntentRefused("the intent is another user's", param=PARAM)
    if intent.request_key != request_key:
        raise IntentRefused(
            "the intent is for another request: send the Idempotency-Key that was quoted with it", param=PARAM
        )
    if intent.max_units < held_units:
        raise IntentRefused(
            f"the request may cost {held_units} units and the intent is for {intent.max_units}",
            param=PARAM,
            needed_units=held_units,
        )
    if not lock_seconds <= intent.lock_seconds <= MAX_LOCK_SECONDS:
        raise IntentRefused(f"lockSeconds must be from {lock_seconds} to {MAX_LOCK_SECONDS}", param=PARAM)
    if intent.max_fee_bps < fee_bps:
        raise IntentRefused(f"the fee is {fee_bps} basis points, and maxFeeBps less", param=PARAM)
    if intent.valid_until <= at:
        raise IntentRefused("the intent has expired", param=PARAM)


def _wrong(message: str) -> InvalidArgument:
    return InvalidArgument(message, param=PARAM)


def _text(document: Mapping[str, object], name: str, form: re.Pattern[str], words: str) -> str:
    value = document[name]
    if not isinstance(value, str) or not form.match(value):
        raise _wrong(f"{name} must be {words}")
    return value


def _integer(document: Mapping[str, object], name: str, bits: int) -> int:
    value = document[name]
    if type(value) is not int or not 0 <= value < 2**bits:
        raise _wrong(f"{name} must be a whole number below 2**{bits}")
    return value
