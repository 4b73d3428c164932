"""What a real swarm cannot do is said by its own name, to programs and to people."""

from __future__ import annotations

from pathlib import Path

import pytest

import discovery.cli
import far_mesh.cli
import far_node.cli
from tests.support.models import make_model, with_bundled_tokenizer
from tests.support.swarm import Ended, run_here
from tests.swarm.conftest import RealSwarm

pytestmark = pytest.mark.swarm

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests."""
    for room in (far_mesh.cli, far_node.cli, discovery.cli):
        monkeypatch.setattr(room, "quiet_libraries", lambda: None)


def generate(swarm: RealSwarm, model: str, *more: str) -> Ended:
    return run_here(
        far_mesh.cli.app, *("generate", "--json", "--model", model, "--initial-peers", swarm.initial_peers[0]), *more
    )


def failed(ended: Ended, code: str, words: str) -> None:
    assert (ended.status, ended.err) == (1, "")
    (event,) = ended.events
    assert (event["event"], event["code"]) == ("error", code)
    assert words in event["message"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--prompt", "x", "--max-tokens", str(10**9)], "context_length_exceeded", "1000000000 are asked for"),
        (
            ["--prompt", "x " * 3000, "--max-tokens", "1"],
            "context_length_exceeded",
            "the context of far-demo holds 2048",
        ),
        (["--prompt", ""], "invalid_argument", "the prompt is empty"),
    ],
    ids=["too many tokens", "too long a prompt", "no prompt"],
)
def test_what_cannot_be_asked(real_swarm: RealSwarm, more: list[str], code: str, words: str) -> None:
    failed(generate(real_swarm, "far-demo", *more), code, words)


def test_a_model_that_nobody_serves(real_swarm: RealSwarm, tmp_path: Path) -> None:
    model = with_bundled_tokenizer(make_model(tmp_path / "lonely", vocab_size=2048, seed=77))
    ended = generate(real_swarm, str(model), "--prompt", "x", "--max-tokens", "1")
    failed(ended, "no_route", "no live node serves blocks 0:6")
    assert ended.events[0]["retry"] is True


def test_a_model_that_does_not_exist(real_swarm: RealSwarm) -> None:
    failed(generate(real_swarm, "/no/such/model", "--prompt", "x"), "model_unavailable", "there is no model at")


def test_an_identity_that_a_running_node_uses(real_swarm: RealSwarm) -> None:
    node = real_swarm.demo.nodes[0]
    identity = real_swarm.town.directory / f"{node.name}.id"
    ended = run_here(
        far_node.cli.app,
        *("start", "--json", "--model", "far-demo", "--wallet", WALLET, "--cpu-only"),
        *("--initial-peers", real_swarm.initial_peers[0], "--identity", str(identity)),
        *("--host-maddr", "/ip4/127.0.0.1/tcp/0"),
    )
    assert (ended.status, ended.err) == (1, "")
    assert ended.events[-1]["code"] == "invalid_identity"
    assert "another process on this machine" in ended.events[-1]["message"]
    assert node.popen.poll() is None


def test_a_port_that_a_running_peer_uses(real_swarm: RealSwarm, tmp_path: Path) -> None:
    maddr = real_swarm.initial_peers[0].rpartition("/p2p/")[0]
    options = ("--json", "--host-maddr", maddr, "--identity", str(tmp_path / "id"))
    ended = run_here(discovery.cli.app, "bootstrap", *options)
    failed(ended, "invalid_argument", f"cannot listen on {maddr}")
