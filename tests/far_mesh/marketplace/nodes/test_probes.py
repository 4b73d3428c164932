"""What probers have signed reaches the scores of a gateway: once, and of those alone whom its operator has named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from discovery.probe.observation import DOMAIN, KEEP_REPORT_SECONDS, Observation, Report, read_report
from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.signed import SignedDocument
from discovery.score import HALF_LIFE_SECONDS, score_of
from discovery.service.schemas import MAX_REPORTS
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.nodes import probes, service
from far_mesh.marketplace.nodes.probes import MOST_BYTES, MOST_PAGES, ProberNews
from far_mesh.marketplace.tables import node_registry, probers
from far_mesh.marketplace.tiers.reliability import observations_of
from far_mesh.marketplace.tiers.schemas import PREMIUM_TIER, TierTable
from far_mesh.marketplace.tiers.service import TierService
from tests.discovery.probe.test_history import seen, unreached
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import wait_for
from tests.discovery.service.test_probes import send, sign_report_of, signed
from tests.discovery.test_inquiry import a_server, an_answer, saying
from tests.far_mesh.marketplace.doubles import MeshDouble, Node
from tests.far_mesh.marketplace.house import House
from tests.far_mesh.marketplace.tiers.test_pools import USER, registered
from tests.support.documents import peer_of, signed_announcement, signed_json

PROBER, SECOND, ANN, BOB = map(peer_of, ("prober", "second", "ann", "bob"))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a discovery service that knows two nodes, and believes more probers than gateways do."""
    board = Board([signed_announcement(name) for name in ("ann", "bob", "unseen")])
    named = tuple(map(peer_of, ("prober", "second", "other")))
    with a_service(tmp_path, board, probers=named, writes_per_minute=0, requests_per_minute=0) as opened:
        wait_for(opened, 3)
        yield opened


@pytest.fixture
def tiers(database: Database) -> TierService:
    return TierService(database, TierTable(), 0.0)


def news(database: Database, url: httpx.URL | str, *named: str) -> ProberNews:
    return ProberNews(database, str(url), "far", [peer_of(name) for name in named])


def of(name: str, **changes: Any) -> Observation:
    return seen(int(time.time()), peer_id=peer_of(name), **changes)


def broken(name: str) -> Observation:
    return of(name, fate="failed", verdict=None, receipt=None)


