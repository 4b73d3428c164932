"""Sign-in messages of EIP-4361 (https://eips.ethereum.org/EIPS/eip-4361): written, read strictly, and recovered.

Reading accepts exactly the grammar, in its order, with nothing before, between or after. What the fields must *be* is
decided in :mod:`.service`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from eth_utils.address import is_checksum_address

from far_mesh.marketplace.errors import SignInMismatch

MAX_MESSAGE_CHARACTERS = 4096
VERSION = "1"
STATEMENT = "Sign in to Far Mesh. This costs nothing and sends no transaction."

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
_MESSAGE = re.compile(
    r"(?P<domain>[A-Za-z0-9.\-_~%!$&'()*+,;=:@\[\]]{1,255}) wants you to sign in with your Ethereum account:\n"
    r"(?P<address>0x[0-9a-fA-F]{40})\n"
    r"\n"
    r"(?:(?P<statement>[\x20-\x7e]{1,1024})\n)?"
    r"\n"
    r"URI: (?P<uri>[A-Za-z][A-Za-z0-9+.\-]*:[^\s]{1,2000})\n"
    rf"Version: {VERSION}\n"
    r"Chain ID: (?P<chain_id>[1-9]\d{0,17})\n"
    r"Nonce: (?P<nonce>[A-Za-z0-9]{8,64})\n"
    rf"Issued At: (?P<issued_at>{_TIME})\n"
    rf"Expiration Time: (?P<expiration_time>{_TIME})"
    rf"(?:\nNot Before: (?P<not_before>{_TIME}))?"
    r"(?:\nRequest ID: (?P<request_id>[\x21-\x7e]{0,255}))?"
    r"\Z"
)


@dataclass(frozen=True)
class SignIn:
    """The fields of a sign-in message. ``address`` is in EIP-55 form."""

    domain: str
    address: str
    uri: str
    chain_id: int
    nonce: str
    issued_at: datetime
    expiration_time: datetime
    not_before: datetime | None = None
    statement: str | None = STATEMENT

    def text(self) -> str:
        """The message as the wallet shows it and signs it."""
        lines = [f"{self.domain} wants you to sign in with your Ethereum account:", self.address, ""]
        lines += [self.statement, ""] if self.statement else [""]
        lines += [f"URI: {self.uri}", f"Version: {VERSION}", f"Chain ID: {self.chain_id}", f"Nonce: {self.nonce}"]
        lines += [f"Issued At: {stamp(self.issued_at)}", f"Expiration Time: {stamp(self.expiration_time)}"]
        if self.not_before:
            lines.append(f"Not Before: {stamp(self.not_before)}")
        return "\n".join(lines)


def stamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str) -> SignIn:
    """The fields of ``text``.

    Raises:
        SignInMismatch: it is not a sign-in message, or its address has no EIP-55 checksum.
    """
    found = _MESSAGE.match(text) if len(text) <= MAX_MESSAGE_CHARACTERS else None
    if found is None:
        raise SignInMismatch("this is not an EIP-4361 sign-in message; ask /api/auth/nonce for one")
    if not is_checksum_address(found["address"]):
        raise SignInMismatch("the address in a sign-in message must be written in its EIP-55 form")
    return SignIn(
        domain=found["domain"],
        address=found["address"],
        uri=found["uri"],
        chain_id=int(found["chain_id"]),
        nonce=found["nonce"],
        issued_at=_time(found["issued_at"]),
        expiration_time=_time(found["expiration_time"]),
        not_before=_time(found["not_before"]) if found["not_before"] else None,
        statement=found["statement"],
    )


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SignInMismatch(f"{text} is not a time") from None
