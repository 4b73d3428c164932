"""The newest word of a node counts until it expires, and nothing older comes back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.placement import coverage
from discovery.protocol.announcement import SignedAnnouncement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.service.errors import MirrorFull
from discovery.service.mirror import MOST_PER_NODE, Mirror, Source
from discovery.web.errors import ProofStale
from tests.support.documents import DIGEST, OTHER_DIGEST, peer_of, signed_announcement

NOW = int(time.time())
EXPIRY = 120


def said(name: str = "node", at: int = 0, lifetime: int = EXPIRY, **changes: Any) -> SignedAnnouncement:
    """What a node has signed ``at`` seconds from now."""
    return signed_announcement(name, issued_at=NOW + at, expires_at=NOW + at + lifetime, **changes)


def mirror() -> Mirror:
    return Mirror("far", EXPIRY)


def peers(of: Mirror, model: str = DIGEST, at: float = 0) -> list[str]:
    return [one.peer_id for one in of.view(model, NOW + at).entries]


def test_what_was_announced_is_seen_under_the_digest_and_under_the_name() -> None:
    seen = mirror()
    assert seen.take(said("a"), NOW, Source.DHT)
    assert seen.take(said("b", model_digest=OTHER_DIGEST), NOW, Source.SENT)
    assert (peers(seen, DIGEST), peers(seen, OTHER_DIGEST)) == ([peer_of("a")], [peer_of("b")])
    assert peers(seen, "tiny") == sorted([peer_of("a"), peer_of("b")])
    assert peers(seen, "another") == []
    assert seen.digests(NOW) == sorted([DIGEST, OTHER_DIGEST])
    assert [one.source for one in seen.node(peer_of("b"), NOW)] == [Source.SENT]


def test_a_name_that_looks_like_a_digest_takes_no_models_place() -> None:
    seen = mirror()
    seen.take(said("a"), NOW, Source.DHT)
    seen.take(said("liar", model_id=DIGEST, model_digest=OTHER_DIGEST), NOW, Source.DHT)
    assert peers(seen, DIGEST) == [peer_of("a")]


def test_the_same_announcement_again_is_no_news() -> None:
    seen, one = mirror(), said()
    assert not seen.knows(one.to_bytes())
    assert seen.take(one, NOW, Source.DHT)
    assert seen.knows(one.to_bytes())
    assert not seen.take(one, NOW, Source.SENT)
    assert seen.take(said(at=1), NOW + 1, Source.DHT)
    assert not seen.knows(one.to_bytes())


def test_an_announcement_ends_by_its_own_word_or_when_it_was_not_renewed() -> None:
    seen = mirror()
    seen.take(said("short", lifetime=10), NOW, Source.DHT)
    seen.take(said("long", lifetime=86_400), NOW, Source.DHT)
    assert peers(seen, at=9.9) == sorted([peer_of("short"), peer_of("long")])
    assert peers(seen, at=10) == [peer_of("long")]
    assert peers(seen, at=EXPIRY - 0.1) == [peer_of("long")]
    assert peers(seen, at=EXPIRY) == []


def test_a_renewal_in_time_keeps_a_node_without_a_gap() -> None:
    seen = mirror()
    for at in range(0, 300, 30):
        seen.take(said(at=at), NOW + at, Source.DHT)
        assert peers(seen, at=at + 30) == [peer_of("node")]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"at": -EXPIRY}, "expired"),
        ({"at": -30, "lifetime": 29}, "expired"),
        ({"at": -EXPIRY - 1, "lifetime": 86_400}, "expired"),
        ({"at": 61}, "future"),
        ({"swarm": "another"}, "another swarm"),
    ],
    ids=str,
)
def test_what_is_not_live_or_not_meant_for_this_swarm_is_refused(wrong: dict[str, Any], why: str) -> None:
    seen = mirror()
    with pytest.raises(AnnouncementInvalid, match=why):
        seen.take(said(**wrong), NOW, Source.DHT)
    assert len(seen) == 0


def test_a_clock_that_is_a_little_ahead_is_forgiven() -> None:
    assert mirror().take(said(at=59), NOW, Source.DHT)


def test_a_node_that_left_is_not_brought_back_by_what_it_said_before() -> None:
    seen, before = mirror(), said(at=-20)
    seen.take(before, NOW, Source.DHT)
    seen.take(said(at=-5, lifetime=1 + 5, state="leaving"), NOW, Source.DHT)
    for at in (0, 2, 60, EXPIRY - 21):
        seen.sweep(NOW + at)
        with pytest.raises((ProofStale, AnnouncementInvalid)):
            seen.take(before, NOW + at, Source.DHT)
    assert peers(seen, at=2) == []


def test_of_two_words_of_one_second_the_one_that_ends_later_counts() -> None:
    seen = mirror()
    seen.take(said(lifetime=100), NOW, Source.DHT)
    assert seen.take(said(lifetime=101, state="leaving"), NOW, Source.DHT)
    with pytest.raises(ProofStale):
        seen.take(said(lifetime=101, state="ready"), NOW, Source.DHT)
    assert [one.announcement.state for one in seen.node(peer_of("node"), NOW)] == ["leaving"]


def test_nothing_is_remembered_for_longer_than_it_matters() -> None:
    seen = mirror()
    for name in "abc":
        seen.take(said(name), NOW, Source.DHT)
    seen.sweep(NOW + EXPIRY - 1)
    assert len(seen) == 3
    seen.sweep(NOW + EXPIRY)
    assert len(seen) == 0
    assert seen.digests(NOW + EXPIRY) == []
    assert not seen.knows(said("a").to_bytes())


def test_there_is_an_end_to_what_is_kept_and_those_who_are_there_can_renew() -> None:
    seen = Mirror("far", EXPIRY, most=2)
    seen.take(said("a"), NOW, Source.DHT)
    seen.take(said("b"), NOW, Source.DHT)
    with pytest.raises(MirrorFull):
        seen.take(said("c"), NOW, Source.DHT)
    assert seen.take(said("a", at=1), NOW + 1, Source.DHT)


def test_one_node_cannot_announce_models_without_end() -> None:
    seen = mirror()
    for number in range(MOST_PER_NODE):
        seen.take(said(model_digest=f"{number:064x}"), NOW, Source.DHT)
    with pytest.raises(MirrorFull, match="64 models"):
        seen.take(said(model_digest="f" * 64), NOW, Source.DHT)
    assert seen.take(said("another"), NOW, Source.DHT)


def test_coverage_is_told_for_each_set_of_weights_and_what_most_say_of_them_counts() -> None:
    seen = mirror()
    for name, blocks in (("a", (0, 4)), ("b", (4, 8)), ("c", (2, 6))):
        seen.take(said(name, first_block=blocks[0], end_block=blocks[1]), NOW, Source.DHT)
    seen.take(said("liar", model_id="huge", block_count=4), NOW, Source.DHT)
    seen.take(said("leaving", state="leaving", end_block=8), NOW, Source.DHT)
    variant = seen.view(DIGEST, NOW).variant(DIGEST)
    assert (variant.model_id, variant.block_count, variant.nodes, variant.ready) == ("tiny", 8, 5, 4)
    assert variant.replicas == (1, 1, 2, 2, 2, 2, 1, 1)
    assert variant.is_complete


STEPS = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.integers(-150, 150), st.integers(1, 300), st.sampled_from(["ready", "leaving"])
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(steps=STEPS)
def test_whatever_comes_in_whatever_order_the_newest_counts(steps: list[tuple[str, int, int, str]]) -> None:
    seen = mirror()
    taken: dict[str, tuple[int, int, str]] = {}
    for name, at, lifetime, state in steps:
        try:
            seen.take(said(name, at, lifetime, state=state), NOW, Source.DHT)
        except (AnnouncementInvalid, ProofStale):
            continue
        newest = taken.get(name, (-1000, 0, ""))
        assert (at, at + lifetime) >= newest[:2]
        taken[name] = (at, at + lifetime, state)
    seen.sweep(NOW)
    for name, (at, ends, state) in taken.items():
        (entry,) = seen.node(peer_of(name), NOW)
        assert (entry.announcement.issued_at, entry.announcement.state) == (NOW + at, state)
        assert entry.ends_at == NOW + min(ends, at + EXPIRY)
    assert len(seen) == len(taken)


SAID = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["ready", "ready", "leaving"]),
        "model_id": st.sampled_from(["tiny", "huge"]),
        "model_digest": st.sampled_from([DIGEST, OTHER_DIGEST]),
        "block_count": st.sampled_from([8, 9]),
        "first_block": st.integers(0, 3),
        "end_block": st.integers(4, 8),
        "region": st.sampled_from([None, "eu", "eu-west", "us"]),
        "location": st.sampled_from([None, (52, 13), (49, 2)]),
    }
)


@settings(max_examples=30)
@given(steps=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 40), SAID), max_size=25))
def test_what_is_counted_as_it_comes_and_goes_is_what_would_be_counted_anew(
    steps: list[tuple[str, int, dict[str, Any]]],
) -> None:
    seen, at = mirror(), 0
    for at, (name, lifetime, changes) in enumerate(steps):
        seen.take(said(name, at, lifetime, **changes), NOW + at, Source.DHT)
    anew = mirror()
    for entry in list(seen.active(NOW + at)):
        anew.take(entry.signed, NOW + at, Source.DHT)
    assert seen.digests(NOW + at) == anew.digests(NOW + at)
    for model in ("tiny", "huge", DIGEST, OTHER_DIGEST):
        one, other = seen.view(model, NOW + at), anew.view(model, NOW + at)
        assert [entry.mark for entry in one.entries] == [entry.mark for entry in other.entries]
        variants = [one.variant(digest) for _, digest in one.digests]
        assert variants == [other.variant(digest) for _, digest in other.digests]
        assert variants == sorted(variants, key=lambda variant: (-variant.ready, variant.model_digest))
        ready = [entry for entry in one.entries if entry.announcement.state == "ready"]
        assert [name for _, name in one.ready] == [entry.name for entry in ready]
        eu = [entry.name for entry in ready if (entry.announcement.region or "").startswith("eu")]
        assert [name for _, name in one.within("eu")] == eu
        berlin = [entry.name for entry in ready if entry.announcement.location == (52, 13)]
        assert [name for _, name in one.near((52, 13), 100)] == berlin
        for variant in variants:
            of = [about for entry in one.entries if (about := entry.announcement).model_digest == variant.model_digest]
            assert list(variant.replicas) == coverage(of, variant.block_count)
