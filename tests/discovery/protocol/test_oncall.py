"""Registrations of nodes that sleep, and the calls that wake them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from discovery.protocol.errors import AnnouncementInvalid, CallRefused
from discovery.protocol.oncall import (
    CALL_DOMAIN,
    CALL_SECONDS,
    DOMAIN,
    MAX_URL_LENGTH,
    Calls,
    Registration,
    call,
    read_registration,
    register,
)
from tests.support.documents import announcement, key_of, peer_of, signed_announcement, signed_json

URL = "https://gpu.example.org/wake"
LATER = int(time.time()) + 3600


def registration(url: str | None = URL) -> Registration:
    return register(announcement("node"), key_of("node"), url, LATER).registration


def test_a_registration_says_what_will_be_served_and_where_the_node_is_woken() -> None:
    about = announcement("node", load=0.5, queue_ms=3.0)
    signed = register(about, key_of("node"), URL, LATER)
    read = read_registration(signed.to_bytes()).registration
    assert read == signed.registration
    assert (read.wake_url, read.blocks, read.model_digest) == (URL, about.blocks, about.model_digest)
    assert (read.load, read.queue_ms, read.expires_at) == (0.0, 0.0, LATER)


@pytest.mark.parametrize("url", ["", "ftp://x", "gpu.example.org", "https:" + "/" * MAX_URL_LENGTH, 7], ids=repr)
def test_an_address_that_is_none_is_not_registered(url: Any) -> None:
    with pytest.raises(AnnouncementInvalid):
        register(announcement("node"), key_of("node"), url, LATER)


def test_what_is_no_registration_is_not_read() -> None:
    fields = json.loads(register(announcement("node"), key_of("node"), URL, LATER).document.body)
    for wrong in (
        b"",
        signed_announcement("node").to_bytes(),
        signed_json("another", fields, DOMAIN),
        signed_json("node", fields | {"expires_at": LATER + 90_000}, DOMAIN),
        signed_json("node", {name: value for name, value in fields.items() if name != "wake_url"}, DOMAIN),
    ):
        with pytest.raises(AnnouncementInvalid):
            read_registration(wrong)


@pytest.fixture
def door() -> Calls:
    return Calls(URL, frozenset({peer_of("node")}))


def test_a_call_is_heard_once(door: Calls) -> None:
    said = call(key_of("client"), registration())
    assert door.hear(said) == peer_of("node")
    with pytest.raises(CallRefused, match="heard before"):
        door.hear(said)
    door.hear(call(key_of("client"), registration()))


def test_a_call_of_another_time_is_not_heard_even_when_it_was_forgotten(door: Calls) -> None:
    said, now = call(key_of("client"), registration()), time.time()
    for away in (-CALL_SECONDS - 2, CALL_SECONDS + 2):
        with pytest.raises(CallRefused, match="another time"):
            door.hear(said, now + away)
    door.hear(said, now + CALL_SECONDS - 1)
    with pytest.raises(CallRefused, match="another time"):
        door.hear(said, now + 5 * CALL_SECONDS)


def test_a_call_is_meant_for_one_door_and_one_node(door: Calls) -> None:
    with pytest.raises(CallRefused, match="another address"):
        door.hear(call(key_of("client"), registration(URL + "/elsewhere")))
    other = register(announcement("other"), key_of("other"), URL, LATER).registration
    with pytest.raises(CallRefused, match="no such node"):
        door.hear(call(key_of("client"), other))


def test_an_owner_may_hear_only_some() -> None:
    door = Calls(URL, frozenset({peer_of("node")}), frozenset({peer_of("friend")}))
    door.hear(call(key_of("friend"), registration()))
    with pytest.raises(CallRefused, match="not heard here"):
        door.hear(call(key_of("client"), registration()))


def test_a_forged_call_is_not_heard(door: Calls) -> None:
    fields = json.loads(json.loads(call(key_of("client"), registration()))["body"])
    for wrong in (
        b"",
        b"x" * 20_000,
        signed_json("thief", fields, CALL_DOMAIN),
        signed_json("client", fields, DOMAIN),
        signed_json("client", fields | {"nonce": "short"}, CALL_DOMAIN),
        signed_json("client", fields | {"issued_at": "now"}, CALL_DOMAIN),
    ):
        with pytest.raises(CallRefused):
            door.hear(wrong)
    door.hear(signed_json("client", fields, CALL_DOMAIN))
