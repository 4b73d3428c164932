"""An announcement is about its signer, in a known shape, for a short time; all else is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from discovery.protocol.announcement import (
    CLOCK_SKEW_SECONDS,
    DOMAIN,
    MAX_LIFETIME_SECONDS,
    MAX_LINKS,
    read_announcement,
    sign_announcement,
)
from discovery.protocol.errors import AnnouncementInvalid
from discovery.protocol.ids import sign
from discovery.protocol.signed import MAX_DOCUMENT_BYTES, SignedDocument
from tests.support.documents import (
    announcement,
    forged_announcement,
    key_of,
    peer_of,
    signed_announcement,
    signed_json,
    tampered,
    wallet_of,
)


def test_what_is_signed_is_read_back_with_its_signer() -> None:
    signed = signed_announcement("node", first_block=2, end_block=5)
    read = read_announcement(signed.to_bytes())
    assert read == signed
    assert read.announcement.blocks == (2, 5)
    assert read.peer_id == peer_of("node")


def test_a_field_of_a_later_version_does_no_harm() -> None:
    body = announcement()
    data = signed_json("node", body.model_dump() | {"colour": "green"}, DOMAIN)
    assert read_announcement(data).announcement == body


def test_a_node_signs_about_itself_only() -> None:
    with pytest.raises(AnnouncementInvalid, match="only announce itself"):
        sign_announcement(announcement("victim"), key_of("forger"))


def test_an_announcement_about_another_peer_is_refused() -> None:
    with pytest.raises(AnnouncementInvalid, match="signed the announcement of"):
        read_announcement(forged_announcement("forger", announcement("victim")))


def test_an_announcement_signed_by_another_key_in_the_name_of_the_victim_is_refused() -> None:
    text = announcement("victim").model_dump_json()
    document = SignedDocument(text, peer_of("victim"), sign(key_of("forger"), DOMAIN, text.encode()))
    with pytest.raises(AnnouncementInvalid, match="signature"):
        read_announcement(document.to_bytes())


def test_a_signature_made_for_another_purpose_is_refused() -> None:
    text = announcement().model_dump_json()
    document = SignedDocument(text, peer_of("node"), sign(key_of("node"), "far-mesh/receipt/v1", text.encode()))
    with pytest.raises(AnnouncementInvalid, match="signature"):
        read_announcement(document.to_bytes())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (wallet_of("node"), wallet_of("thief")),
        ('"end_block":4', '"end_block":8'),
        ('"quantization":"none"', '"quantization":"int8"'),
        ('"state":"ready"', '"state":"leaving"'),
        ('"expires_at":', '"expires_at":1'),
    ],
)
def test_a_changed_field_breaks_the_signature(old: str, new: str) -> None:
    with pytest.raises(AnnouncementInvalid, match="signature"):
        read_announcement(tampered(signed_announcement().document, old, new))


def test_an_announcement_with_any_one_byte_changed_is_refused_or_says_the_same() -> None:
    signed = signed_announcement()
    data = signed.to_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x01
        try:
            read = read_announcement(bytes(changed))
        except AnnouncementInvalid:
            continue
        assert read == signed, f"byte {place}"


WRONG_FIELDS: list[dict[str, Any]] = [
    {"version": 2},
    {"peer_id": "nobody"},
    {"wallet": "0x12"},
    {"wallet": wallet_of("node").lower()},
    {"wallet": ""},
    {"model_id": ""},
    {"model_id": "m" * 257},
    {"model_digest": "ab"},
    {"model_digest": "G" * 64},
    {"block_count": 0},
    {"block_count": 4097},
    {"first_block": -1},
    {"first_block": 4},
    {"first_block": 5},
    {"end_block": 9},
    {"end_block": 0},
    {"first_block": True},
    {"first_block": 0.0},
    {"quantization": "int3"},
    {"dtype": "float64"},
    {"maddrs": ["/ip4/127.0.0.1/tcp/1"] * 17},
    {"maddrs": ["x" * 257]},
    {"maddrs": "/ip4/127.0.0.1/tcp/1"},
    {"software": "s" * 65},
    {"state": "asleep"},
    {"issued_at": -1},
    {"expires_at": 0},
    {"expires_at": "tomorrow"},
    {"issued_at": 10**18},
    {"price_units": -1},
    {"price_units": 10**12 + 1},
    {"price_units": 0.5},
    {"block_ms": 0},
    {"block_ms": -1.0},
    {"block_ms": 1e-9},
    {"block_ms": 1e6},
    {"block_ms": float("nan")},
    {"block_ms": float("inf")},
    {"queue_ms": -0.1},
    {"queue_ms": 1e9},
    {"queue_ms": None},
    {"load": -0.01},
    {"load": 1.01},
    {"load": float("nan")},
    {"sessions": 0},
    {"sessions": 65_537},
    {"sessions": 1.5},
    {"region": ""},
    {"region": "EU"},
    {"region": "eu west"},
    {"region": "eu-west\n"},
    {"region": "a" * 17},
    {"region": "a-b-c-d-e"},
    {"location": [91, 0]},
    {"location": [0, 181]},
    {"location": [52.5, 13]},
    {"location": [52]},
    {"location": "52,13"},
    {"links": [[peer_of("other"), 0.0]]},
    {"links": [[peer_of("other"), 10_001]]},
    {"links": [[peer_of("other"), float("nan")]]},
    {"links": [["12D3KooW", 1.0]]},
    {"links": [["x" * 52, 1.0]]},
    {"links": [[peer_of("other"), 1.0]] * 2},
    {"links": [[peer_of("node"), 1.0]]},
    {"links": [[peer_of(f"other {number}"), 1.0] for number in range(17)]},
    {"links": {peer_of("other"): 1.0}},
    {"auto_place": 1},
    {"moving_to": [4]},
    {"moving_to": [-1, 3]},
    {"moving_to": [4, 4]},
    {"moving_to": [4, 9]},
    {"moving_to": "4:8"},
    {"reached": "well"},
    {"reached": ""},
    {"reached": True},
]
OPTIONAL = {
    "version",
    "state",
    "price_units",
    "block_ms",
    "queue_ms",
    "load",
    "sessions",
    "region",
    "location",
    "links",
    "swarm",
    "invitation",
    "auto_place",
    "moving_to",
    "reached",
}


@pytest.mark.parametrize("wrong", WRONG_FIELDS, ids=str)
def test_a_signed_announcement_with_a_field_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    data = signed_json("node", announcement().model_dump() | wrong, DOMAIN)
    with pytest.raises(AnnouncementInvalid, match="malformed"):
        read_announcement(data)


@pytest.mark.parametrize("field", sorted(set(announcement().model_dump()) - OPTIONAL))
def test_a_signed_announcement_that_lacks_a_field_is_refused(field: str) -> None:
    fields = announcement().model_dump()
    del fields[field]
    with pytest.raises(AnnouncementInvalid, match="malformed"):
        read_announcement(signed_json("node", fields, DOMAIN))


def test_what_routes_are_planned_with_may_be_left_out_and_is_read_back_as_it_was_signed() -> None:
    fields = announcement().model_dump()
    for field in OPTIONAL:
        del fields[field]
    assert read_announcement(signed_json("node", fields, DOMAIN)).announcement == announcement(**fields)
    full = signed_announcement(
        price_units=10**12,
        block_ms=0.001,
        queue_ms=600_000,
        load=1,
        sessions=65_536,
        region="eu-west-2",
        location=(-33, 151),
        auto_place=True,
        moving_to=(4, 8),
        reached="relay",
        links=tuple((peer_of(f"other {number}"), 10_000 / (number + 1)) for number in range(MAX_LINKS)),
    )
    read = read_announcement(full.to_bytes()).announcement
    assert read == full.announcement
    assert hash(read) == hash(full.announcement)


def test_the_longest_announcement_is_half_of_what_a_record_may_have() -> None:
    longest = signed_announcement(
        "node",
        model_id="m" * 256,
        maddrs=("/" + "x" * 255,) * 16,
        software="s" * 64,
        region="-".join(["r" * 16] * 4),
        location=(-90, -180),
        block_ms=1 / 3,
        queue_ms=1 / 3,
        load=1 / 3,
        links=tuple((peer_of(f"other {number}"), 1 / 3) for number in range(MAX_LINKS)),
    )
    assert len(longest.to_bytes()) < MAX_DOCUMENT_BYTES / 2


def test_a_lifetime_beyond_a_day_is_refused() -> None:
    now = 1_700_000_000
    announcement(issued_at=now, expires_at=now + MAX_LIFETIME_SECONDS)
    for expires in (now, now - 1, now + MAX_LIFETIME_SECONDS + 1):
        with pytest.raises(ValidationError, match="lifetime"):
            announcement(issued_at=now, expires_at=expires)


def test_an_announcement_lives_from_its_issue_until_it_expires() -> None:
    body = announcement(issued_at=1000, expires_at=1120)
    assert body.is_live(1000)
    assert body.is_live(1119.9)
    assert not body.is_live(1120)
    assert body.is_live(1000 - CLOCK_SKEW_SECONDS), "the clock of its node may be ahead of ours"
    assert not body.is_live(1000 - CLOCK_SKEW_SECONDS - 1)


def test_a_document_that_is_too_long_is_refused_unread() -> None:
    data = signed_announcement().to_bytes()
    with pytest.raises(AnnouncementInvalid, match="too long"):
        read_announcement(data + b" " * (MAX_DOCUMENT_BYTES + 1 - len(data)))
    assert read_announcement(data + b" " * (MAX_DOCUMENT_BYTES - len(data)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=10,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "body": json_values | st.just(announcement().model_dump_json()),
        "signer": json_values | st.just(peer_of("node")),
        "signature": json_values | st.binary(max_size=70).map(lambda raw: base64.b64encode(raw).decode()),
    },
)


@settings(max_examples=300)
@given(
    st.binary(max_size=300) | json_values.map(json.dumps).map(str.encode) | documents.map(json.dumps).map(str.encode)
)
def test_a_strangers_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(AnnouncementInvalid):
        read_announcement(data)


@settings(max_examples=300)
@given(json_values)
def test_a_peer_that_signs_nonsense_is_refused_in_one_way(body: object) -> None:
    with pytest.raises(AnnouncementInvalid):
        read_announcement(signed_json("node", body, DOMAIN))


@given(st.dictionaries(st.sampled_from(sorted(announcement().model_dump())), json_values, min_size=1, max_size=3))
def test_a_peer_that_signs_nonsense_in_some_fields_is_refused_in_one_way_or_consistent(fields: dict[str, Any]) -> None:
    data = signed_json("node", announcement().model_dump() | fields, DOMAIN)
    try:
        read = read_announcement(data).announcement
    except AnnouncementInvalid:
        return
    assert read.peer_id == peer_of("node")
    assert 0 <= read.first_block < read.end_block <= read.block_count


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", b"[" * 10_000, b'{"body":1,"signer":"x","signature":""}'],
    ids=lambda data: str(data[:12]),
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(AnnouncementInvalid, match="not a signed document"):
        read_announcement(data)