def report(client: httpx.Client, prober: str, *observations: Observation) -> SignedDocument:
    """Sent to the service, with a number that is greater than all before."""
    document = signed(*observations, prober=prober, sequence=time.time_ns() // 1000)
    assert send(client, document).is_success
    return document


async def test_what_probers_signed_counts_in_scores_and_pools(
    client: httpx.Client, database: Database, tiers: TierService
) -> None:
    await registered(database, ann=100, bob=100)
    first = news(database, client.base_url, "prober", "second")
    report(client, "prober", of("ann", verdict="wrong", receipt=False), of("bob"), broken("bob"))
    report(client, "prober", of("ann", verdict="wrong"), of("bob", verdict="undecided"), broken("bob"))
    report(client, "second", of("bob"), unreached(int(time.time()), peer_id=BOB), of("unseen"))
    report(client, "other", of("bob", verdict="wrong"))
    assert await first.hear() == 3, "nobody here has named the other one"

    known = await tiers.reliability.observations()
    ann, bob = known[ANN], known[BOB]
    assert (ann.completed, ann.probes_wrong, ann.receipts_rejected) == pytest.approx((102, 2, 1), rel=1e-3)
    assert (bob.completed, bob.failed, bob.probes_right, bob.probes_wrong) == pytest.approx((103, 2, 2, 0), rel=1e-3)
    assert not score_of(ann).is_honest_enough
    assert known.keys() == {ANN, BOB}, "nothing is kept of whom the registry does not know"
    pool = await tiers.pools.of(USER, PREMIUM_TIER)
    assert pool is not None
    assert pool.members == {BOB}

    told: list[Any] = []
    tiers.reliability.listeners.add(told.append)
    await tiers.reliability.tell()
    assert told[0][ANN].probes_wrong == pytest.approx(2, rel=1e-3), "routes are planned with it"


async def test_a_report_counts_once_whoever_hears_it_how_often(
    client: httpx.Client, database: Database, tiers: TierService
) -> None:
    await registered(database, ann=1)
    one, fellow = news(database, client.base_url, "prober"), news(database, client.base_url, "prober")
    document = report(client, "prober", of("ann"))
    assert [await one.hear(), await one.hear(), await fellow.hear()] == [1, 0, 0]
    async with a_server(saying(an_answer(page(document, document)))) as (url, _):
        assert await news(database, url, "prober").hear() == 0
        assert await news(database, url, "prober")._take(read(document)) is False, "heard by both at once"
    assert (await tiers.reliability.observations())[ANN].probes_right == pytest.approx(1, rel=1e-3)


def read(document: SignedDocument) -> Report:
    return read_report(document.to_bytes()).report


async def test_all_that_is_new_is_heard_page_by_page(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "MOST_PAGES", 1)
    listener = news(database, client.base_url, "prober")
    for _ in range(MAX_REPORTS + 3):
        report(client, "prober", of("ann"))
    assert [await listener.hear(), await listener.hear(), await listener.hear()] == [MAX_REPORTS, 3, 0]
    report(client, "prober", of("ann"))
    monkeypatch.setattr(probes, "MOST_PAGES", MOST_PAGES)
    async with database.writing() as connection:
        await connection.execute(probers.update().values(sequence=0))
    assert await listener.hear() == MAX_REPORTS + 4


def at_once(**changes: Any) -> Observation:
    """What is seen of a node at this moment."""
    return seen(int(time.time()), peer_id=ANN, **changes)


def others(**changes: Any) -> SignedDocument:
    """A report of the prober, changed."""
    return signed(at_once(verdict="wrong"), **changes)


def page(*documents: SignedDocument | bytes) -> bytes:
    """As the service puts them together."""
    all_of_it = [one if isinstance(one, bytes) else one.to_bytes() for one in documents]
    return json.dumps({"prober": PROBER, "reports": [json.loads(one) for one in all_of_it]}).encode()


def forged() -> SignedDocument:
    honest = others()
    return SignedDocument(honest.body, PROBER, sign_report_of("stranger", honest.body))


def changed() -> SignedDocument:
    honest = others()
    return SignedDocument(honest.body.replace('"wrong"', '"right"'), PROBER, honest.signature)


def old() -> SignedDocument:
    then = int(time.time() - KEEP_REPORT_SECONDS) - 60
    return signed(seen(then, peer_id=ANN, verdict="wrong"), issued_at=then)


def to_come() -> SignedDocument:
    then = int(time.time()) + 900
    return signed(seen(then, peer_id=ANN, verdict="wrong"), issued_at=then)


def for_another() -> bytes:
    body = {"peer_id": SECOND, "swarm": "far", "sequence": 1, "issued_at": int(time.time())}
    return signed_json("prober", body | {"observations": [at_once().model_dump(mode="json")]}, DOMAIN)


@pytest.mark.parametrize(
    "lie",
    [
        forged,
        changed,
        old,
        to_come,
        for_another,
        lambda: others(prober="second"),
        lambda: others(swarm="another"),
        lambda: signed_json("prober", {"peer_id": PROBER, "sequence": 1}, DOMAIN),
        lambda: SignedDocument("[" * 5000, PROBER, bytes(64)),
    ],
    ids=["forged", "changed", "old", "to come", "for another", "of another", "swarm", "shape", "deep"],
)
async def test_a_service_cannot_make_up_what_a_prober_says(
    database: Database, tiers: TierService, lie: Callable[[], SignedDocument | bytes]
) -> None:
    await registered(database, ann=1)
    honest = signed(at_once(), sequence=2)
    async with a_server(saying(an_answer(page(lie(), honest)))) as (url, _):
        assert await news(database, url, "prober").hear() == 1, "what is true beside it counts"
    ann = (await tiers.reliability.observations())[ANN]
    assert (ann.probes_right, ann.probes_wrong) == pytest.approx((1, 0), rel=1e-3)


@pytest.mark.parametrize(
    "answer",
    [
        an_answer(b"{}"),
        an_answer(b"[" * 200_000),
        an_answer(b'{"prober": "x", "reports": [{}]}'),
        an_answer(b'{"prober": "x", "reports": {"a": 1}}'),
        an_answer(b"<html>"),
        an_answer(b'{"error": {}}', "403 Forbidden"),
        an_answer(b"", "500 Internal Server Error"),
        an_answer(page(*[others()] * (MAX_REPORTS + 1))),
    ],
    ids=["empty", "deep", "no document", "object", "page", "refused", "broken", "many"],
)
async def test_what_is_no_answer_is_none(database: Database, answer: bytes) -> None:
    async with a_server(saying(answer)) as (url, asked):
        assert await news(database, url, "prober", "second").hear() == 0
        assert len(asked) == 2, "one prober's are not another's"


async def test_a_service_that_is_away_or_has_no_end_harms_nothing(
    database: Database, tiers: TierService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registered(database, ann=8)
    before = (await tiers.reliability.scores())[ANN]
    with pytest.raises(PeerUnavailable):
        await news(database, "http://127.0.0.1:9", "prober", "second").hear()
    async with a_server(saying(an_answer(b" " * (MOST_BYTES + 1)))) as (url, _):
        with pytest.raises(PeerUnavailable, match="more than was asked for"):
            await news(database, url, "prober").hear()
    assert (await tiers.reliability.scores())[ANN] == pytest.approx(before)


async def test_pages_without_an_end_are_asked_for_no_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "MOST_PAGES", 2)
    number = 0

    async def say(writer: Any) -> None:
        nonlocal number
        some = []
        for _ in range(MAX_REPORTS):
            number += 1
            some.append(others(sequence=number))
        await saying(an_answer(page(*some)))(writer)

    async with a_server(say) as (url, asked):
        assert await news(database, url, "prober").hear() == 2 * MAX_REPORTS
        assert len(asked) == 2
    same = an_answer(
        json.dumps({"prober": PROBER, "reports": [json.loads(others().to_bytes())] * MAX_REPORTS}).encode()
    )
    async with a_server(saying(same)) as (url, asked):
        assert await news(database, url, "prober").hear() == 0
        assert len(asked) == 1, "where nothing is new nobody asks on"


async def test_probes_outweigh_no_work(database: Database) -> None:
    await registered(database, ann=1000, bob=0)
    many = signed(*[broken("ann")] * 12, *[of("bob")] * 12)
    listener = news(database, "http://127.0.0.1:9", "prober")
    for sequence in range(1, 11):
        assert await listener._take(read(many).model_copy(update={"sequence": sequence}))
    async with database.reading() as connection:
        rows = (await connection.execute(select(node_registry))).all()
    at = datetime.now(UTC)
    known = {row.node_id: observations_of(row, at) for row in rows}
    scores = {peer_id: score_of(one) for peer_id, one in known.items() if one is not None}
    assert scores[ANN].value > 0.98, "120 probes that failed are no more than ten failures"
    assert 0.9 < scores[BOB].value < 0.95, "and who was only probed is not seen to be reliable"


async def test_what_probers_saw_is_forgotten_as_the_rest_is(database: Database) -> None:
    await registered(database, ann=0)
    half = int(time.time() - HALF_LIFE_SECONDS)
    assert await news(database, "http://127.0.0.1:9", "prober")._take(
        read(signed(seen(half, peer_id=ANN, verdict="wrong"), issued_at=half))
    )
    async with database.reading() as connection:
        (row,) = (await connection.execute(select(node_registry))).all()
        assert (await connection.execute(select(func.count()).select_from(probers))).scalar_one() == 1
    found = observations_of(row, datetime.now(UTC))
    assert found is not None
    assert (found.completed, found.probes_wrong) == pytest.approx((0.5, 0.5), rel=1e-3)


def test_a_gateway_shows_what_probers_saw_and_does_without_a_service_that_goes(
    open_house: Callable[..., House], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(probes, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(service, "CENSUS_SECONDS", 0.05)
    mesh = MeshDouble()
    mesh.serving = (Node("ann", (0, 8)),)
    with a_service(tmp_path, Board([signed_announcement("ann")]), probers=(PROBER,), requests_per_minute=0) as client:
        wait_for(client, 1)
        house = open_house(mesh, discovery=str(client.base_url), probers=[PROBER])
        with httpx.Client(base_url=house.url, timeout=20) as http:

            def score() -> Any:
                answer = http.get(f"/api/nodes/{ANN}")
                return answer.json()["score"] if answer.is_success else None

            until(lambda: http.get(f"/api/nodes/{ANN}").json().get("first_seen") is not None)
            assert send(client, signed(of("ann"), of("ann", verdict="wrong"))).is_success
            until(lambda: score() is not None)
            found = score()
            assert (found["completed"], found["probes_right"], found["probes_wrong"]) == (2, 1, 1)
            assert found["honesty"] < 0.5
    with httpx.Client(base_url=house.url, timeout=20) as http:
        assert http.get(f"/api/nodes/{ANN}").json()["score"]["honesty"] == found["honesty"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
