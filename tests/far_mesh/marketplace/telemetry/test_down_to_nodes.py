"""A request of a real client, a gateway and two real nodes in processes of their own: its trace, and what is kept."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from far_mesh.client import Mesh
from far_mesh.marketplace import logs
from far_mesh.opener import Swarm
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import House, LiveChain, Loop, User
from tests.support.collector import Collector, Told
from tests.support.swarm import Town

pytestmark = pytest.mark.swarm

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY, SONG, RULE = "canary7f3a", "birdsong9c2e", "wrenrule51d0"
SPANS = ((0, 4), (4, 8))


class Street:
    """A user, a gateway and two nodes, who all tell one collector of what they do."""

    def __init__(self, user: User, town: Town, collector: Collector, log: io.StringIO, files: Path) -> None:
        self.user, self.town, self.collector, self.log, self.files = user, town, collector, log, files

    def ask(self) -> httpx.Response:
        """Something secret, to be answered with something secret, which only a schema tells."""
        messages = [{"role": "system", "content": RULE}, {"role": "user", "content": f"say {CANARY}"}]
        shape = {"type": "json_schema", "json_schema": {"name": "bird", "schema": {"enum": [SONG]}}}
        body = {"model": MODEL, "messages": messages, "max_tokens": 60, "temperature": 0, "response_format": shape}
        return self.user.http.post("/v1/chat/completions", json=body, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})

    def told(self, name: str) -> list[Told]:
        """Spans of this name, of the trace."""
        return [one for one in self.collector.spans if one.name == name and one.trace_id == TRACE]


@pytest.fixture(scope="module")
def street(loop_thread: Loop, live_chain: LiveChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    files, log = tmp_path_factory.mktemp("street"), io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as environment, Collector() as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        logs.configure(log, logging.DEBUG)
        with Town(files) as town:
            town.start_nodes("far-demo", *SPANS)
            swarm = loop_thread.do(Swarm.join(town.initial_peers))
            mesh = loop_thread.do(Mesh.over(swarm, "far-demo", MODEL))
            database = f"sqlite+aiosqlite:///{files / 'marketplace.db'}"
            with House(loop_thread, live_chain, live_chain.settings(database_url=database), mesh) as house:
                yield Street(house.user(), town, collector, log, files)
            loop_thread.do(mesh.close())
            loop_thread.do(swarm.close())
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(scope="module")
def answer(street: Street) -> httpx.Response:
    """The answer to what was asked, once all of it was told."""
    answer = street.ask()
    assert answer.status_code == 200, answer.text
    assert SONG in answer.json()["choices"][0]["message"]["content"]
    street.user.wait_for(lambda: len(street.told("session")) == len(SPANS) and street.told("request"))
    return answer


def test_a_trace_goes_from_the_client_down_to_each_node(street: Street, answer: httpx.Response) -> None:
    spans = {one.span_id: one for one in street.collector.spans if one.trace_id == TRACE}
    tree = {
        (spans[one.parent_id].name if one.parent_id in spans else one.parent_id, one.name) for one in spans.values()
    }
    assert tree == {
        (SPAN, "request"),
        ("request", "distributed_inference"),
        ("distributed_inference", "queue"),
        ("distributed_inference", "payment"),
        ("distributed_inference", "discovery"),
        ("distributed_inference", "inference"),
        ("distributed_inference", "session"),
    }
    sessions = street.told("session")
    assert {one.service for one in sessions} == {"far-node"}
    assert {(one.facts["far.first_block"], one.facts["far.end_block"]) for one in sessions} == set(SPANS)
    assert {one.facts["far.peer_id"] for one in sessions} == {node.peer_id for node in street.town.nodes}
    assert all(one.facts["far.steps"] > 1 and one.facts["far.computed_seconds"] > 0 for one in sessions)
    (request,) = street.told("request")
    assert (request.service, request.facts["far.request_id"]) == ("far-mesh", answer.headers["x-request-id"])


def test_what_was_said_is_in_no_log_no_number_no_span_and_no_file(street: Street, answer: httpx.Response) -> None:
    user = street.user
    user.settled(answer.headers["x-request-id"])
    numbers = httpx.get(f"{user.house.url}/metrics").text
    assert "far_mesh_tokens_total" in numbers
    assert TRACE in street.log.getvalue()
    places: dict[str, Any] = {
        "the log": street.log.getvalue(),
        "numbers": numbers,
        "spans": street.collector.received.decode(errors="replace"),
    }
    for path in street.files.rglob("*"):  # the database with its WAL, and what the nodes wrote
        if path.is_file():
            places[path.name] = path.read_bytes().decode(errors="replace")
    assert "marketplace.db" in places
    key, wallet = user.token, user.wallet
    for name, text in places.items():
        for secret in (CANARY, SONG, RULE, key):
            assert secret not in text, f"{secret} is in {name}"
    for name in ("numbers", "spans"):
        assert wallet.lower() not in places[name].lower()
