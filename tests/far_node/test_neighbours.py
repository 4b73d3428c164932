"""Who is in a swarm, told from announcements; and how far away, from real answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from discovery.dht.memory import MemoryNetwork
from far_node.neighbours import Neighbour, Pinged, chosen, percentile, ping
from far_node.peers_cli import plain, print_times
from tests.support.documents import announcement, peer_of

ANN = announcement("ann", model_id="m", maddrs=("/ip4/1.2.3.4/tcp/1",))
BOB = announcement("bob", model_id="n", model_digest="ab" * 32, maddrs=("/ip4/1.2.3.4/tcp/1/p2p/x/p2p-circuit",))
CID = announcement("cid", model_id="n", model_digest="ab" * 32, maddrs=())


def test_how_a_node_is_reached_by_its_own_word() -> None:
    assert [Neighbour(node).way for node in (ANN, BOB, CID)] == ["direct", "relay", "none"]
    assert Neighbour(ANN.model_copy(update={"reached": "none"})).way == "none", "it has an address, in vain"
    assert Neighbour(BOB.model_copy(update={"reached": "direct"})).way == "relay", "what it names is what can be dialed"
    facts = Neighbour(ANN).facts(now=ANN.issued_at + 12.3)
    assert (facts["seen_seconds"], facts["blocks"], facts["peer_id"]) == (12, ANN.blocks, peer_of("ann"))


def test_nodes_are_chosen_by_name_digest_or_id_and_sorted_by_blocks() -> None:
    nodes = [CID, BOB, ANN]
    assert [node.announcement.model_id for node in chosen(nodes, None, None)] == ["m", "n", "n"]
    assert len(chosen(nodes, "n", None)) == 2
    assert len(chosen(nodes, "ab" * 4, None)) == 2
    assert chosen(nodes, "ab", None) == [], "too short for a digest"
    assert [node.announcement for node in chosen(nodes, None, peer_of("ann"))] == [ANN]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 21)]
    assert (percentile(values, 0.95), percentile(values, 0.5), percentile([3.0], 0.95)) == (19.0, 10.0, 3.0)


async def test_who_does_not_answer_is_asked_once_and_told_why() -> None:
    transport = MemoryNetwork().join(peer_of("me"))
    (found,) = await ping(transport, [Neighbour(ANN)], 5)
    assert (found.asked, found.milliseconds) == (1, ())
    facts = found.facts()
    assert (facts["median_ms"], facts["answered"]) == (None, 0)
    assert facts["reason"]


def test_a_long_reason_leaves_the_table_readable_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_times([Pinged(Neighbour(ANN), (), 1, "it cannot be reached: " + "no such address; " * 20)])
    out = capsys.readouterr().out
    assert "median ms" in out
    assert "0 of 1" in out
    assert f"{peer_of('ann')}: it cannot be reached" in out


def test_times_are_told_as_they_were_measured() -> None:
    facts = Pinged(Neighbour(ANN), (3.0, 1.0, 2.0), 4, "lost").facts()
    assert (facts["min_ms"], facts["median_ms"], facts["p95_ms"]) == (1.0, 2.0, 3.0)
    assert (facts["answered"], facts["asked"], facts["reason"]) == (3, 4, "lost")


def test_a_strangers_words_do_not_move_the_cursor() -> None:
    assert plain("\x1b[2J[red]m[/red]\n") == "�[2J\\[red]m\\[/red]�"
    assert plain(replace(Pinged(Neighbour(ANN), (), 1, "ok")).reason or "") == "ok"
