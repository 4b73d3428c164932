"""What the discovery service answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery.protocol.announcement import SignedAnnouncement, read_announcement
from discovery.service.schemas import ActiveNodes, Coverage, Models, NodeAnswer
from tests.discovery.service.doubles import (
    Board,
    a_service,
    document,
    heartbeat,
    owned,
    owner_of,
    registration,
    send,
    sleeping,
)
from tests.support.documents import DIGEST, OTHER_DIGEST, peer_of, signed_announcement, wallet_of

BERLIN, PARIS = (52, 13), (49, 2)


@pytest.fixture
def board() -> Board:
    """Three nodes: in Berlin, in Paris, and somewhere."""
    return Board(
        [
            signed_announcement("berlin", location=BERLIN, region="eu-central", end_block=4),
            signed_announcement("paris", location=PARIS, region="eu-west", first_block=4, end_block=8),
            signed_announcement("somewhere", first_block=2, end_block=6, quantization="int8"),
        ]
    )


@pytest.fixture
def client(board: Board, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a service that has read the board."""
    with a_service(tmp_path, board) as opened:
        wait_for(opened, 3)
        yield opened


@pytest.fixture(scope="module")
def bystander() -> Board:
    """The board of :func:`stubborn`."""
    return Board([signed_announcement("one"), signed_announcement("two")])


