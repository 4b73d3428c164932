"""A file of receipts proves what it proves to anybody, and nobody gains by changing it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import ReceiptInvalid
from discovery.protocol.ids import SessionId
from discovery.protocol.receipt import Receipt, sign_receipt
from far_mesh.contributions import OwnView
from far_mesh.receipts_file import CLIENT, Evidence, Report, check, read_receipts_file, receipts_file
from far_mesh.route import plan_route
from far_mesh.session import MeshSession, SessionRequest
from tests.support.documents import key_of, peer_of, wallet_of
from tests.support.receipts import ASKED, PaperRing
from tests.support.ring import FAST, a_ring

FALSE_ROOT = hashlib.sha256(b"a lie").hexdigest()
Change = Callable[[dict[str, Any]], object]


def evidence_of(ring: PaperRing, answered: int | None = None) -> Evidence:
    blocks = ring.borders[0], ring.borders[-1]
    return Evidence(ring.asked, blocks, tuple(ring.stints), ring.own_view, answered or len(ring.steps))


def a_paper_ring() -> PaperRing:
    ring = PaperRing(borders=(2, 3, 5, 8), steps=(10, 1, 1, 1))
    ring.receipts = [{steps: ring.signed(index, steps) for steps in (2, 4)} for index in range(3)]
    return ring


def content_of(evidence: Evidence) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(receipts_file(evidence))
    return content


def report_of(content: dict[str, Any]) -> Report:
    return check(read_receipts_file(json.dumps(content).encode()))


@pytest.fixture
def content() -> dict[str, Any]:
    return content_of(evidence_of(a_paper_ring()))


def refused(content: dict[str, Any], words: str) -> None:
    with pytest.raises(ReceiptInvalid) as caught:
        report_of(content)
    assert words in caught.value.message


rings = st.builds(
    lambda spans, steps: PaperRing([sum(spans[:count]) for count in range(len(spans) + 1)], steps),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
)


@given(rings)
def test_a_file_says_what_the_client_found(ring: PaperRing) -> None:
    evidence = evidence_of(ring)
    report = report_of(content_of(evidence))
    assert report == check(evidence)
    assert [row.token_layers for row in report.rows] == [done.token_layers for done in ring.verify().contributions]
    assert report.token_layers == report.expected_token_layers == sum(ring.steps) * ring.borders[-1]
    assert report.is_complete


@given(rings)
def test_other_nodes_confirm_all_but_the_work_of_a_node_alone(ring: PaperRing) -> None:
    report = check(evidence_of(ring))
    assert report.witnessed_token_layers == (report.token_layers if len(ring.hops) > 1 else 0)
    peers = [hop.node.peer_id for hop in ring.hops]
    assert [row.input_agrees for row in report.rows] == [(peer,) for peer in (CLIENT, *peers[:-1])]
    assert [row.output_agrees for row in report.rows] == [(peer,) for peer in (*peers[1:], CLIENT)]


def test_signed_documents_stand_in_it_as_they_came(content: dict[str, Any]) -> None:
    ring = a_paper_ring()
    for part, held in zip(content["parts"], ring.receipts, strict=True):
        came = [json.loads(held[steps].to_bytes()) for steps in (2, 4)]
        assert [one["document"] for one in part["receipts"]] == came


def test_there_is_nothing_in_it_that_is_not_needed(content: dict[str, Any]) -> None:
    assert set(content) == {
        *("format", "session_id", "nonce", "model_digest", "codec", "price_units", "first_block", "end_block"),
        *("answered_steps", "step_positions", "parts", "own_roots"),
    }
    assert content["step_positions"] == [10, 1, 1, 1]
    assert [(own["link"], own["steps"]) for own in content["own_roots"]] == [(0, 2), (0, 4), (3, 2), (3, 4)]


def test_of_many_receipts_those_that_are_needed_are_written() -> None:
    """The node in the middle is silent from step 20 on: its neighbours' receipts of that time are needed for it."""
    ring = PaperRing(borders=(2, 3, 5, 8), steps=(10, *[1] * 200))
    ring.receipts = [{steps: ring.signed(index, steps) for steps in range(1, 202)} for index in range(3)]
    ring.receipts[1] = {steps: signed for steps, signed in ring.receipts[1].items() if steps <= 20}
    evidence = evidence_of(ring)
    whole, content = check(evidence), content_of(evidence)
    written = [[json.loads(one["document"]["body"])["steps"] for one in part["receipts"]] for part in content["parts"]]
    assert written == [[*range(13, 21), *range(194, 202)], [*range(13, 21)], [*range(13, 21), *range(194, 202)]]
    report = report_of(content)
    assert [replace(row, receipts=0) for row in report.rows] == [replace(row, receipts=0) for row in whole.rows]
    assert [row.token_layers for row in report.rows] == [210, 58, 630]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from leaves(one, (*path, index))
    else:
        yield path


