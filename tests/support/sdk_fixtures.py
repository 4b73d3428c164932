"""What the SDKs are held to: receipts, vouchers, claims and webhooks as the marketplace and its nodes sign them.

``python -m tests.support.sdk_fixtures`` writes ``sdk/fixtures.json``; ``tests/sdk/test_fixtures.py`` keeps it true.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data

from discovery.protocol.claim import NodeClaim
from discovery.protocol.ids import check_wallet
from discovery.protocol.receipt import DOMAIN, sign_receipt
from far_mesh.marketplace.jobs.webhooks import SECRET_PREFIX, signature
from far_mesh.marketplace.payments.vouchers import Domain, channel_id_of, sign
from tests.support.documents import key_of, peer_of, receipt, signed_json

PATH = Path(__file__).parents[2] / "sdk" / "fixtures.json"
AT = 1_767_225_600
KEY = "0x" + "5f" * 32
ESCROW = check_wallet("0x" + "e5" * 20)
SECRET = SECRET_PREFIX + base64.b64encode(bytes(range(32))).decode()


def fixtures() -> dict[str, Any]:
    """All of them, as JSON; the same in every run."""
    return {
        "receipts": [{"name": name, "document": text, "is_right": right} for name, text, right in receipts()],
        "vouchers": vouchers(),
        "claim": claim(),
        "webhook": webhook(),
    }


def receipts() -> Iterator[tuple[str, str, bool]]:
    """Documents, with whether :func:`~discovery.protocol.receipt.read_receipt` takes them."""
    honest = sign_receipt(receipt("ann", issued_at=AT), key_of("ann"))
    document = json.loads(honest.to_bytes())
    body = json.loads(document["body"])
    yield "an honest one", honest.to_bytes().decode(), True
    cached = receipt("ann", issued_at=AT, cached_positions=4, replayed_positions=2)
    yield "some positions cached and replayed", sign_receipt(cached, key_of("ann")).to_bytes().decode(), True
    yield (
        "no work at all",
        sign_receipt(receipt(positions=0, token_layers=0, issued_at=AT), key_of("node")).to_bytes().decode(),
        True,
    )
    yield "other spacing, signed as it is written", json.dumps(document, indent=1), True
    older = {name: value for name, value in body.items() if name not in ("cached_positions", "replayed_positions")}
    yield "without fields that came later", _signed(older), True
    yield "with a field that comes later still", _signed(body | {"colour": "blue"}), True

    for name, changes in WRONG.items():
        yield name, _signed(body | changes), False
    for missing in ("peer_id", "wallet", "session_id", "positions", "issued_at", "model_digest"):
        yield f"{missing} is missing", _signed({name: value for name, value in body.items() if name != missing}), False
    yield "not an object", signed_json("ann", [1], DOMAIN).decode(), False
    yield "signed by somebody else", signed_json("bob", body, DOMAIN).decode(), False
    yield "signed for another purpose", signed_json("ann", body, "far-mesh/announcement/v1").decode(), False

    def told(**changes: object) -> str:
        return json.dumps(document | changes)

    yield "changed after it was signed", told(body=document["body"].replace('"positions":10', '"positions":11')), False
    yield "another signer named", told(signer=peer_of("bob")), False
    yield "a signer that is none", told(signer="0OIl"), False
    yield "a signer with white space", told(signer=document["signer"] + "\n"), False
    yield "a signer of another kind of key", told(signer="QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"), False
    yield "no signer", told(signer=None), False
    raw = base64.b64decode(document["signature"])
    yield "one bit of the signature changed", told(signature=_base64(bytes([raw[0] ^ 1]) + raw[1:])), False
    yield "half a signature", told(signature=_base64(raw[:32])), False
    yield "a signature that is not base64", told(signature="?" * 88), False
    yield "a signature without padding", told(signature=document["signature"].rstrip("=")), False
    yield "no JSON", "{", False
    yield "empty", "", False
    yield "too long", told(padding=" " * 20_000), False


WRONG: dict[str, dict[str, object]] = {
    "more work than blocks times positions": {"token_layers": 41},
    "no blocks": {"first_block": 4, "token_layers": 0},
    "blocks backwards": {"first_block": 4, "end_block": 0, "token_layers": -40},
    "negative positions": {"positions": -1, "token_layers": -4},
    "positions as text": {"positions": "10"},
    "positions with a fraction": {"positions": 10.5, "token_layers": 42},
    "a number that is not exact": {"issued_at": 2**53},
    "more cached than there were": {"cached_positions": 11},
    "more replayed than there were": {"replayed_positions": 11},
    "a wallet that is none": {"wallet": "0x12"},
    "a session that is none": {"session_id": "AB" * 16},
    "a digest that is none": {"model_digest": "ab"},
    "of another version": {"version": 2},
}
"""What no honest node signs, by name."""


def vouchers() -> list[dict[str, Any]]:
    """Signed by :data:`KEY`, of amounts from the smallest to the largest."""
    domain = Domain(31337, ESCROW)
    channel = channel_id_of(Account.from_key(KEY).address, b"\7" * 32)
    return [
        {
            "key": KEY,
            "chain_id": domain.chain_id,
            "escrow": domain.escrow,
            "units": str(units),
            "voucher": sign(domain, channel, units, KEY).document(),
        }
        for units in (1, 200_001, 10**9, 2**53 + 1, 2**63 - 1)
    ]


def claim() -> dict[str, Any]:
    """What ``far-node claim`` prints, and what the wallet makes of it."""
    said = NodeClaim(
        node=peer_of("ann"),
        wallet=check_wallet(Account.from_key(KEY).address),
        gateway="https://far.test/a b?c=d&e",
        chain_id=31337,
        nonce=AT * 1000,
        deadline=AT + 3600,
    )
    half = said.signed_by_node(key_of("ann"))
    signed = Account.sign_message(encode_typed_data(full_message=said.typed_data()), KEY)
    return {
        "key": KEY,
        "fragment": said.fragment(half),
        "claim": {
            "node_id": said.node,
            "wallet_address": said.wallet,
            "gateway": said.gateway,
            "chain_id": said.chain_id,
            "nonce": said.nonce,
            "deadline": said.deadline,
            "node_signature": half,
            "signature": signed.signature.to_0x_hex(),
        },
    }


def webhook() -> dict[str, Any]:
    """A message and its headers."""
    body = '{"type":"job.completed","timestamp":"2026-01-01T00:00:00Z","data":{"job_id":"job_1","text":"grün"}}'
    return {
        "secret": SECRET,
        "body": body,
        "headers": {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(AT),
            "webhook-signature": signature(SECRET, "msg_1", AT, body.encode()),
        },
    }


def written() -> str:
    """The text of the file."""
    return json.dumps(fixtures(), indent=1, ensure_ascii=False) + "\n"


def _signed(body: dict[str, object]) -> str:
    return signed_json("ann", body, DOMAIN).decode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    PATH.write_text(written())