@pytest.fixture(scope="module")
def stubborn(bystander: Board, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a service that is only asked what it refuses, which leaves no trace."""
    with a_service(tmp_path_factory.mktemp("stubborn"), bystander) as opened:
        wait_for(opened, 2)
        yield opened


def wait_for(client: httpx.Client, announcements: int) -> None:
    """Until so many are there."""
    deadline = time.monotonic() + 30
    while client.get("/ready").json()["announcements"] != announcements:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def active(client: httpx.Client, query: str = "", model: str = "tiny") -> ActiveNodes:
    answer = client.get(f"/nodes/active/{model}{query}")
    assert answer.status_code == 200, answer.text
    return ActiveNodes.model_validate_json(answer.content)


def ids(found: ActiveNodes) -> list[str]:
    return [node.node_id for node in found.nodes]


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestActive:
    def test_by_name_and_by_digest_with_what_each_has_announced(self, client: httpx.Client) -> None:
        found = active(client)
        assert (found.model_id, found.total_nodes, found.count, found.next_cursor) == ("tiny", 3, 3, None)
        assert ids(found) == sorted(peer_of(name) for name in ("berlin", "paris", "somewhere"))
        assert ids(active(client, model=DIGEST)) == ids(found)
        paris = next(node for node in found.nodes if node.node_id == peer_of("paris"))
        assert (paris.layers_served, paris.block_count, paris.location) == ([4, 5, 6, 7], 8, "eu-west")
        assert (paris.wallet_address, paris.source, paris.registered) == (wallet_of("paris"), "dht", False)
        assert paris.document is None
        assert 0 < (paris.expires_at - paris.announced_at).total_seconds() <= 120

    def test_a_name_may_have_slashes(self, board: Board, client: httpx.Client) -> None:
        board.signed.append(signed_announcement("a", model_id="far/tiny-1.0", model_digest=OTHER_DIGEST))
        wait_for(client, 4)
        assert ids(active(client, model="far/tiny-1.0")) == [peer_of("a")]

    def test_the_signed_announcements_can_be_had_and_hold(self, board: Board, client: httpx.Client) -> None:
        told = {node.node_id: node.document for node in active(client, "?signed=true").nodes}
        for signed in board.signed:
            document = told[signed.peer_id]
            assert document is not None
            assert read_announcement(document.model_dump_json().encode()) == signed

    @pytest.mark.parametrize("query", ["", "?signed=true", "?location=50,8&limit=1", "?location=eu"])
    def test_an_answer_has_all_fields_of_its_schema_and_no_others(self, client: httpx.Client, query: str) -> None:
        told = client.get(f"/nodes/active/tiny{query}").json()
        assert told == ActiveNodes.model_validate(told).model_dump(mode="json")

    def test_near_a_point_the_nearest_first(self, client: httpx.Client) -> None:
        found = active(client, "?location=50,8&max_distance_km=600")
        assert ids(found) == [peer_of("berlin"), peer_of("paris")]
        distances = [node.distance_km for node in found.nodes]
        assert distances == sorted(distances, key=lambda km: km or 0)
        assert ids(active(client, "?location=50,8&max_distance_km=420")) == [peer_of("berlin")]
        assert ids(active(client, "?location=36,140")) == []

    def test_in_a_region_and_its_parts(self, client: httpx.Client) -> None:
        assert set(ids(active(client, "?location=EU"))) == {peer_of("berlin"), peer_of("paris")}
        assert ids(active(client, "?location=eu-west")) == [peer_of("paris")]
        assert ids(active(client, "?location=us")) == []

    @pytest.mark.parametrize("place", ["", "&location=51,10&max_distance_km=2000"])
    def test_page_by_page_everybody_once(self, board: Board, client: httpx.Client, place: str) -> None:
        board.signed += [signed_announcement(f"n{number}", location=BERLIN) for number in range(9)]
        wait_for(client, 12)
        seen, cursor = [], ""
        while True:
            page = active(client, f"?limit=2{place}{cursor}")
            seen += ids(page)
            if page.next_cursor is None:
                break
            assert page.count == 2
            cursor = f"&cursor={page.next_cursor}"
        assert seen == ids(active(client, f"?limit=1000{place}"))
        assert len(seen) == len(set(seen)) == (12 if not place else 11)

    def test_who_leaves_between_two_pages_moves_nobody_from_the_next(self, board: Board, client: httpx.Client) -> None:
        everybody = ids(active(client))
        first = active(client, "?limit=1")
        leaving = next(one for one in board.signed if one.peer_id == everybody[0]).announcement
        gone = leaving.model_copy(update={"state": "leaving", "issued_at": leaving.issued_at + 1})
        name = next(name for name in ("berlin", "paris", "somewhere") if peer_of(name) == everybody[0])
        board.signed.append(signed_announcement(name, **gone.model_dump(include={"state", "issued_at", "expires_at"})))
        while everybody[0] in ids(active(client)):
            time.sleep(0.01)
        assert ids(active(client, f"?cursor={first.next_cursor}")) == everybody[1:]

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("?location=nowhere!", "invalid_argument"),
            ("?location=91,0", "invalid_argument"),
            ("?max_distance_km=5", "invalid_argument"),
            ("?location=eu&max_distance_km=5", "invalid_argument"),
            ("?location=1,1&max_distance_km=-1", "invalid_argument"),
            ("?location=1,1&max_distance_km=nan", "invalid_argument"),
            ("?limit=0", "invalid_argument"),
            ("?limit=1001", "invalid_argument"),
            ("?cursor=x", "invalid_argument"),
            ("?cursor=WzEsMl0", "invalid_argument"),
            ("?cursor=W05hTiwgImEiXQ", "invalid_argument"),
            ("?signed=perhaps", "invalid_argument"),
        ],
    )
    def test_a_query_that_means_nothing(self, stubborn: httpx.Client, query: str, code: str) -> None:
        assert refusal(stubborn.get(f"/nodes/active/tiny{query}")) == (400, code)

    def test_a_model_that_nobody_announces(self, stubborn: httpx.Client) -> None:
        assert refusal(stubborn.get("/nodes/active/other")) == (404, "model_not_found")


class TestEtags:
    def test_what_has_not_changed_is_not_sent_again(self, board: Board, client: httpx.Client) -> None:
        for path in ("/nodes/active/tiny", "/models", "/coverage/tiny"):
            tag = client.get(path).headers["etag"]
            same = client.get(path, headers={"if-none-match": f'"other", W/{tag}'})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        board.signed.append(signed_announcement("new"))
        wait_for(client, 4)
        assert client.get("/nodes/active/tiny", headers={"if-none-match": tag}).status_code == 200


def test_models_page_by_page(board: Board, client: httpx.Client) -> None:
    board.signed.append(signed_announcement("a", model_id="other", model_digest=OTHER_DIGEST))
    wait_for(client, 4)
    first = Models.model_validate_json(client.get("/models?limit=1").content)
    second = Models.model_validate_json(client.get(f"/models?limit=1&cursor={first.next_cursor}").content)
    assert (first.total_models, first.count, second.next_cursor) == (2, 1, None)
    by_name = {one.model_id: one for page in (first, second) for one in page.models}
    tiny = by_name["tiny"]
    assert (tiny.model_digest, tiny.block_count, tiny.nodes, tiny.ready_nodes) == (DIGEST, 8, 3, 3)
    assert (tiny.complete, tiny.fewest_replicas) == (True, 1)
    assert not by_name["other"].complete


def test_who_covers_which_block_how_often(board: Board, client: httpx.Client) -> None:
    board.signed.append(signed_announcement("liar", model_digest=OTHER_DIGEST, end_block=1))
    wait_for(client, 4)
    told = Coverage.model_validate_json(client.get("/coverage/tiny?wanted=2").content)
    right, wrong = told.variants
    assert (right.model_digest, right.blocks) == (DIGEST, [1, 1, 2, 2, 2, 2, 1, 1])
    assert [(one.first_block, one.end_block) for one in right.thin] == [(0, 2), (6, 8)]
    assert [(one.first_block, one.end_block, one.replicas) for one in right.stretches] == [
        (0, 2, 1),
        (2, 6, 2),
        (6, 8, 1),
    ]
    assert (wrong.model_digest, wrong.complete) == (OTHER_DIGEST, False)
    assert (told.total_variants, told.count, told.next_cursor) == (2, 2, None)


def test_weights_that_strangers_make_up_under_a_name_come_page_by_page_behind_those_of_most_nodes(
    board: Board, client: httpx.Client
) -> None:
    made_up = [f"{number:064x}" for number in range(30)]
    board.signed += [
        signed_announcement(f"stranger {number // 15}", model_digest=digest, block_count=4096, end_block=1)
        for number, digest in enumerate(made_up)
    ]
    wait_for(client, 33)
    first = Coverage.model_validate_json(client.get("/coverage/tiny").content)
    assert (first.total_variants, first.count) == (31, 10)
    seen, cursor = [one.model_digest for one in first.variants], first.next_cursor
    while cursor is not None:
        page = Coverage.model_validate_json(client.get(f"/coverage/tiny?limit=7&cursor={cursor}").content)
        assert page.count == len(page.variants) <= 7
        seen += [one.model_digest for one in page.variants]
        cursor = page.next_cursor
    assert seen == [DIGEST, *made_up]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=51", "limit=x", "wanted=0", "wanted=17", "cursor=x", "cursor=WzEsMl0", "cursor=_" * 99]
)
def test_a_question_about_coverage_that_means_nothing(stubborn: httpx.Client, query: str) -> None:
    assert refusal(stubborn.get(f"/coverage/tiny?{query}")) == (400, "invalid_argument")
    assert refusal(stubborn.get("/coverage/other")) == (404, "model_not_found")


class TestNode:
    def test_what_is_known_of_a_node(self, client: httpx.Client) -> None:
        told = NodeAnswer.model_validate_json(client.get(f"/nodes/{peer_of('paris')}?signed=1").content)
        assert (told.state, told.wallet_address, told.location) == ("active", wallet_of("paris"), "eu-west")
        (served,) = told.models
        assert served.document is not None
        assert served.document.signer == peer_of("paris")
        assert not told.registered

    def test_who_was_never_heard_of_and_what_is_no_node(self, stubborn: httpx.Client) -> None:
        assert refusal(stubborn.get(f"/nodes/{peer_of('nobody')}")) == (404, "node_not_found")
        assert refusal(stubborn.get("/nodes/nonsense")) == (400, "invalid_identity")
        assert refusal(stubborn.get(f"/nodes/{'1' * 129}")) == (400, "invalid_argument")


class TestRegistration:
    def register(self, client: httpx.Client, name: str = "a", **changes: Any) -> Any:
        return send(client, "/nodes/register", registration(name, **changes), signer=name)

    def test_a_node_that_cannot_publish_is_listed_by_its_own_word_and_carried_to_the_dht(
        self, board: Board, client: httpx.Client
    ) -> None:
        signed = owned("a")
        answer = self.register(client, announcement=document(signed))
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "status": "registered",
            "node_id": peer_of("a"),
            "heartbeat_interval_sec": 30,
            "expires_after_sec": 120,
            "active": True,
            "on_call": None,
        }
        told = next(node for node in active(client).nodes if node.node_id == peer_of("a"))
        assert (told.source, told.registered, told.gpu_model, told.vram_gb) == ("sent", True, "NVIDIA RTX 4090", 24)
        assert board.published == [signed]

    def test_a_registration_alone_lists_nobody(self, client: httpx.Client) -> None:
        assert self.register(client).json()["active"] is False
        assert peer_of("a") not in ids(active(client))
        told = client.get(f"/nodes/{peer_of('a')}").json()
        assert (told["state"], told["registered"], told["wallet_address"]) == ("registered", True, owner_of("a"))

    def test_a_heartbeat_renews_and_one_that_says_it_is_ill_takes_it_off_the_list(self, client: httpx.Client) -> None:
        now = int(time.time())
        self.register(client, announcement=document(owned("a", issued_at=now - 2)))
        well = heartbeat("a", announcement=document(owned("a", issued_at=now)))
        answer = send(client, "/nodes/heartbeat", well, signer="a")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["announced"]) == ("ok", True)
        told = next(node for node in active(client).nodes if node.node_id == peer_of("a"))
        assert told.announced_at.timestamp() == now
        ill = send(client, "/nodes/heartbeat", heartbeat("a", is_healthy=False), signer="a")
        assert ill.status_code == 200
        assert peer_of("a") not in ids(active(client))
        node = client.get(f"/nodes/{peer_of('a')}").json()
        assert node["state"] == "unwell"
        assert "announcement" not in node["claims"]
        send(client, "/nodes/heartbeat", heartbeat("a"), signer="a")
        assert peer_of("a") in ids(active(client))

    def test_who_registers_for_another_wallet_than_it_announces_is_told(self, client: httpx.Client) -> None:
        body = registration("paris")
        assert refusal(send(client, "/nodes/register", body, signer="paris")) == (409, "announced_for_another_wallet")

    def test_where_it_would_do_more_good(self, board: Board, tmp_path: Path) -> None:
        board.signed = [owned(name, end_block=4) for name in ("one", "two")]
        with a_service(tmp_path / "other", board) as client:
            wait_for(client, 2)
            answers = []
            for name in ("one", "two"):
                assert send(client, "/nodes/register", registration(name), signer=name).json()["active"] is True
                answers.append(send(client, "/nodes/heartbeat", heartbeat(name), signer=name).json())
        assert [answer["announced"] for answer in answers] == [True, True]
        told = [answer["suggested_blocks"] for answer in answers if answer["should_rebalance"]]
        assert told == [[4, 8]], "one goes, the other stays, or there would be another hole"

    def test_where_it_is_woken_when_it_sleeps_is_carried_to_the_dht(self, board: Board, client: httpx.Client) -> None:
        said = sleeping("a")
        told = send(client, "/nodes/register", registration("a", on_call=document(said)), signer="a").json()
        assert (told["active"], told["on_call"]) == (False, True)
        assert [one.to_bytes() for one in board.on_call] == [said.to_bytes()]
        assert peer_of("a") not in ids(active(client)), "who sleeps serves nothing now"
        assert send(client, "/nodes/heartbeat", heartbeat("a"), signer="a").json()["on_call"] is None
        over = sleeping("a", None)
        told = send(client, "/nodes/heartbeat", heartbeat("a", on_call=document(over)), signer="a").json()
        assert told["on_call"] is True
        assert board.on_call[-1].registration.wake_url is None
        assert "on_call" not in client.get(f"/nodes/{peer_of('a')}").json()["claims"]
        board.is_away = True
        told = send(client, "/nodes/heartbeat", heartbeat("a", on_call=document(said)), signer="a").json()
        assert told["on_call"] is False, "it knows that nobody can wake it"


def _stretched(signed: SignedAnnouncement) -> dict[str, str]:
    """An announcement whose text was changed after it was signed."""
    sent = document(signed)
    body = json.loads(sent["body"])
    return sent | {"body": json.dumps(body | {"expires_at": body["expires_at"] + 1000})}


NOW = int(time.time())
FORGED: dict[str, tuple[dict[str, Any], int, str]] = {
    "signed by another node": ({"signer": "thief"}, 401, "bad_signature"),
    "signed for another purpose": ({"domain": "far-mesh/heartbeat/v1"}, 401, "bad_signature"),
    "signed for another service": ({"audience": "https://other.test"}, 401, "bad_signature"),
    "consent of another wallet": ({"body": {"signer": "thief"}}, 401, "bad_signature"),
    "consent for another service": ({"body": {"audience": "https://other.test"}}, 401, "bad_signature"),
    "no consent": ({"body": {"signature": "0x"}}, 401, "bad_signature"),
    "too old": ({"body": {"at": NOW - 3600}}, 409, "proof_stale"),
    "from the future": ({"body": {"at": NOW + 3600}}, 409, "proof_stale"),
    "no wallet": ({"body": {"wallet_address": "0x12"}}, 400, "invalid_wallet"),
    "no node": ({"body": {"node_id": "node_abc123"}}, 400, "invalid_identity"),
    "a place that is none": ({"body": {"location": "over there!"}}, 400, "invalid_argument"),
    "a model with a NUL in it": ({"body": {"model_id": "a\0b"}}, 400, "invalid_argument"),
    "an unknown field": ({"body": {"admin": True}}, 400, "invalid_argument"),
    "oversized": ({"body": {"location": "x" * 70_000}}, 413, "body_too_large"),
}
FORGED_ANNOUNCEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "of another node": (document(owned("other", wallet=owner_of("a"))), "announcement_invalid"),
    "for another wallet": (document(signed_announcement("a")), "announcement_invalid"),
    "changed after it was signed": (_stretched(owned("a")), "announcement_invalid"),
    "signed by another": (document(owned("a")) | {"signer": peer_of("thief")}, "announcement_invalid"),
    "expired": (document(owned("a", issued_at=NOW - 300, expires_at=NOW - 180)), "announcement_invalid"),
    "of old, with a long life": (
        document(owned("a", issued_at=NOW - 3600, expires_at=NOW + 3600)),
        "announcement_invalid",
    ),
    "from the future": (document(owned("a", issued_at=NOW + 3600, expires_at=NOW + 3700)), "announcement_invalid"),
    "of another swarm": (document(owned("a", swarm="another")), "announcement_invalid"),
    "of another model": (document(owned("a", model_id="other", model_digest=OTHER_DIGEST)), "announcement_invalid"),
    "oversized": (document(owned("a")) | {"body": "x" * 16_385}, "invalid_argument"),
    "no document": ({"body": "{}", "signer": peer_of("a"), "signature": "!"}, "announcement_invalid"),
    "with more in it": (document(owned("a")) | {"more": "1"}, "invalid_argument"),
}


FORGED_SLEEPERS: dict[str, tuple[dict[str, Any], str]] = {
    "of another node": (document(sleeping("other", wallet=owner_of("a"))), "announcement_invalid"),
    "for another wallet": (document(sleeping("a", wallet=owner_of("thief"))), "announcement_invalid"),
    "signed by another": (document(sleeping("a")) | {"signer": peer_of("thief")}, "announcement_invalid"),
    "an announcement in its place": (document(owned("a")), "announcement_invalid"),
    "of another swarm": (document(sleeping("a", swarm="another")), "announcement_invalid"),
    "oversized": (document(sleeping("a")) | {"body": "x" * 16_385}, "invalid_argument"),
}


class TestForgeries:
    """Nothing of it is believed."""

    @pytest.mark.parametrize("what", FORGED)
    def test_a_registration(self, stubborn: httpx.Client, what: str) -> None:
        changes, status, code = FORGED[what]
        sent = {"signer": "a", **changes}
        body = registration("a", announcement=document(owned("a")), **sent.pop("body", {}))
        answer = send(stubborn, "/nodes/register", body, **sent)
        assert refusal(answer) == (status, code)
        self.nobody_believes_it(stubborn)

    @pytest.mark.parametrize("what", FORGED_ANNOUNCEMENTS)
    def test_an_announcement_that_is_sent_along(self, bystander: Board, stubborn: httpx.Client, what: str) -> None:
        forged, code = FORGED_ANNOUNCEMENTS[what]
        body = registration("a", announcement=forged)
        assert refusal(send(stubborn, "/nodes/register", body, signer="a")) == (400, code)
        self.nobody_believes_it(stubborn)
        assert bystander.published == []

    @pytest.mark.parametrize("what", FORGED_SLEEPERS)
    def test_where_a_node_is_woken(self, bystander: Board, stubborn: httpx.Client, what: str) -> None:
        forged, code = FORGED_SLEEPERS[what]
        body = registration("a", on_call=forged)
        assert refusal(send(stubborn, "/nodes/register", body, signer="a")) == (400, code)
        self.nobody_believes_it(stubborn)
        assert bystander.on_call == []

    def test_the_same_registration_twice(self, client: httpx.Client) -> None:
        body = registration("a", announcement=document(owned("a")))
        assert send(client, "/nodes/register", body, signer="a").status_code == 200
        assert refusal(send(client, "/nodes/register", body, signer="a")) == (409, "proof_stale")

    def test_heartbeats(self, client: httpx.Client) -> None:
        unknown = send(client, "/nodes/heartbeat", heartbeat("a"), signer="a")
        assert refusal(unknown) == (404, "node_not_found")
        send(client, "/nodes/register", registration("a"), signer="a")
        once = heartbeat("a")
        assert send(client, "/nodes/heartbeat", once, signer="a").status_code == 200
        for body, signing, expected in [
            (once, {"signer": "a"}, (409, "proof_stale")),
            (heartbeat("a", at=NOW - 3600), {"signer": "a"}, (409, "proof_stale")),
            (heartbeat("a"), {"signer": "thief"}, (401, "bad_signature")),
            (heartbeat("a"), {"signer": "a", "domain": "far-mesh/registration/v1"}, (401, "bad_signature")),
            (heartbeat("a", latency_ms=float("inf")), {"signer": "a"}, (400, "invalid_argument")),
            (heartbeat("a", latency_ms=-1), {"signer": "a"}, (400, "invalid_argument")),
            (heartbeat("a", announcement=document(owned("b"))), {"signer": "a"}, (400, "announcement_invalid")),
            *(
                (heartbeat("a", announcement=forged), {"signer": "a"}, (400, code))
                for what, (forged, code) in FORGED_ANNOUNCEMENTS.items()
                if what != "of another model"  # which a registered node may announce as well
            ),
        ]:
            assert refusal(send(client, "/nodes/heartbeat", body, **signing)) == expected
        self.nobody_believes_it(client)

    def test_without_a_signature_and_without_json(self, stubborn: httpx.Client) -> None:
        assert refusal(stubborn.post("/nodes/register", json=registration("a"))) == (401, "bad_signature")
        assert refusal(stubborn.post("/nodes/register", content=b"{")) == (415, "unsupported_media_type")
        json_type = {"content-type": "application/json"}
        assert refusal(stubborn.post("/nodes/register", content=b"{", headers=json_type)) == (400, "invalid_argument")
        for body in (b"[]", b"[" * 60_000, b'{"node_id": "\\ud800"}', b"\xff"):
            refused = stubborn.post("/nodes/register", content=body, headers=json_type)
            assert refusal(refused) == (400, "invalid_argument")

    def nobody_believes_it(self, client: httpx.Client) -> None:
        assert peer_of("a") not in ids(active(client, "?limit=1000"))


def test_a_restart_forgets_neither_who_has_registered_nor_who_has_left(tmp_path: Path) -> None:
    now = int(time.time())
    before, leaving = signed_announcement("b", issued_at=now - 20), signed_announcement("b", state="leaving")
    board = Board([leaving])
    with a_service(tmp_path, board) as client:
        wait_for(client, 1)
        body = registration("a", announcement=document(owned("a")))
        assert send(client, "/nodes/register", body, signer="a").status_code == 200
    board = Board([before])
    with a_service(tmp_path, board) as client:
        wait_for(client, 2)
        assert ids(active(client)) == [peer_of("a")]
        assert send(client, "/nodes/heartbeat", heartbeat("a"), signer="a").status_code == 200
        told = client.get(f"/nodes/{peer_of('b')}").json()
        assert told["state"] == "leaving"
        assert told["history"]["seen_seconds"] >= 0


def test_a_newcomer_is_given_peers_to_join_through(board: Board, tmp_path: Path) -> None:
    first = f"/ip4/192.0.2.1/tcp/31337/p2p/{peer_of('bootstrap')}"
    with a_service(tmp_path, board, initial_peers=(first,)) as client:
        wait_for(client, 3)
        told = client.get("/bootstrap").json()
    nodes = {f"/ip4/127.0.0.1/tcp/31330/p2p/{peer_of(name)}" for name in ("berlin", "paris", "somewhere")}
    assert told["prefix"] == "far"
    assert told["initial_peers"][0] == first
    assert set(told["initial_peers"][1:]) == nodes


class TestHealth:
    def test_alive_and_ready(self, client: httpx.Client) -> None:
        assert client.get("/health").json() == {"status": "alive"}
        told = client.get("/ready")
        assert (told.status_code, told.json()["status"], told.json()["reasons"]) == (200, "ready", [])

    def test_not_ready_while_the_dht_was_never_read(self, tmp_path: Path) -> None:
        with a_service(tmp_path, Board(is_away=True)) as client:
            told = client.get("/ready")
        assert (told.status_code, told.json()["reasons"]) == (503, ["the DHT has not been read yet"])

    def test_metrics_count_what_is_there(self, client: httpx.Client) -> None:
        client.get("/nodes/active/tiny")
        client.get("/nodes/active/other")
        text = client.get("/metrics").text
        assert 'far_discovery_announcements{source="dht",state="ready"} 3.0' in text
        assert "far_discovery_nodes 3.0" in text
        assert 'far_discovery_requests_total{path="/nodes/active/{model:path}",status="404"} 1.0' in text

    def test_metrics_are_not_for_everybody(self, tmp_path: Path, client: httpx.Client) -> None:
        proxied = client.get("/metrics", headers={"x-forwarded-for": "127.0.0.1"})
        assert refusal(proxied) == (401, "unauthorized")
        with a_service(tmp_path / "other", metrics_token="sixteen characters") as guarded:
            assert refusal(guarded.get("/metrics")) == (401, "unauthorized")
            wrong = {"authorization": "Bearer other"}
            assert refusal(guarded.get("/metrics", headers=wrong)) == (401, "unauthorized")
            right = {"authorization": "Bearer sixteen characters"}
            assert guarded.get("/metrics", headers=right).status_code == 200


class TestEdge:
    def test_who_asks_too_often_waits(self, tmp_path: Path) -> None:
        with a_service(tmp_path, requests_per_minute=2, writes_per_minute=1) as client:
            assert [client.get("/models").status_code for _ in range(3)] == [200, 200, 429]
            refused = client.get("/models")
            assert refusal(refused) == (429, "rate_limit_exceeded")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert client.get("/health").status_code == 200
            codes = [send(client, "/nodes/heartbeat", heartbeat("a"), signer="a").status_code for _ in range(2)]
            assert codes == [404, 429]

    def test_every_answer_has_a_name_and_every_failure_the_one_shape(self, client: httpx.Client) -> None:
        nowhere = client.get("/nowhere")
        assert nowhere.json()["error"] == {
            "message": "there is nothing at this path",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }
        assert nowhere.headers["x-request-id"].startswith("req_")
        wrong = client.post("/models")
        assert refusal(wrong) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == "GET"
        assert refusal(client.get("/nodes/active/%00")) == (404, "not_found")

    def test_the_document_tells_of_every_path_and_how_it_fails(self, client: httpx.Client) -> None:
        document = client.get("/openapi.json").json()
        assert set(document["paths"]) == {
            *("/nodes/register", "/nodes/heartbeat", "/nodes/active/{model}", "/nodes/{node_id}"),
            *("/models", "/coverage/{model}", "/bootstrap", "/health", "/ready"),
            *("/nodes/{node_id}/history", "/probes/reports"),
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                assert "422" not in operation["responses"]
                failures = {status: one for status, one in operation["responses"].items() if status[0] in "45"}
                assert failures or path == "/health"
                for one in failures.values():
                    reference = one["content"]["application/json"]["schema"]["$ref"]
                    assert reference.endswith(("/ErrorBody", "/Readiness"))
        assert "HTTPValidationError" not in document["components"]["schemas"]
