"""What nodes, wallets and gateways sign is taken, and made, as the marketplace does it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from farlabs import (
    FarLabsError,
    PrivateKeySigner,
    ReceiptError,
    WebhookError,
    read_node_claim,
    verify_receipt,
    verify_receipts,
    verify_webhook,
)
from farlabs.claims import claim_data
from farlabs.models import RequestReceipts
from farlabs.signing import EscrowDomain, Voucher, voucher_data

from tests.far_mesh.marketplace.doubles import NODES

FIXTURES: dict[str, Any] = json.loads((Path(__file__).parents[3] / "sdk" / "fixtures.json").read_text())


# ---- receipts


@pytest.mark.parametrize("case", FIXTURES["receipts"], ids=lambda case: case["name"])
def test_receipts_are_taken_and_refused_as_nodes_do(case: dict[str, Any]) -> None:
    if case["is_right"]:
        receipt = verify_receipt(case["document"])
        assert receipt.peer_id == json.loads(case["document"])["signer"]
        assert receipt.token_layers == receipt.positions * (receipt.end_block - receipt.first_block)
    else:
        with pytest.raises(ReceiptError) as wrong:
            verify_receipt(case["document"])
        assert wrong.value.code == "receipt_invalid"


def of_a_request(*changes: dict[str, Any]) -> RequestReceipts:
    """The receipts of three nodes; ``changes`` to what is said of the first ones."""
    receipts = []
    for number, node in enumerate(NODES):
        proof = node.proof(10)
        assert proof.receipt is not None
        said = {
            "node_id": node.peer_id,
            "wallet_address": node.wallet,
            "layers": list(range(*node.blocks)),
            "quantization": node.quantization,
            "token_layers": proof.token_layers,
            "paid_units": 5,
            "receipt": proof.receipt.document.to_bytes().decode(),
        }
        receipts.append(said | (changes[number] if number < len(changes) else {}))
    return RequestReceipts.model_validate({"request_id": "req_1", "model_id": "tiny", "receipts": receipts})


def test_the_receipts_of_a_request_say_who_did_what() -> None:
    verified = verify_receipts(of_a_request())
    assert [one.peer_id for one in verified.receipts] == [node.peer_id for node in NODES]
    assert (verified.token_layers, verified.blocks) == (80, ((0, 8),))


def test_less_may_be_paid_than_was_signed_and_a_gap_is_seen() -> None:
    told = of_a_request({}, {"token_layers": 7})
    assert verify_receipts(told).token_layers == 57
    without = told.model_copy(update={"receipts": [told.receipts[0], told.receipts[2]]})
    assert verify_receipts(without).blocks == ((0, 3), (6, 8))


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": NODES[1].peer_id},
        {"wallet_address": NODES[1].wallet},
        {"layers": [0, 1]},
        {"layers": [0, 1, 2, 3]},
        {"layers": [0, 5, 2]},
        {"layers": []},
        {"quantization": "int8"},
        {"token_layers": 31},
        {"receipt": "{}"},
    ],
    ids=str,
)
def test_what_the_gateway_says_has_to_be_what_was_signed(change: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError):
        verify_receipts(of_a_request(change))


def test_without_the_extra_it_is_said_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(FarLabsError, match=r"farlabs\[receipts\]"):
        verify_receipt(FIXTURES["receipts"][0]["document"])
    monkeypatch.setitem(sys.modules, "eth_account", None)
    with pytest.raises(FarLabsError, match=r"farlabs\[wallet\]"):
        PrivateKeySigner("0x" + "5f" * 32)


# ---- wallets


@pytest.mark.parametrize("case", FIXTURES["vouchers"], ids=lambda case: case["units"])
def test_vouchers_are_signed_as_the_escrow_takes_them(case: dict[str, Any]) -> None:
    said = case["voucher"]
    data = voucher_data(EscrowDomain(case["chain_id"], case["escrow"]), said["channelId"], int(case["units"]))
    signature = PrivateKeySigner(case["key"]).sign_typed_data(data)
    voucher = Voucher(said["channelId"], int(data.message["maxClaimableAmount"]), signature)
    assert voucher.document() == said


def test_a_claim_is_signed_as_the_gateway_takes_it() -> None:
    case = FIXTURES["claim"]
    claim = read_node_claim("https://far.test/gpu/claim#" + case["fragment"])
    assert read_node_claim(case["fragment"]) == claim
    signature = PrivateKeySigner(case["key"]).sign_typed_data(claim_data(claim))
    assert {**claim, "signature": signature} == case["claim"]


@pytest.mark.parametrize(
    "change",
    [("n=", "m="), ("w=0x", "w=0y"), ("c=31337", "c=0"), ("c=31337", "c=9007199254740993"), ("&d=", "&d=1&d=")],
)
def test_half_a_claim_is_none(change: tuple[str, str]) -> None:
    with pytest.raises(FarLabsError) as wrong:
        read_node_claim(FIXTURES["claim"]["fragment"].replace(*change))
    assert wrong.value.code == "invalid_claim"


@pytest.mark.parametrize("key", ["", "0x12", "zz" * 32, "0x" + "00" * 32])
def test_what_is_no_private_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(FarLabsError) as wrong:
        PrivateKeySigner(key)
    assert wrong.value.code == "invalid_key"
    assert wrong.value.__cause__ is None
    assert key == "" or key not in str(wrong.value)


# ---- webhooks


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A good one, at the time when it came."""
    case: dict[str, Any] = FIXTURES["webhook"]
    monkeypatch.setattr(time, "time", lambda: float(case["headers"]["webhook-timestamp"]) + 100)
    return case


def test_a_message_of_the_gateway_is_taken(message: dict[str, Any]) -> None:
    headers = {name.title(): value for name, value in message["headers"].items()}
    headers["Webhook-Signature"] = "v1,AAAA " + headers["Webhook-Signature"]
    told = verify_webhook(message["secret"], headers, message["body"].encode())
    assert (told["id"], told["type"], told["data"]["text"]) == ("msg_1", "job.completed", "grün")


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "0"},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "99999999999"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,AAAA v2,ü"},
    ],
    ids=str,
)
def test_any_other_message_is_refused(message: dict[str, Any], headers: dict[str, str]) -> None:
    with pytest.raises(WebhookError):
        verify_webhook(message["secret"], message["headers"] | headers, message["body"].encode())


def test_a_message_that_was_changed_or_is_old_is_refused(message: dict[str, Any]) -> None:
    body, headers = message["body"].encode(), message["headers"]
    for secret, said, tolerance in (
        (message["secret"], body + b" ", 300),
        (message["secret"], body, 99),
        ("whsec_AAAA", body, 300),
        ("whsec_", body, 300),
        ("whsec_?", body, 300),
        ("AAAA", body, 300),
    ):
        with pytest.raises(WebhookError):
            verify_webhook(secret, headers, said, tolerance=tolerance)
