"""A node's owner is told its score and why, and honestly where there is none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from discovery.probe.observation import Reach
from discovery.score import Observations, score_of, what_helps
from far_node.standing import MOST_BYTES, Known, standing_of
from tests.discovery.probe.test_history import seen, unreached
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import wait_for
from tests.discovery.service.test_probes import send, signed
from tests.discovery.test_inquiry import a_server, an_answer, saying
from tests.support.documents import peer_of, signed_announcement

NODE = peer_of("node")
COUNTS = {name: 1.0 for name in ("completed", "failed", "timed_out", "pauses_caused", "receipts_rejected")}
SCORE = COUNTS | {"probes_right": 1.0, "probes_wrong": 1.0, "uptime": 0.5, "age": 3600.0}


async def test_what_a_service_has_seen_and_what_it_has_not(tmp_path: Path) -> None:
    board = Board([signed_announcement(name) for name in ("node", "quiet", "away")])
    with a_service(tmp_path, board, probers=(peer_of("prober"),)) as client:
        wait_for(client, 3)
        now, url = int(time.time()), str(client.base_url)
        looked = unreached(now, peer_id=peer_of("away")).model_copy(update={"reach": Reach.DIRECT})
        assert send(client, signed(seen(now), seen(now), seen(now, verdict="undecided"), looked)).is_success

        found = await standing_of(NODE, url)
        assert (found.known, found.probers, found.why) == (Known.SEEN, 1, "")
        assert found.seen is not None
        assert found.score is not None
        assert (found.seen.completed, found.seen.probes_right) == pytest.approx((3, 2), abs=0.02)
        shown = client.get(f"/nodes/{NODE}").json()["score"]
        assert found.score.value == pytest.approx(shown["value"], abs=2e-3), "both reckon alike"
        told = found.facts()
        assert json.loads(json.dumps(told)) == told
        assert told["helps"] == list(what_helps(found.seen)) != []
        assert told["score"]["honesty"] == 1.0

        quiet, away, stranger = [await standing_of(peer_of(name), url) for name in ("quiet", "away", "stranger")]
        assert (quiet.known, quiet.score) == (Known.UNSEEN, None)
        assert quiet.why == "nobody has seen it at work yet: no prober has looked at it"
        assert away.why == "nobody has seen it at work yet: it was only looked at"
        assert (stranger.known, stranger.why) == (
            Known.UNSEEN,
            "the discovery service has not heard of this node yet",
        )


async def test_where_no_service_is_known_that_is_said() -> None:
    found = await standing_of(NODE, None)
    assert (found.known, found.discovery, found.facts()["helps"]) == (Known.NOWHERE, None, [])
    assert "no discovery service is known" in found.why
    assert "--discovery" in (await standing_of(NODE, "ftp://far.example")).why
    gone = await standing_of(NODE, "http://127.0.0.1:9")
    assert (gone.known, gone.score) == (Known.UNAVAILABLE, None)
    assert "does not answer" in gone.why


def answered(**changes: Any) -> bytes:
    return an_answer(json.dumps({"node_id": NODE, "probed": [], "score": SCORE} | changes).encode())


async def test_the_score_is_reckoned_here_and_not_taken() -> None:
    lie = answered(score=SCORE | {"value": 1.0, "honesty": 1.0}, probed=[{"prober": "a"}, {"prober": "a"}])
    async with a_server(saying(lie)) as (url, asked):
        found = await standing_of(NODE, url)
        assert asked[0].startswith(f"GET /nodes/{NODE} ".encode())
    assert found.seen == Observations(**SCORE)
    assert found.score == score_of(Observations(**SCORE))
    assert found.probers == 1


@pytest.mark.parametrize(
    "answer",
    [
        answered(node_id=peer_of("another")),
        answered(score={"value": 1.0}),
        answered(score=SCORE | {"completed": -1.0}),
        answered(score=SCORE | {"completed": 1e300}),
        answered(score=SCORE | {"uptime": 2.0}),
        answered(score=SCORE | {"failed": "\x1b[2J"}),
        answered(score=SCORE).replace(b"3600.0", b"NaNNaN"),
        answered(probed=[{"prober": "a"}] * 65),
        answered(probed=None),
        an_answer(b"[" * 100_000),
        an_answer(b"<html>"),
        an_answer(b"x" * (MOST_BYTES + 1)),
        an_answer(b"", "500 Internal Server Error"),
        an_answer(b"", "302 Found", "location: /"),
        b"SSH-2.0-far\r\n\r\n",
        b"",
    ],
)
async def test_what_means_nothing_is_no_score(answer: bytes) -> None:
    async with a_server(saying(answer)) as (url, _):
        found = await standing_of(NODE, url)
    assert (found.known, found.seen, found.facts()["score"]) == (Known.UNAVAILABLE, None, None)
    assert "\x1b" not in found.why


async def test_a_service_that_says_nothing_is_waited_for_no_longer_than_it_may_take() -> None:
    async with a_server(saying(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", pause=30.0)) as (url, _):
        found = await standing_of(NODE, url, 0.2)
    assert found.known is Known.UNAVAILABLE