def others(value: Any) -> list[Any]:
    """What may stand in the place of a value."""
    if isinstance(value, int):
        return [value + 1, max(value - 1, 0), value + 64, -1, 2**53, float("nan"), str(value), None, True]
    if value is None:
        return [0, 1, 4, "4"]
    text = str(value)
    middle = len(text) // 2
    flipped = text[:middle] + ("1" if text[middle] == "0" else "0") + text[middle + 1 :]
    return [flipped, text[:-1], text + "0", text.upper(), "", None, 0, [text]]


def test_whatever_is_changed_nobody_is_owed_more_and_the_change_is_seen() -> None:
    honest = content_of(evidence_of(a_paper_ring()))
    whole, changed = report_of(honest), 0
    for path in leaves(honest):
        value: Any = honest
        for key in path:
            value = value[key]
        for other in others(value):
            if other == value and type(other) is type(value):
                continue
            mutant = copy.deepcopy(honest)
            place: Any = mutant
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = other
            changed += 1
            try:
                report = report_of(mutant)
            except ReceiptInvalid:
                continue
            assert report.token_layers <= whole.token_layers, (path, other)
            if path == ("answered_steps",):  # the client's word, for what it has got
                assert report.expected_token_layers < whole.expected_token_layers
            elif report == whole:  # an earlier receipt is not needed, nor a root that nobody is compared with
                assert path[0] == "own_roots" or path[2:4] == ("receipts", 0), (path, other)
    assert changed > 500


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_nodes_and_receipts_does_not_matter(content: dict[str, Any], seed: int) -> None:
    whole = report_of(content)
    order = random.Random(seed)
    order.shuffle(content["parts"])
    order.shuffle(content["own_roots"])
    for part in content["parts"]:
        order.shuffle(part["receipts"])
    report = report_of(content)
    assert sorted(report.rows, key=lambda row: row.blocks) == list(whole.rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file["parts"].pop(1), "block 3 has no node from step 0 on"),
        (lambda file: file["parts"].append(copy.deepcopy(file["parts"][1])), "block 3 has two nodes at once"),
        (lambda file: file["parts"][1].update(first_block=2), "block 2 has two nodes at once"),
        (lambda file: file["parts"][1].update(end_block=4), "block 4 has no node"),
        (lambda file: file["parts"][1].update(end_block=3), "blocks 3:3"),
        (lambda file: file["parts"][0].update(first_block=1), "blocks 1:3"),
        (lambda file: file["parts"][1].update(first_step=1), "block 3 needs a node from step 0 on"),
        (lambda file: file["parts"][1].update(end_step=3), "block 3 has no node from step 3 on"),
        (lambda file: file["parts"][1].update(end_step=5), "beyond the last of 4 steps"),
        (lambda file: file.update(first_block=8), "the block range of the session is empty"),
        (lambda file: file.update(end_block=9), "block 8 has no node"),
        (lambda file: file.update(answered_steps=5), "5 steps are said to be answered, and 4 were sent"),
        (lambda file: file["parts"][1]["receipts"][1].update(input_link=0), "link 0 has two nodes at one end"),
        (lambda file: file["parts"][0]["receipts"][1].update(output_link=2), "link 2 has two nodes at one end"),
        (lambda file: file["own_roots"].append({"link": 1, "steps": 4, "root": FALSE_ROOT}), "link 1 is between nodes"),
        (lambda file: file["own_roots"].append({"link": 3, "steps": 4, "root": FALSE_ROOT}), "says two things"),
        (lambda file: file.update(parts=[]), "parts"),
        (lambda file: file.update(prompt="hello"), "prompt"),
        (lambda file: file.update(format="far-mesh/receipts/v2"), "format"),
    ],
)
def test_a_file_that_cannot_be_of_one_session_is_refused(content: dict[str, Any], change: Change, words: str) -> None:
    change(content)
    refused(content, words)


