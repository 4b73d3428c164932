"""A receipt holds against every change, and anyone can check it offline."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from discovery.protocol.errors import ReceiptInvalid
from discovery.protocol.ids import SessionId, public_key_of
from discovery.protocol.receipt import DOMAIN, extend_root, first_root, read_receipt, sign_receipt
from tests.support.documents import key_of, peer_of, receipt, signed_announcement, signed_json, tampered


def test_a_signed_receipt_is_read_back_with_its_signer() -> None:
    signed = sign_receipt(receipt(), key_of("node"))
    read = read_receipt(signed.to_bytes())
    assert read == signed
    assert read.peer_id == peer_of("node")
    assert read.receipt.blocks == (0, 4)


def test_anyone_can_check_a_receipt_with_an_ed25519_library_alone() -> None:
    fields = json.loads(sign_receipt(receipt(), key_of("node")).to_bytes())
    signed = b"far-mesh/receipt/v1\n" + fields["body"].encode()
    public_key_of(json.loads(fields["body"])["peer_id"]).verify(base64.b64decode(fields["signature"]), signed)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_a_receipt_with_any_one_byte_changed_is_refused(flip: int) -> None:
    signed = sign_receipt(receipt(), key_of("node"))
    data = signed.to_bytes()
    refused = 0
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= flip
        try:
            read = read_receipt(bytes(changed))
        except ReceiptInvalid:
            refused += 1
        else:  # white space around a field can differ; what was signed cannot
            assert read == signed, f"byte {place}"
            assert data[place : place + 1].isspace()
    assert refused >= len(data) - data.count(b" ")


@given(st.data())
def test_a_receipt_with_a_byte_lost_or_added_is_refused(data: st.DataObject) -> None:
    signed = sign_receipt(receipt(), key_of("node"))
    raw = signed.to_bytes()
    place = data.draw(st.integers(0, len(raw) - 1))
    added = data.draw(st.binary(min_size=1, max_size=1))
    for changed in (raw[:place] + raw[place + 1 :], raw[:place] + added + raw[place:]):
        try:
            assert read_receipt(changed) == signed
        except ReceiptInvalid:
            continue


@pytest.mark.parametrize("field", sorted(receipt().model_dump()))
def test_a_receipt_with_any_field_changed_after_signing_is_refused(field: str) -> None:
    signed = sign_receipt(receipt(), key_of("node"))
    fields = json.loads(signed.document.body)
    old = f'"{field}":{json.dumps(fields[field])}'
    new = f'"{field}":{json.dumps(_another(fields[field]))}'
    with pytest.raises(ReceiptInvalid, match="signature"):
        read_receipt(tampered(signed.document, old, new))


def _another(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")


def test_a_receipt_signed_by_another_peer_is_refused() -> None:
    with pytest.raises(ReceiptInvalid, match="signed the receipt of"):
        read_receipt(sign_receipt(receipt("victim"), key_of("forger")).to_bytes())


def test_an_announcement_is_no_receipt() -> None:
    with pytest.raises(ReceiptInvalid, match="signature"):
        read_receipt(signed_announcement().to_bytes())


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_layers": 41},
        {"positions": 9},
        {"first_block": 4},
        {"peer_id": "nobody"},
        {"wallet": "0x0"},
        {"session_id": "AB" * 16},
        {"session_id": "ab"},
        {"nonce": ""},
        {"input_root": "00"},
        {"price_units": -1},
        {"steps": 1.5},
        {"positions": True},
        {"issued_at": 2**53},
        {"codec": "int4"},
        {"cached_positions": 11},
        {"replayed_positions": 11},
        {"replayed_positions": -1},
    ],
    ids=str,
)
def test_a_receipt_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        receipt(**wrong)
    with pytest.raises(ReceiptInvalid, match="malformed"):
        read_receipt(signed_json("node", receipt().model_dump() | wrong, DOMAIN))


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_a_strangers_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(ReceiptInvalid):
        read_receipt(data)


def test_sessions_do_not_share_a_first_root() -> None:
    roots = {first_root(SessionId(bytes([number]) * 16)) for number in range(256)}
    assert len(roots) == 256
    assert all(len(root) == 32 for root in roots)


def test_a_root_is_the_chain_that_the_documentation_tells() -> None:
    root = extend_root(b"\1" * 32, 5, (1, 2, 3), "float32", b"data")
    header = (5).to_bytes(8, "big") + bytes([3]) + b"".join(size.to_bytes(4, "big") for size in (1, 2, 3))
    assert root == hashlib.sha256(b"\1" * 32 + header + b"float32" + b"data").digest()


@given(st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=20)), min_size=1, max_size=6), st.data())
def test_a_root_depends_on_every_step_and_on_their_order(steps: list[tuple[int, bytes]], data: st.DataObject) -> None:
    def chain(parts: list[tuple[int, bytes]]) -> bytes:
        root = first_root(SessionId(b"s" * 16))
        for start, raw in parts:
            root = extend_root(root, start, (1, 1, max(1, len(raw))), "float32", raw)
        return root

    other = data.draw(st.permutations(steps))
    assert (chain(other) == chain(steps)) == (other == steps)
    assert chain(steps[:-1]) != chain(steps)
    place = data.draw(st.integers(0, len(steps) - 1))
    start, raw = steps[place]
    assert chain([*steps[:place], (start + 1, raw), *steps[place + 1 :]]) != chain(steps)
    assert chain([*steps[:place], (start, raw + b"\0"), *steps[place + 1 :]]) != chain(steps)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 1, 3), (3, 2, 1), (1, 1, 6)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bytes_in_another_shape_or_type_give_another_root(shape: tuple[int, ...], dtype: str) -> None:
    base = extend_root(b"\0" * 32, 0, (6, 1, 1), "float16", b"\0" * 12)
    assert extend_root(b"\0" * 32, 0, shape, dtype, b"\0" * 12) != base
