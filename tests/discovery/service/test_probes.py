"""What probers report: taken once, of those who were named, of nodes that are there; and shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery.probe.history import HOUR, KEEP_HOURS, hours_of
from discovery.probe.observation import (
    DOMAIN,
    KEEP_REPORT_SECONDS,
    Observation,
    Report,
    SignedReport,
    read_report,
    sign_report,
)
from discovery.protocol.signed import SignedDocument
from discovery.service.schemas import NodeAnswer, ProbeHistory, ProbeReports
from discovery.service.store import Store
from tests.discovery.probe.test_history import seen, unreached
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import refusal, wait_for
from tests.support.documents import OTHER_DIGEST, key_of, peer_of, signed_announcement, signed_json

AT = 1_800_000_000 // HOUR * HOUR
ISSUED = AT + HOUR


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a service with two probers."""
    board = Board([signed_announcement("node", block_ms=1.0), signed_announcement("quiet")])
    named = (peer_of("prober"), peer_of("second"))
    with a_service(tmp_path, board, probers=named, writes_per_minute=0) as opened:
        wait_for(opened, 2)
        yield opened


def signed(*observations: Observation, prober: str = "prober", **changes: Any) -> SignedDocument:
    now = int(time.time())
    fields: dict[str, Any] = {
        "peer_id": peer_of(prober),
        "swarm": "far",
        "sequence": 1,
        "issued_at": now,
        "observations": observations or (seen(now),),
    }
    return sign_report(Report(**(fields | changes)), key_of(prober)).document


def send(client: httpx.Client, document: SignedDocument | bytes) -> httpx.Response:
    body = document if isinstance(document, bytes) else document.to_bytes()
    return client.post("/probes/reports", content=body, headers={"content-type": "application/json"})


def node(client: httpx.Client, name: str = "node") -> NodeAnswer:
    return NodeAnswer.model_validate_json(client.get(f"/nodes/{peer_of(name)}").content)