def test_links_that_cross_are_refused(content: dict[str, Any]) -> None:
    first, _, last = content["parts"]
    first["receipts"][0]["output_link"] = first["receipts"][1]["output_link"] = 9
    last["receipts"][0]["input_link"] = last["receipts"][1]["input_link"] = 9
    refused(content, "link 9 leads from block 2 to block 5")


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b"[" * 100_000, b'{"format": "\\ud800"}', b"{" + b'"a":{' * 500]
)
def test_bytes_that_are_no_such_file_are_refused(data: bytes) -> None:
    with pytest.raises(ReceiptInvalid, match="this is not a file of receipts"):
        read_receipts_file(data)


def signed_again(content: dict[str, Any], part: int, name: str, **changes: Any) -> None:
    """The last receipt of a part, changed and signed by somebody."""
    stated = content["parts"][part]["receipts"][-1]
    receipt = Receipt.model_validate(json.loads(stated["document"]["body"]) | changes)
    stated["document"] = json.loads(sign_receipt(receipt, key_of(name)).to_bytes())


def test_a_receipt_that_somebody_else_has_signed_is_refused(content: dict[str, Any]) -> None:
    signed_again(content, 1, "stranger", peer_id=peer_of("stranger"))
    refused(content, f"a receipt of {peer_of('stranger')} stands in the place of")
    signed_again(content, 1, "stranger", peer_id=content["parts"][1]["peer_id"])
    refused(content, "signed the receipt of")


@pytest.mark.parametrize(
    ("changes", "paid"),
    [
        ({"wallet": wallet_of("thief")}, (True, False, True)),
        ({"session_id": "ef" * 16}, (True, False, True)),
        ({"nonce": "ef" * 16}, (True, False, True)),
        ({"price_units": 8}, (True, False, True)),
        ({"positions": 14, "token_layers": 28}, (True, False, True)),
        ({"replayed_positions": 1}, (True, False, True)),
        ({"first_block": 2, "token_layers": 39}, (True, False, True)),
        ({"steps": 5}, (True, False, True)),
        ({"input_root": FALSE_ROOT}, (False, False, True)),
        ({"output_root": FALSE_ROOT}, (True, False, False)),
    ],
)
def test_a_node_that_lies_is_told_from_those_that_do_not(
    content: dict[str, Any], changes: dict[str, Any], paid: tuple[bool, ...]
) -> None:
    signed_again(content, 1, "hop1", **changes)
    report = report_of(content)
    assert tuple(row.token_layers > 0 for row in report.rows) == paid
    assert tuple(row.objection is None for row in report.rows) == paid
    assert not report.is_complete


def test_a_receipt_of_another_session_in_an_honest_file_is_of_no_use() -> None:
    ring = a_paper_ring()
    earlier = PaperRing(ring.borders, ring.steps, replace(ASKED, session_id=SessionId(b"\x01" * 16)))
    content, other = content_of(evidence_of(ring)), content_of(evidence_of(earlier))
    content["parts"][2] = other["parts"][2]
    report = report_of(content)
    assert [row.token_layers > 0 for row in report.rows] == [True, False, False], "it contradicts its neighbour"
    assert "session_id" in (report.rows[2].objection or "")


