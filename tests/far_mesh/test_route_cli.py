"""A route is told to people as a table and to programs as JSON, and both say the same."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

import far_mesh.cli
from discovery.protocol.announcement import Quantization
from far_mesh import route_cli
from far_mesh.config import Preference
from far_mesh.costs import Known
from far_mesh.route import Explanation, explain
from far_mesh.route_cli import as_facts, in_words
from tests.support.documents import announcement, peer_of, wallet_of


@pytest.fixture
def found() -> Explanation:
    swarm = [
        announcement("a", end_block=5, block_ms=2.0, price_units=10, region="eu-west"),
        announcement("b", first_block=4, end_block=8, block_ms=4.0, price_units=30),
        announcement("c", end_block=8, block_ms=900.0),
        announcement("d", end_block=8, state="leaving"),
    ]
    return explain(swarm, 8, known=Known(round_trips={peer_of("a"): 10.0, peer_of("b"): 20.0}))


def test_people_read_a_table_of_hops_and_a_sum(found: Explanation) -> None:
    head, first, second, back, _, total = in_words(found, explain=False).splitlines()
    assert head.split() == ["node", "blocks", "weights", "region", "way", "ms", "blocks", "ms", "price"]
    assert first.split() == [peer_of("a"), "0:5", "none", "eu-west", "6.0", "10.0", "10"]
    assert second.split() == [peer_of("b"), "5:8", "none", "-", "41.0", "12.0", "30"]
    assert back.split() == ["back", "to", "the", "client", "10.0"]
    assert total == "79.0 ms per token, 17.5 units for 1,000 token-layers"


def test_those_who_ask_why_read_a_reason_for_every_other_node(found: Explanation) -> None:
    *_, head, third, fourth = in_words(found, explain=True).splitlines()
    assert head.split() == ["not", "in", "it", "blocks", "why"]
    assert third.split()[:2] == [peer_of("c"), "0:8"]
    assert "slower" in third
    assert fourth.split() == [peer_of("d"), "0:8", "leaving"]


def test_programs_read_the_same(found: Explanation) -> None:
    facts = json.loads(json.dumps(as_facts(found, explain=True)))
    assert [(hop["peer_id"], hop["wallet"], hop["blocks"]) for hop in facts["hops"]] == [
        (peer_of("a"), wallet_of("a"), [0, 5]),
        (peer_of("b"), wallet_of("b"), [5, 8]),
    ]
    assert (facts["ms_per_token"], facts["back_ms"], facts["price_units"], facts["exact"]) == (79.0, 10.0, 17.5, True)
    assert {other["peer_id"]: other["why"] for other in facts["others"]}[peer_of("d")] == "leaving"
    assert "others" not in as_facts(found, explain=False)


def test_the_options_are_a_preference(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Preference] = []
    read = route_cli.preference_of

    def overheard(context: typer.Context) -> Preference:
        said.append(read(context))
        return said[-1]

    monkeypatch.setattr(route_cli, "quiet_libraries", lambda: None)
    monkeypatch.setattr(route_cli, "preference_of", overheard)
    monkeypatch.setattr(route_cli, "run", lambda console, main: None)
    options = ["--prefer", "cheapest", "--max-price", "7", "--max-latency", "90", "--region", "eu", "--max-hops", "3"]
    options += ["--quantization", "int8", "--quantization", "none", "--min-tps", "2", "--max-load", "0.5"]
    options += ["--trusted-only", peer_of("a"), "--trusted-only", wallet_of("b")]
    options += ["--near", "52.5,13.4", "--max-distance-km", "800"]
    arguments = ["route", "--model", "far-demo", "--initial-peers", f"/ip4/127.0.0.1/tcp/9/p2p/{peer_of('x')}"]
    assert CliRunner().invoke(far_mesh.cli.app, [*arguments, *options]).exit_code == 0
    trusted, kinds = frozenset({peer_of("a"), wallet_of("b")}), frozenset[Quantization]({"int8", "none"})
    assert said == [Preference("cheapest", 7, 90.0, "eu", kinds, trusted, 2.0, 0.5, 3, (52.5, 13.4), 800.0)]