def test_what_probers_have_seen_is_shown_and_scored(client: httpx.Client) -> None:
    now = int(time.time())
    good = [seen(now), seen(now - 1), unreached(now - 2), seen(now, peer_id=peer_of("nobody"))]
    answer = send(client, signed(*good))
    assert answer.json() == {"status": "taken", "sequence": 1, "counted": 3}, "one is of a node that nobody announces"
    assert send(client, signed(seen(now, block_ms=9.0, verdict="wrong"), prober="second", sequence=7)).is_success

    shown = node(client)
    both = {one.prober: one for one in shown.probed}
    mine, second = both[peer_of("prober")], both[peer_of("second")]
    assert (mine.reach, mine.probes, mine.right, mine.wrong, mine.overclaims) == ("direct", 3, 2, 0, False)
    assert (second.probes, second.wrong, second.block_ms, second.overclaims) == (1, 1, 9.0, True)
    assert (mine.round_trip_ms, mine.block_ms, mine.claimed_block_ms) == (40.0, 2.0, 1.0)
    assert shown.score is not None
    assert 0 < shown.score.value < 0.5
    assert shown.score.honesty < 0.5
    assert (shown.score.completed, shown.score.probes_right, shown.score.probes_wrong) == (3, 2, 1)
    quiet = node(client, "quiet")
    assert (quiet.probed, quiet.score) == ([], None)

    answer = client.get(f"/nodes/{peer_of('node')}/history", params={"hours": 2})
    hours = ProbeHistory.model_validate_json(answer.content).hours
    assert sum(one.probes for one in hours) == 4
    assert sum(one.unreached for one in hours) == 1
    assert {one.prober for one in hours} == set(both)
    assert client.get(f"/nodes/{peer_of('quiet')}/history").json()["hours"] == []
    again = client.get(f"/nodes/{peer_of('node')}/history?hours=2", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304

    metrics = client.get("/metrics").text
    assert 'far_discovery_probe_reports{outcome="taken"} 2.0' in metrics
    assert 'far_discovery_probes{fate="completed",reach="direct",verdict="right"} 2.0' in metrics
    assert 'far_discovery_probes{fate="unasked",reach="none",verdict=""} 1.0' in metrics


def test_a_report_counts_once_and_none_that_is_older(client: httpx.Client) -> None:
    third = signed(sequence=3)
    assert send(client, third).is_success
    for document in (third, signed(sequence=3), signed(sequence=2)):
        assert refusal(send(client, document)) == (409, "proof_stale")
    assert send(client, signed(sequence=2, prober="second")).is_success, "numbers are each prober's own"
    assert send(client, signed(sequence=4)).is_success
    assert {one.prober: one.probes for one in node(client).probed} == {peer_of("prober"): 2, peer_of("second"): 1}


def test_what_was_not_signed_by_a_prober_that_was_named_is_not_believed(client: httpx.Client) -> None:
    now = int(time.time())
    assert refusal(send(client, signed(prober="stranger"))) == (403, "prober_unknown")
    honest = signed()
    forged = SignedDocument(honest.body, peer_of("prober"), sign_report_of("stranger", honest.body))
    assert refusal(send(client, forged)) == (400, "report_invalid")
    changed = SignedDocument(honest.body.replace('"right"', '"wrong"'), honest.signer, honest.signature)
    assert refusal(send(client, changed)) == (400, "report_invalid")
    of_another = {"peer_id": peer_of("second")} | {"swarm": "far", "sequence": 1, "issued_at": now}
    body = of_another | {"observations": [seen(now).model_dump(mode="json")]}
    assert refusal(send(client, signed_json("prober", body, DOMAIN))) == (400, "report_invalid")
    assert refusal(send(client, signed(swarm="another"))) == (400, "report_invalid")
    assert node(client).probed == []
    assert send(client, honest).is_success, "what was refused has used up no number"


def test_what_a_prober_has_signed_is_handed_on_as_it_is(client: httpx.Client) -> None:
    first, second = signed(sequence=3), signed(sequence=7)
    for document in (first, second, signed(prober="second", sequence=1)):
        assert send(client, document).is_success

    def told(**asked: Any) -> list[bytes]:
        answer = client.get("/probes/reports", params={"prober": peer_of("prober")} | asked)
        found = ProbeReports.model_validate_json(answer.content)
        return [read_report(one.model_dump_json().encode()).document.to_bytes() for one in found.reports]

    assert told() == [first.to_bytes(), second.to_bytes()]
    assert told(limit=1) == [first.to_bytes()]
    assert told(after=3) == [second.to_bytes()]
    assert told(after=7) == []
    answer = client.get("/probes/reports", params={"prober": peer_of("prober")})
    again = client.get(str(answer.url), headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_reports_are_asked_of_one_who_was_named_and_with_numbers(client: httpx.Client) -> None:
    prober = peer_of("prober")
    for asked, expected in (
        ({}, (400, "invalid_argument")),
        ({"prober": "nobody"}, (400, "invalid_identity")),
        ({"prober": "x" * 200}, (400, "invalid_argument")),
        ({"prober": peer_of("stranger")}, (403, "prober_unknown")),
        ({"prober": prober, "after": "-1"}, (400, "invalid_argument")),
        ({"prober": prober, "after": str(2**60)}, (400, "invalid_argument")),
        ({"prober": prober, "limit": "0"}, (400, "invalid_argument")),
        ({"prober": prober, "limit": "33"}, (400, "invalid_argument")),
    ):
        assert refusal(client.get("/probes/reports", params=asked)) == expected, asked


def sign_report_of(name: str, body: str) -> bytes:
    from discovery.protocol.ids import sign

    return sign(key_of(name), DOMAIN, body.encode())


@pytest.mark.parametrize("off", [-400, 400])
def test_what_is_not_of_now_is_refused(client: httpx.Client, off: int) -> None:
    then = int(time.time()) + off
    assert refusal(send(client, signed(seen(then), issued_at=then))) == (409, "proof_stale")
    assert node(client).probed == []


def test_what_is_too_long_or_no_report_is_refused(client: httpx.Client) -> None:
    long = SignedDocument("x" * 17_000, peer_of("prober"), bytes(64))
    assert refusal(send(client, long)) == (400, "invalid_argument")
    assert refusal(send(client, b"x" * 70_000)) == (413, "body_too_large")
    for rubbish in (b"", b"[]", b"{}", b'{"body": 1, "signer": 2, "signature": 3}'):
        assert refusal(send(client, rubbish)) == (400, "invalid_argument")
    assert refusal(client.get("/nodes/nobody/history")) == (400, "invalid_identity")
    assert refusal(client.get(f"/nodes/{peer_of('node')}/history?hours={KEEP_HOURS + 1}")) == (400, "invalid_argument")


def test_where_no_prober_was_named_nothing_is_taken(tmp_path: Path) -> None:
    with a_service(tmp_path, Board([signed_announcement("node")])) as opened:
        wait_for(opened, 1)
        assert refusal(send(opened, signed())) == (403, "prober_unknown")


async def test_hours_are_added_up_in_the_database_and_forgotten_after_a_week(store: Store) -> None:
    node_id, (prober, second) = peer_of("node"), (peer_of("prober"), peer_of("second"))
    some = (seen(AT), unreached(AT + 3), seen(AT + 7, round_trip_ms=25.0))
    assert await added(store, *some, sequence=5)
    assert not await added(store, *some, sequence=5)
    assert await added(store, seen(AT + 5, verdict="wrong"), seen(AT + HOUR), sequence=6)
    assert await added(store, unreached(AT), seen(AT, model_digest=OTHER_DIGEST), prober="second")
    assert await store.add_probes(report_of(sequence=8), [])
    found = await store.probes_of(node_id, AT)
    assert [(one.hour, one.prober, one.probes) for one in found][:1] == [(AT + HOUR, prober, 1)]
    (hour,) = (one for one in found if one.prober == prober and one.hour == AT)
    assert hour == hours_of(prober, [*some, seen(AT + 5, verdict="wrong")])[0]
    assert {one.prober for one in found} == {prober, second}
    assert len(found) == 4
    assert await store.probes_of(node_id, AT + 1) == found[:1]
    assert await store.probes_of(peer_of("another"), 0) == []
    await store.forget(AT + KEEP_HOURS * HOUR)
    assert await store.probes_of(node_id, 0) == found
    await store.forget(AT + KEEP_HOURS * HOUR + 1)
    assert await store.probes_of(node_id, 0) == found[:1]


async def test_reports_are_kept_for_a_day_and_no_more_of_them_than_there_is_room_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.service.store.MOST_REPORTS", 3)
    for sequence in (1, 2, 5, 9):
        assert await added(store, seen(AT), sequence=sequence)
    assert await added(store, seen(AT), prober="second")
    prober = peer_of("prober")
    told = [read_report(one).report.sequence for one in await store.reports_of(prober, 0, 10)]
    assert told == [2, 5, 9]
    assert await store.reports_of(prober, 2, 1) == [report_of(seen(AT), sequence=5).document.to_bytes()]
    assert await store.reports_of(prober, 9, 10) == []
    assert len(await store.reports_of(peer_of("second"), 0, 10)) == 1
    await store.forget(ISSUED + KEEP_REPORT_SECONDS)
    assert len(await store.reports_of(prober, 0, 10)) == 3
    await store.forget(ISSUED + KEEP_REPORT_SECONDS + 1)
    assert await store.reports_of(prober, 0, 10) == []


def report_of(*observations: Observation, prober: str = "prober", sequence: int = 1) -> SignedReport:
    return read_report(
        signed(*(observations or (seen(AT),)), prober=prober, sequence=sequence, issued_at=ISSUED).to_bytes()
    )


async def added(store: Store, *observations: Observation, prober: str = "prober", sequence: int = 1) -> bool:
    return await store.add_probes(
        report_of(*observations, prober=prober, sequence=sequence), hours_of(peer_of(prober), observations)
    )