def test_a_client_that_invents_roots_harms_nodes_but_proves_nothing(content: dict[str, Any]) -> None:
    """What other nodes confirm is confirmed without the client."""
    for own in content["own_roots"]:
        own["root"] = FALSE_ROOT
    report = report_of(content)
    assert [row.token_layers > 0 for row in report.rows] == [False, True, False]
    content["own_roots"] = []
    report = report_of(content)
    assert report.is_complete
    assert report.witnessed_token_layers == report.token_layers


def test_what_nobody_but_the_client_confirms_is_told_apart() -> None:
    ring = a_paper_ring()
    ring.receipts[1] = {}
    report = check(evidence_of(ring))
    assert [row.token_layers for row in report.rows] == [13, 0, 39]
    assert report.witnessed_token_layers == 0
    assert not report.is_complete


def test_work_on_a_step_whose_answer_was_lost_counts_beyond_what_was_asked() -> None:
    report = check(evidence_of(a_paper_ring(), answered=3))
    assert (report.positions, report.expected_token_layers, report.token_layers) == (12, 72, 78)


class TestAfterALoss:
    """A real ring in which a node was replaced."""

    @pytest.fixture
    async def mended(self, talker: Path) -> dict[str, Any]:
        async with a_ring(talker, (0, 2), (2, 4), (4, 6), (2, 3), (3, 4)) as ring, asyncio.timeout(30):
            by_peer = {node.peer_id: node.announcement for node in ring.nodes}

            async def find(*_: object) -> Any:
                left = [by_peer[node.peer_id] for node in ring.nodes[3:]]
                return plan_route(left, 6, span=(2, 4))

            request = SessionRequest(ring.source.digest, 256, "float32")
            session = MeshSession(ring.route[:3], request, FAST, find)
            await session.open(ring.client)
            await session.step(ring.random_hidden(70), 0)
            await session.step(ring.random_hidden(1), 70)
            ring.network.cut(ring.nodes[1].transport.peer_id)
            await session.step(ring.random_hidden(2), 71)
            await session.step(ring.random_hidden(3), 72)
            await session.finish()
            return content_of(session.evidence)

    async def test_all_are_owed_for_what_they_did(self, mended: dict[str, Any]) -> None:
        report = report_of(mended)
        blocks = [row.blocks for row in report.rows]
        assert blocks == [(0, 2), (2, 4), (4, 6), (2, 3), (3, 4)]
        assert [row.objection for row in report.rows] == [None] * 5
        assert report.is_complete
        assert report.token_layers == report.expected_token_layers == 76 * 6
        assert report.witnessed_token_layers == report.token_layers
        assert [row.end_step for row in report.rows] == [None, 2, None, None, None]
        assert [row.first_step for row in report.rows] == [0, 0, 0, 2, 2]
        assert report.rows[3].replayed_positions == 71
        assert report.rows[1].positions + report.rows[3].positions == 76

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda file: file["parts"].reverse(), "needs a node from step 0 on"),
            (lambda file: file["parts"].pop(3), "block 2 has no node from step 2 on"),
            (lambda file: file["parts"][1].update(end_step=3), "needs a node from step 3 on"),
            (lambda file: file["parts"][1].update(end_step=None), "two nodes at once"),
        ],
    )
    async def test_who_came_after_whom_must_fit(self, mended: dict[str, Any], change: Change, words: str) -> None:
        change(mended)
        refused(mended, words)

    async def test_a_receipt_is_good_for_the_part_it_was_given_for(self, mended: dict[str, Any]) -> None:
        mended["parts"][3]["receipts"][-1]["output_link"] += 100
        report = report_of(mended)
        assert report.rows[3].output_agrees == ()
        assert report.rows[4].input_agrees == ()
        mended["parts"][3]["first_step"] = mended["parts"][1]["end_step"] = 1
        mended["parts"][4]["first_step"] = 1
        report = report_of(mended)
        assert [row.objection is None for row in report.rows[3:]] == [False, False]
        assert not report.is_complete


def test_positions_may_be_a_list_or_a_tuple() -> None:
    evidence = evidence_of(a_paper_ring())
    again = replace(evidence, own=OwnView(evidence.own.roots, tuple(evidence.own.positions)))
    assert receipts_file(again) == receipts_file(evidence)
