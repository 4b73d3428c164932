"""A claim: a wallet says that a node earns for it, and the node says the same of the wallet.

The wallet signs typed data (EIP-712, https://eips.ethereum.org/EIPS/eip-712), which every wallet shows field by field;
the node signs the digest of that data, so both have signed the same words. The wallet's key never has to be on the
machine of the node: the unsigned half travels in the fragment of a link, which browsers do not send to any server.

``nonce`` is the time of the claim in milliseconds. Of two claims the later one counts, and none counts twice.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_utils.crypto import keccak

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import PeerId, Wallet, check_peer_id, check_wallet, sign, signature_is_valid

DOMAIN = "far-mesh/claim/v1"
NAME, VERSION = "Far Mesh", "1"
MAX_GATEWAY_CHARACTERS = 2000
MAX_LIFETIME_SECONDS = 24 * 3600
MAX_NUMBER = 2**53 - 1
"""What a program in a browser holds exactly."""

_TYPE = "NodeClaim(string node,address wallet,string gateway,uint256 nonce,uint256 deadline)"
_DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId)"
_FIELDS = {"n": "node", "w": "wallet", "g": "gateway", "c": "chain_id", "t": "nonce", "d": "deadline"}
_NUMBER = re.compile(r"[1-9][0-9]{0,15}\Z")


@dataclass(frozen=True)
class NodeClaim:
    """What both sign.

    Attributes:
        gateway: the URI of the gateway that it is meant for.
        nonce: Unix time in milliseconds.
        deadline: Unix time in seconds, from which on it counts no more.
    """

    node: PeerId
    wallet: Wallet
    gateway: str
    chain_id: int
    nonce: int
    deadline: int

    def __post_init__(self) -> None:
        check_peer_id(self.node)
        if check_wallet(self.wallet) != self.wallet:
            raise InvalidArgument("the wallet of a claim is written in its EIP-55 form")
        if not 0 < len(self.gateway) <= MAX_GATEWAY_CHARACTERS:
            raise InvalidArgument("a claim names the gateway that it is for")
        for name in ("chain_id", "nonce", "deadline"):
            if not 0 < getattr(self, name) <= MAX_NUMBER:
                raise InvalidArgument(f"the {name} of a claim is a number from 1 to {MAX_NUMBER}")
        if not 0 < self.deadline - self.nonce / 1000 <= MAX_LIFETIME_SECONDS:
            raise InvalidArgument(f"the deadline of a claim is at most {MAX_LIFETIME_SECONDS} s after its nonce")

    def typed_data(self) -> dict[str, Any]:
        """As ``eth_signTypedData_v4`` takes it."""
        return {
            "types": {"EIP712Domain": _members(_DOMAIN_TYPE), "NodeClaim": _members(_TYPE)},
            "primaryType": "NodeClaim",
            "domain": {"name": NAME, "version": VERSION, "chainId": self.chain_id},
            "message": {
                "node": self.node,
                "wallet": self.wallet,
                "gateway": self.gateway,
                "nonce": self.nonce,
                "deadline": self.deadline,
            },
        }

    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        domain = keccak(_text(_DOMAIN_TYPE) + _text(NAME) + _text(VERSION) + _number(self.chain_id))
        wallet = bytes.fromhex(self.wallet[2:]).rjust(32, b"\0")
        fields = _text(self.node) + wallet + _text(self.gateway) + _number(self.nonce) + _number(self.deadline)
        return keccak(b"\x19\x01" + domain + keccak(_text(_TYPE) + fields))

    def signed_by_node(self, key: Ed25519PrivateKey) -> str:
        """The node's half: base64url of its ed25519 signature."""
        return base64.urlsafe_b64encode(sign(key, DOMAIN, self.digest())).decode().rstrip("=")

    def is_signed_by_node(self, signature: str) -> bool:
        """Whether the node itself has signed this."""
        try:
            raw = base64.b64decode(signature + "=" * (-len(signature) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return False
        return signature_is_valid(self.node, DOMAIN, self.digest(), raw)

    def fragment(self, node_signature: str) -> str:
        """The claim and the node's half of it, as the fragment of a link."""
        fields = {short: getattr(self, name) for short, name in _FIELDS.items()}
        return urlencode({**fields, "s": node_signature}, safe=":/")

    @classmethod
    def from_fragment(cls, text: str) -> tuple[Self, str]:
        """A claim and the node's signature, which is not checked.

        Raises:
            InvalidArgument: this is no such fragment.
        """
        try:
            given = parse_qsl(text.removeprefix("#"), keep_blank_values=True, max_num_fields=32)
        except ValueError:  # more fields than that
            given = []
        fields = dict(given)
        if len(given) != len(fields) or fields.keys() != {*_FIELDS, "s"}:
            raise InvalidArgument("this is no claim: each of its fields is there once")
        if not all(_NUMBER.match(fields[name]) for name in "ctd"):
            raise InvalidArgument("this is no claim: chain, time and deadline are numbers")
        numbers = {_FIELDS[name]: int(fields[name]) for name in "ctd"}
        node, wallet = check_peer_id(fields["n"]), check_wallet(fields["w"])
        return cls(node=node, wallet=wallet, gateway=fields["g"], **numbers), fields["s"]


def _members(encoded: str) -> list[dict[str, str]]:
    """The members of a type that is written as EIP-712 encodes it."""
    inside = encoded.partition("(")[2].rstrip(")")
    pairs = (member.split(" ") for member in inside.split(","))
    return [{"name": name, "type": kind} for kind, name in pairs]


def _text(text: str) -> bytes:
    return keccak(text=text)


def _number(value: int) -> bytes:
    return value.to_bytes(32)
