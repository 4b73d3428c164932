"""``far-node init``: a file of settings and an identity, asked for or taken from the machine, and nothing lost."""

from __future__ import annotations

import socket
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

import far_node.cli
import far_node.init_cli
from discovery.dht.identity import load_identity
from discovery.protocol.membership import found_swarm, invite
from far_node.init import Gpu, Machine, compose, free_gpu, free_port
from far_node.settings import Place, known_peers, read
from tests.support.documents import peer_of
from tests.support.swarm import Ended

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
PEER = f"/ip4/198.51.100.4/tcp/31337/p2p/{peer_of('bootstrap')}"
TWO_GPUS = Machine(
    (Gpu(0, "NVIDIA GeForce RTX 3060", 12 << 30), Gpu(1, "NVIDIA GeForce RTX 3090", 24 << 30)), 16, 32 << 30
)
NO_GPU = Machine((), 4, 8 << 30)
GIVEN = ("--wallet", WALLET, "--initial-peers", PEER)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("FAR_NODE_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(far_node.init_cli, "quiet_libraries", lambda: None)
    on(monkeypatch, NO_GPU)
    return tmp_path / ".far"


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Hardware that this machine has not."""
    monkeypatch.setattr(Machine, "look", classmethod(lambda cls: machine))


def init(*arguments: str, answers: str | None = None) -> Ended:
    done = CliRunner().invoke(far_node.cli.app, ["init", *arguments], input=answers)
    return Ended(done.exit_code, done.stdout, done.stderr)


def written(home: Path, *place: str) -> dict[str, Any]:
    return tomllib.loads(home.joinpath(*place, "config.toml").read_text())


def test_without_a_question_it_takes_what_suits_the_machine(home: Path) -> None:
    ended = init("--yes", *GIVEN, "--json")
    assert ended.status == 0, ended.out
    told = ended.events[-1]
    port = written(home)["host_maddr"][0].rpartition("/")[2]
    assert written(home) == {
        "model": "far-demo",
        "wallet": WALLET,
        "initial_peers": [PEER],
        "host_maddr": [f"/ip4/0.0.0.0/tcp/{port}"],
        "price": 0,
    }
    assert told["peer_id"] == load_identity(home / "identity").peer_id
    assert {stat.S_IMODE((home / name).stat().st_mode) for name in ("config.toml", "identity")} == {0o600}
    assert read({}, Place()).wallet == WALLET


def test_every_answer_is_asked_for_until_it_means_something(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, TWO_GPUS)
    answers = [
        "0x123",
        WALLET.replace("f39F", "F39f"),
        WALLET,
        "",
        "nonsense",
        PEER,
        "1",
        "example.org",
        "relay",
        "-1",
        "5",
    ]
    ended = init(answers="\n".join([*answers, ""]))
    assert ended.status == 0, ended.err + ended.out
    settings = written(home)
    assert (settings["wallet"], settings["model"], settings["initial_peers"]) == (WALLET, "far-demo", [PEER])
    assert (settings["gpu"], settings["relay"], settings["price"]) == (1, True, 5)
    for words in ("not an EVM address", "checksum", "not a multiaddr", "neither IP:PORT", "--price must be"):
        assert words in ended.err
    assert "GPU 1: NVIDIA GeForce RTX 3090, 24.00 GiB" in ended.out
    assert ended.out.endswith("start the node with: far-node start\n")


def test_what_a_flag_says_is_not_asked_for(home: Path) -> None:
    flags = ("--model", "org/tiny", "--discovery", "https://far.example", "--public-addr", "203.0.113.7:31330")
    ended = init("--wallet", WALLET, *flags, "--price", "9", answers="")
    assert ended.status == 0, ended.err
    assert written(home)["discovery"] == "https://far.example"
    assert written(home)["public_addr"] == ["203.0.113.7:31330"]


class TestAPrivateSwarm:
    """Its file and an invitation take the place of peers."""

    def test_is_offered_and_its_invitation_asked_for(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        _, invitation = founded(tmp_path / "acme.swarm", PEER)
        (tmp_path / "broken.swarm").write_text("{}")
        (tmp_path / "theirs").write_text(founded(tmp_path / "theirs.swarm")[1])
        ways = ["nowhere.swarm", "broken.swarm", "acme.swarm", "far-invite-x", "theirs", invitation]
        ended = init(answers="\n".join([WALLET, "", *ways, "", "", ""]))
        assert ended.status == 0, ended.err
        settings = written(home)
        assert (settings["swarm"], settings["invite"]) == (str(tmp_path / "acme.swarm"), invitation)
        assert "initial_peers" not in settings
        for words in ("nowhere.swarm cannot be read", "the invitation is for private/acme"):
            assert words in ended.err, ended.err
        assert known_peers(read({}, Place())) == (PEER,)

    def test_whose_file_names_no_peer_is_asked_for_one(self, home: Path, tmp_path: Path) -> None:
        _, invitation = founded(tmp_path / "acme.swarm")
        (tmp_path / "invitation").write_text(invitation)
        flags = ("--wallet", WALLET, "--swarm", str(tmp_path / "acme.swarm"), "--invite", str(tmp_path / "invitation"))
        ended = init(*flags, answers="\n".join(["", "nonsense", PEER, "", "", ""]))
        assert ended.status == 0, ended.err
        settings = written(home)
        assert (settings["invite"], settings["initial_peers"]) == (str(tmp_path / "invitation"), [PEER])
        assert "not a multiaddr" in ended.err

    def test_without_an_invitation_nothing_is_written(self, home: Path, tmp_path: Path) -> None:
        founded(tmp_path / "acme.swarm", PEER)
        ended = init("--yes", "--wallet", WALLET, "--swarm", str(tmp_path / "acme.swarm"))
        assert ended.status == 1
        assert "invite is not set" in ended.err
        assert not home.exists()


def founded(file: Path, *initial_peers: str) -> tuple[Ed25519PrivateKey, str]:
    """A swarm's file; its owner's key, and an invitation."""
    key = Ed25519PrivateKey.generate()
    charter = found_swarm("acme", key, initial_peers)
    file.write_bytes(charter.to_bytes())
    return key, invite(charter, key, "node", 3600).to_text()


def test_what_was_there_stays_unless_it_is_forced(home: Path) -> None:
    assert init("--yes", *GIVEN).status == 0
    before, peer_id = (home / "config.toml").read_text(), load_identity(home / "identity").peer_id
    ended = init("--yes", *GIVEN, "--price", "5")
    assert ended.status == 1
    assert "is there already" in ended.err
    assert (home / "config.toml").read_text() == before
    assert init("--yes", "--force", *GIVEN, "--price", "5").status == 0
    assert written(home)["price"] == 5
    assert (home / "config.toml.old").read_text() == before
    assert load_identity(home / "identity").peer_id == peer_id, "the identity is what earns"


@pytest.mark.parametrize(
    ("arguments", "answers", "words"),
    [
        (("--yes",), None, ["wallet is not set", "initial_peers is not set"]),
        (("--yes", "--wallet", "0x123", "--initial-peers", "x"), None, ["not an EVM address", "not a multiaddr"]),
        (("--yes", *GIVEN, "--cpu-only", "--gpu", "0"), None, ["--gpu and --cpu-only exclude each other"]),
        (("--json", *GIVEN), None, []),
        ((), "", ["nothing was written"]),
        ((), f"{WALLET}\n", ["nothing was written"]),
        (("--name", "../x", "--yes", *GIVEN), None, ["is not a name"]),
    ],
)
def test_when_something_is_wrong_nothing_is_written(
    home: Path, arguments: tuple[str, ...], answers: str | None, words: list[str]
) -> None:
    ended = init(*arguments, answers=answers)
    assert ended.status == 1, ended.out
    assert all(one in ended.err for one in words), ended.err
    assert not home.exists()


def test_a_second_node_gets_a_port_and_a_gpu_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, TWO_GPUS)
    for name in ([], ["--name", "second"], ["--name", "third"]):
        assert init("--yes", *GIVEN, *name).status == 0
    made = [written(home), written(home, "nodes", "second"), written(home, "nodes", "third")]
    assert [one.get("gpu") for one in made] == [0, 1, None]
    assert made[2]["cpu_only"] is True
    assert len({one["host_maddr"][0] for one in made}) == 3
    assert len({load_identity(home / "nodes" / name / "identity").peer_id for name in ("second", "third")}) == 2


def test_ports_that_others_have_are_left_to_them() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert free_port([], taken) > taken
        named: list[dict[str, Any]] = [
            {"host_maddr": [f"/ip4/0.0.0.0/tcp/{taken + 1}"]},
            {"host_maddr": f"/ip4/0.0.0.0/tcp/{taken + 2}"},
        ]
        assert free_port(named, taken) > taken + 2


def test_a_node_that_names_no_gpu_has_the_first() -> None:
    assert free_gpu(TWO_GPUS, []) == TWO_GPUS.gpus[0]
    assert free_gpu(TWO_GPUS, [{}]) == TWO_GPUS.gpus[1]
    assert free_gpu(TWO_GPUS, [{"cpu_only": True}]) == TWO_GPUS.gpus[0]
    assert free_gpu(TWO_GPUS, [{"gpu": 0}, {"gpu": 1}]) is None


def test_any_text_can_stand_in_the_file() -> None:
    values = {"model": 'a "model"\n\\ü\x7f', "public_addr": ("x", "y"), "relay": True, "price": 3}
    assert tomllib.loads(compose(values)) == values | {"public_addr": ["x", "y"]}
