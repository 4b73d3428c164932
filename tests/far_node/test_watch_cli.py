"""``far-node status`` and ``metrics``, from a node that answers as one did."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import far_node.cli
from far_node.control import ControlServer, Tell, control_path
from tests.discovery.probe.test_history import seen
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import wait_for
from tests.discovery.service.test_probes import send, signed
from tests.support.documents import peer_of, signed_announcement
from tests.support.node_status import STATUS
from tests.support.swarm import Ended, run_here


@pytest.fixture
def answers() -> list[dict[str, Any]]:
    """What it says, once for each question; then it is gone."""
    return [STATUS] * 3


@pytest.fixture
def identity(tmp_path: Path, answers: list[dict[str, Any]]) -> Iterator[Path]:
    path = tmp_path / "identity"
    loop, started, stopped = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def status(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        if len(answers) == 1:
            stopped.set()
        return answers.pop()

    async def serve() -> None:
        server = await ControlServer.start(control_path(path), {"status": status})
        started.set()
        await stopped.wait()
        await server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(30)
    yield path
    loop.call_soon_threadsafe(stopped.set)
    thread.join()
    loop.close()


def command(*arguments: str) -> Ended:
    return run_here(far_node.cli.app, *arguments)


def test_people_see_what_it_serves_and_asks_for(identity: Path) -> None:
    shown = command("status", "--identity", str(identity))
    assert shown.status == 0, shown.err
    for words in ("asks for", "120 units", "far-demo", "0:8 of 8", "1 h 2 min 5 s"):
        assert words in shown.out
    assert "no discovery service is known" in shown.out
    (told,) = command("status", "--identity", str(identity), "--json").events
    standing = told.pop("standing")
    assert told == {"event": "status", **STATUS}
    assert (standing["known"], standing["score"], standing["helps"]) == ("nowhere", None, [])


def test_the_score_is_asked_for_where_the_node_says_or_its_owner(
    identity: Path, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    peer_id, at = peer_of("node"), int(time.time())
    with a_service(tmp_path, Board([signed_announcement("node")]), probers=(peer_of("prober"),)) as client:
        wait_for(client, 1)
        assert send(client, signed(seen(at), seen(at, verdict="wrong"))).is_success
        url = str(client.base_url)
        answers[:] = [STATUS | {"peer_id": peer_id, "discovery": url}, STATUS | {"peer_id": peer_id}]
        given = command("status", "--identity", str(identity), "--json", "--discovery", url)
        (told,) = given.events
        assert told["standing"]["known"] == "seen", told
        assert told["standing"]["seen"]["probes_wrong"] == pytest.approx(1, abs=0.01)
        shown = command("status", "--identity", str(identity))
    assert shown.status == 0, shown.err
    words = " ".join(shown.out.split())
    assert "1 prober within a day" in words
    assert "honesty 0.394" in words, "5.2 / (5.2 + 8)"
    assert "load the weights anew" in words


def test_it_is_watched_until_the_node_is_gone(identity: Path) -> None:
    watched = command("status", "--watch", "--interval", "0.1", "--json", "--identity", str(identity))
    assert watched.status == 1
    assert [event["event"] for event in watched.events] == ["status"] * 3 + ["error"]
    assert watched.events[-1]["code"] == "peer_unavailable"
    assert {event["standing"]["known"] for event in watched.events[:-1]} == {"nowhere"}


def test_people_watch_it_in_one_place(identity: Path) -> None:
    watched = command("status", "--watch", "--interval", "0.1", "--identity", str(identity))
    assert watched.status == 1
    assert "no node runs here" in watched.err
    assert "far-demo" in watched.out


def test_an_interruption_has_an_exit_code_of_its_own(identity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("far_node.watch_cli.time.sleep", interrupt)
    assert command("status", "--watch", "--json", "--identity", str(identity)).status == 130


def test_the_same_numbers_for_prometheus_for_programs_and_for_people(identity: Path) -> None:
    text = command("metrics", "--identity", str(identity))
    assert text.status == 0, text.err
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text.out) for sample in family.samples
    }
    assert samples["far_node_ready"] == 1.0
    assert samples["far_node_token_layers_total"] == 9871.0
    assert samples["far_node_model_blocks"] == 8.0
    told = {event["name"]: event["value"] for event in command("metrics", "--identity", str(identity), "--json").events}
    assert told == samples
    table = command("metrics", "--identity", str(identity), "--table").out
    assert any(one.split() == ["far_node_model_blocks", "far-demo", "8"] for one in table.splitlines())
