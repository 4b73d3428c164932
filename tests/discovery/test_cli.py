"""``far-discovery``: a bootstrap peer starts or says why not."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

import discovery.cli
from tests.support.documents import peer_of


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests."""
    monkeypatch.setattr(discovery.cli, "quiet_libraries", lambda: None)


def refused(tmp_path: Path, code: str, words: str, *more: str) -> None:
    arguments = ["bootstrap", *more]
    for option, value in (("--identity", str(tmp_path / "identity")), ("--host-maddr", "/ip4/127.0.0.1/tcp/0")):
        if option not in more:
            arguments += [option, value]
    plain = CliRunner().invoke(discovery.cli.app, arguments)
    assert (plain.exit_code, plain.stdout) == (1, "")
    (line,) = plain.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    told = CliRunner().invoke(discovery.cli.app, [*arguments, "--json"])
    assert (told.exit_code, told.stderr) == (1, "")
    event = json.loads(told.stdout)
    assert (event["event"], event["code"]) == ("error", code)
    assert words in event["message"]


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        maddr = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"
        refused(tmp_path, "invalid_argument", f"cannot listen on {maddr}", "--host-maddr", maddr)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--host-maddr", "31337", "not a multiaddr"),
        ("--host-maddr", "", "not a multiaddr"),
        ("--initial-peers", "example.org:31337", "not a multiaddr"),
        ("--initial-peers", "/ip4/127.0.0.1/tcp/31337", "names no peer id"),
        ("--public-addr", "nonsense", "not a multiaddr"),
        ("--public-addr", "/ip4/1.2.3.4/tcp/0", "port"),
    ],
)
def test_an_address_that_is_none(tmp_path: Path, option: str, value: str, words: str) -> None:
    refused(tmp_path, "invalid_argument", words, option, value)


def test_an_identity_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "identity").write_bytes(b"not a key")
    refused(tmp_path, "invalid_identity", "is not an ed25519 libp2p identity")


def test_another_bootstrap_peer_that_is_not_running(tmp_path: Path) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{peer_of('nobody')}"
    refused(tmp_path, "peer_unavailable", "is the bootstrap peer running?", "--initial-peers", nobody)
