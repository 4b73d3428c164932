"""Reports to a discovery service that is there, that is not, and that does not want them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from discovery.probe.observation import MAX_OBSERVATIONS, Observation
from far_mesh.probe.tell import Teller
from tests.discovery.probe.test_history import seen
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import wait_for
from tests.support.documents import key_of, peer_of, signed_announcement


def now_seen() -> Observation:
    return seen(int(time.time()))


def probes(client: httpx.Client) -> int:
    (mine,) = client.get(f"/nodes/{peer_of('node')}").json()["probed"]
    return int(mine["probes"])


async def test_what_a_service_has_not_heard_is_told_when_it_is_there(tmp_path: Path) -> None:
    board = Board([signed_announcement("node")])
    teller = Teller(key_of("prober"), "far", "http://127.0.0.1:1")
    assert await teller.tell([now_seen()] * (MAX_OBSERVATIONS + 2)) == 0
    with a_service(tmp_path, board, probers=(peer_of("prober"),)) as client:
        wait_for(client, 1)
        teller.url = str(client.base_url)
        assert await teller.tell([now_seen()]) == MAX_OBSERVATIONS + 3
        assert await teller.tell([]) == 0
        assert probes(client) == MAX_OBSERVATIONS + 3


async def test_the_numbers_go_on_in_the_next_process(tmp_path: Path) -> None:
    board, clock = Board([signed_announcement("node")]), [time.time()]
    now: Callable[[], float] = lambda: clock[0]  # noqa: E731
    with a_service(tmp_path, board, probers=(peer_of("prober"),)) as client:
        wait_for(client, 1)
        url = str(client.base_url)
        first = Teller(key_of("prober"), "far", url, now)
        assert [await first.tell([now_seen()]) for _ in range(3)] == [1, 1, 1], "the clock stands still"
        clock[0] += 1.0
        assert await Teller(key_of("prober"), "far", url, now).tell([now_seen()]) == 1
        assert probes(client) == 4


async def test_what_is_refused_is_not_sent_again(tmp_path: Path) -> None:
    board = Board([signed_announcement("node")])
    with a_service(tmp_path, board, probers=(peer_of("prober"),)) as client:
        wait_for(client, 1)
        stranger = Teller(key_of("stranger"), "far", str(client.base_url))
        assert await stranger.tell([now_seen()]) == 0
        assert await stranger.tell([]) == 0
        reports = [line for line in client.get("/metrics").text.splitlines() if line.startswith("far_discovery_probe_")]
        assert reports == ['far_discovery_probe_reports{outcome="prober_unknown"} 1.0']
