"""Claims of nodes: a wallet says that a node earns for it, and the node has said the same (``far-node claim``)."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from typing_extensions import TypedDict

from farlabs.errors import FarLabsError
from farlabs.signing import TypedData

_FORMS = {
    "n": re.compile(r"[1-9A-HJ-NP-Za-km-z]{1,64}\Z"),
    "w": re.compile(r"0x[0-9a-fA-F]{40}\Z"),
    "g": re.compile(r"(?s:.{1,2000})\Z"),
    "c": re.compile(r"[1-9][0-9]{0,15}\Z"),
    "t": re.compile(r"[1-9][0-9]{0,15}\Z"),
    "d": re.compile(r"[1-9][0-9]{0,15}\Z"),
    "s": re.compile(r".{1,128}\Z"),
}
_SAFE = 2**53


class UnsignedClaim(TypedDict):
    """The half that the node has signed."""

    node_id: str
    wallet_address: str
    gateway: str
    chain_id: int
    nonce: int
    deadline: int
    node_signature: str


def read_node_claim(link: str) -> UnsignedClaim:
    """The claim in a link that ``far-node claim`` has printed, or in its fragment. The gateway checks the node's
    signature.

    Raises:
        FarLabsError: ``invalid_claim``; it is none.
    """
    pairs = parse_qsl(link.rpartition("#")[2], keep_blank_values=True)
    said = dict(pairs)
    is_whole = len(pairs) == len(_FORMS) and said.keys() == _FORMS.keys()
    if not is_whole or not all(form.match(said[name]) for name, form in _FORMS.items()):
        raise _wrong()
    chain_id, nonce, deadline = (int(said[name]) for name in "ctd")
    if max(chain_id, nonce, deadline) >= _SAFE:
        raise _wrong()
    return {
        "node_id": said["n"],
        "wallet_address": said["w"],
        "gateway": said["g"],
        "chain_id": chain_id,
        "nonce": nonce,
        "deadline": deadline,
        "node_signature": said["s"],
    }


def claim_data(claim: UnsignedClaim) -> TypedData:
    """What the wallet signs (EIP-712).

    It is ``NodeClaim(string node,address wallet,string gateway,uint256 nonce,uint256 deadline)``.
    """
    kinds = {"node": "string", "wallet": "address", "gateway": "string", "nonce": "uint256", "deadline": "uint256"}
    return TypedData(
        domain={"name": "Far Mesh", "version": "1", "chainId": claim["chain_id"]},
        types={"NodeClaim": [{"name": name, "type": kind} for name, kind in kinds.items()]},
        primary_type="NodeClaim",
        message={
            "node": claim["node_id"],
            "wallet": claim["wallet_address"],
            "gateway": claim["gateway"],
            "nonce": claim["nonce"],
            "deadline": claim["deadline"],
        },
    )


def _wrong() -> FarLabsError:
    return FarLabsError(
        "this is no claim of a node: give the link as far-node claim has printed it, whole", code="invalid_claim"
    )
