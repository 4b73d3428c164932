"""What an honest DHT peer refuses to store for others."""

from __future__ import annotations

import time
from typing import Any

import msgpack
import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.dht.keys import all_nodes_key, model_key, node_key, places_of
from discovery.dht.validator import AnnouncementValidator
from discovery.protocol.announcement import SignedAnnouncement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.protocol.signed import MAX_DOCUMENT_BYTES
from tests.support.documents import (
    DIGEST,
    OTHER_DIGEST,
    announcement,
    forged_announcement,
    peer_of,
    signed_announcement,
    tampered,
    wallet_of,
)

PREFIX = "far"
VALIDATOR = AnnouncementValidator(PREFIX)


def record(value: object, *, key: str | None = None, subkey: object = None, expires: float | None = None) -> DHTRecord:
    return DHTRecord(
        key=DHTID.generate(key or model_key(PREFIX, DIGEST, peer_of("node"))).to_bytes(),
        subkey=msgpack.packb(subkey if subkey is not None else peer_of("node")),
        value=msgpack.packb(value),
        expiration_time=expires or time.time() + 100,
    )


def refused(wrong: DHTRecord, reason: str) -> None:
    assert VALIDATOR.validate(wrong) is False
    with pytest.raises(AnnouncementInvalid, match=reason):
        VALIDATOR.check(wrong)


@pytest.fixture
def good() -> SignedAnnouncement:
    return signed_announcement()


def test_an_honest_announcement_is_accepted_in_its_three_places(good: SignedAnnouncement) -> None:
    places = places_of(PREFIX, good.announcement)
    assert len(places) == 3
    for key, subkey in places.items():
        assert VALIDATOR.validate(record(good.to_bytes(), key=key, subkey=subkey)), key


def test_an_announcement_under_the_name_of_another_model_is_refused(good: SignedAnnouncement) -> None:
    for key in (node_key(PREFIX, peer_of("node")), all_nodes_key(PREFIX, peer_of("node"))):
        for subkey in (peer_of("node"), f"{peer_of('node')}/{OTHER_DIGEST}", f"{peer_of('victim')}/{DIGEST}"):
            refused(record(good.to_bytes(), key=key, subkey=subkey), "under the name of")


@pytest.mark.parametrize(
    "key",
    [
        model_key(PREFIX, OTHER_DIGEST, peer_of("node")),
        node_key(PREFIX, peer_of("victim")),
        model_key("another-swarm", DIGEST, peer_of("node")),
        all_nodes_key("another-swarm", peer_of("node")),
        "anything",
    ],
)
def test_an_announcement_under_a_key_that_is_not_its_own_is_refused(good: SignedAnnouncement, key: str) -> None:
    refused(record(good.to_bytes(), key=key), "not its own")


def test_an_announcement_carried_over_from_another_swarm_is_refused() -> None:
    stray = signed_announcement(swarm="another-swarm")
    for key, subkey in places_of("another-swarm", stray.announcement).items():
        here = key.replace("another-swarm", PREFIX)
        refused(record(stray.to_bytes(), key=here, subkey=subkey), "not its own")
        at_home = record(stray.to_bytes(), key=key, subkey=subkey)
        assert AnnouncementValidator("another-swarm").validate(at_home)


def test_an_announcement_under_the_name_of_another_peer_is_refused(good: SignedAnnouncement) -> None:
    refused(record(good.to_bytes(), subkey=peer_of("victim")), "under the name of")
    refused(record(good.to_bytes(), subkey=peer_of("node") + " "), "under the name of")


def test_an_announcement_signed_by_another_key_is_refused() -> None:
    forged = forged_announcement("forger", announcement("node"))
    refused(record(forged), "signed the announcement of")
    refused(record(forged, subkey=peer_of("forger")), "signed the announcement of")


def test_an_announcement_changed_on_its_way_is_refused(good: SignedAnnouncement) -> None:
    refused(record(tampered(good.document, wallet_of("node"), wallet_of("thief"))), "signature")


def test_a_record_that_would_outlive_its_announcement_is_refused(good: SignedAnnouncement) -> None:
    ends = good.announcement.expires_at
    assert VALIDATOR.validate(record(good.to_bytes(), expires=float(ends)))
    refused(record(good.to_bytes(), expires=ends + 2.0), "outlive")
    refused(record(good.to_bytes(), expires=ends + 0.5), "outlive")
    refused(record(good.to_bytes(), expires=float("inf")), "outlive")
    refused(record(good.to_bytes(), expires=float("nan")), "outlive")


@pytest.mark.parametrize("subkey", [0, None, b"bytes", ["list"], {"a": 1}, 1.5, ""], ids=repr)
def test_a_subkey_that_is_no_peer_id_is_refused(good: SignedAnnouncement, subkey: object) -> None:
    packed = msgpack.packb(subkey)
    wrong = DHTRecord(record(good.to_bytes()).key, packed, msgpack.packb(good.to_bytes()), time.time() + 100)
    assert not VALIDATOR.validate(wrong)


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, {"body": "x"}, b"", b"garbage"], ids=repr)
def test_a_value_that_is_no_announcement_is_refused(value: object) -> None:
    refused(record(value), "maps a name|not a signed document")


def test_a_record_without_a_subkey_is_refused(good: SignedAnnouncement) -> None:
    plain = DHTRecord(record(b"").key, b"", msgpack.packb(good.to_bytes()), time.time() + 100)
    refused(plain, "not msgpack")


def test_an_oversized_record_is_refused(good: SignedAnnouncement) -> None:
    refused(record(good.to_bytes() + b" " * MAX_DOCUMENT_BYTES), "too long")
    refused(record(b"x" * 10 * MAX_DOCUMENT_BYTES), "too long")
    refused(record(good.to_bytes(), subkey="s" * 10 * MAX_DOCUMENT_BYTES), "too long")


@settings(max_examples=300)
@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=200), st.floats())
def test_no_record_makes_the_validator_raise(key: bytes, subkey: bytes, value: bytes, expires: float) -> None:
    assert VALIDATOR.validate(DHTRecord(key, subkey, value, expires)) is False


packable: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300)
@given(packable, packable)
def test_no_value_that_can_be_packed_makes_the_validator_raise(subkey: object, value: object) -> None:
    wrong = DHTRecord(record(b"").key, msgpack.packb(subkey), msgpack.packb(value), time.time() + 100)
    assert VALIDATOR.validate(wrong) is False


@settings(max_examples=300)
@given(st.data())
def test_no_byte_of_a_good_record_can_be_changed(data: st.DataObject) -> None:
    good = record(signed_announcement().to_bytes())
    place = data.draw(st.integers(0, len(good.value) - 1))
    flip = data.draw(st.integers(1, 255))
    value = good.value[:place] + bytes([good.value[place] ^ flip]) + good.value[place + 1 :]
    accepted = VALIDATOR.validate(DHTRecord(good.key, good.subkey, value, good.expiration_time))
    assert not accepted or good.value[place : place + 1].isspace()
