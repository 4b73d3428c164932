"""``far-mesh verify``: a table or an object, an exit code, and nothing but the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import far_mesh.cli
from discovery.console import EXIT_FOUND
from discovery.protocol.errors import InvalidArgument
from far_mesh.receipts_file import Evidence, receipts_file
from far_mesh.verify import check_place, save
from tests.support.receipts import PaperRing
from tests.support.swarm import Ended, run_here, run_python


def evidence_of(ring: PaperRing) -> Evidence:
    return Evidence(ring.asked, (0, 8), tuple(ring.stints), ring.own_view, len(ring.steps))


@pytest.fixture
def ring() -> PaperRing:
    return PaperRing(borders=(0, 3, 5, 8), steps=(10, 1, 1))


@pytest.fixture
def file(ring: PaperRing, tmp_path: Path) -> Path:
    path = tmp_path / "receipts.json"
    save(evidence_of(ring), path)
    return path


def verified(path: Path, *options: str) -> Ended:
    return run_here(far_mesh.cli.app, "verify", str(path), *options)


def test_a_good_file_is_a_table_and_three_sentences(ring: PaperRing, file: Path) -> None:
    ended = verified(file)
    assert ended.status == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.out.splitlines() if "│" in line]
    ids = [f"…{hop.node.peer_id[-6:]}" for hop in ring.hops]
    assert rows == [
        [ids[0], "0:3", "0:3", "36", "36", "client", ids[1]],
        [ids[1], "3:5", "0:3", "24", "24", ids[0], ids[2]],
        [ids[2], "5:8", "0:3", "36", "36", ids[1], "client"],
        ["verified", "0:8", "", "96", "96", "", ""],
    ]
    assert "96 token-layers have a verified receipt, of 96 that were asked for" in ended.out


def test_programs_read_the_same(ring: PaperRing, file: Path) -> None:
    ended = verified(file, "--json")
    (told,) = ended.events
    assert (ended.status, told["event"], told["complete"]) == (0, "verified", True)
    assert (told["session_id"], told["blocks"], told["positions"]) == ("ab" * 16, [0, 8], 12)
    assert (told["expected_token_layers"], told["verified_token_layers"], told["witnessed_token_layers"]) == (96,) * 3
    assert [node["peer_id"] for node in told["nodes"]] == [hop.node.peer_id for hop in ring.hops]
    assert [node["wallet"] for node in told["nodes"]] == [hop.node.wallet for hop in ring.hops]


def test_work_that_is_not_proven_has_an_exit_code_of_its_own(ring: PaperRing, tmp_path: Path) -> None:
    ring.receipts[1] = {}
    path = tmp_path / "receipts.json"
    save(evidence_of(ring), path)
    ended = verified(path)
    assert ended.status == EXIT_FOUND
    assert "72 rest on the client's own account" in ended.out
    assert f"…{ring.hops[1].node.peer_id[-6:]}: {ring.hops[1].node.peer_id} gave no receipt" in ended.out
    assert "24 token-layers are not proven" in ended.out
    assert verified(path, "--json").events[0]["complete"] is False


def test_a_changed_digit_is_one_clear_sentence(file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace('\\"positions\\":12', '\\"positions\\":13', 1))
    assert file.read_text() != text
    plain = verified(file)
    assert (plain.status, plain.out) == (1, "")
    assert plain.err.startswith("error: the signature is not that of 12D3KooW")
    told = verified(file, "--json")
    assert (told.status, told.events[0]["event"], told.events[0]["code"]) == (1, "error", "receipt_invalid")


def test_a_file_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "nothing", "No such file"), (tmp_path, "Is a directory")):
        ended = verified(path)
        assert (ended.status, ended.out) == (1, "")
        assert words in ended.err
    (tmp_path / "empty").write_bytes(b"")
    assert "this is not a file of receipts" in verified(tmp_path / "empty").err


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    ended = verified(Path("/dev/zero"))
    assert ended.status == 1
    assert "is too long" in ended.err


def test_where_nothing_can_be_written_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    check_place(tmp_path / "new.json")
    for place in (tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(InvalidArgument, match="not a place for a file"):
            check_place(place)


def test_an_old_file_is_replaced_whole(ring: PaperRing, file: Path) -> None:
    file.write_text("old")
    save(evidence_of(ring), file)
    assert file.read_text() == receipts_file(evidence_of(ring))
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_neither_a_network_nor_a_model_is_needed_nor_a_second(file: Path) -> None:
    program = """
import socket, sys, time
def refuse(*_): raise AssertionError("a network is not needed")
socket.socket.connect = socket.getaddrinfo = refuse
from typer.testing import CliRunner
import far_mesh.cli
ended = CliRunner().invoke(far_mesh.cli.app, ["verify", sys.argv[1]])
assert ended.exit_code == 0, ended.output
heavy = {"torch", "transformers", "hivemind", "numpy", "web3", "fastapi"} & set(sys.modules)
assert not heavy, heavy
print(time.process_time())
"""
    ended = run_python(program, str(file))
    assert ended.status == 0, ended.err
    assert float(ended.out) < 1.0


def test_the_file_is_plain_json(file: Path) -> None:
    assert json.loads(file.read_text())["format"] == "far-mesh/receipts/v1"
