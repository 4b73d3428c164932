"""``far-discovery``: a bootstrap peer or a registry starts, or says why not."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import discovery.cli
from discovery.console import Console
from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from far_node.blocks.source import find_model
from tests.support.documents import peer_of
from tests.support.models import make_model
from tests.support.swarm import Process


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


async def test_a_bootstrap_peer_that_finds_no_other_says_so_and_is_ready_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{peer_of('nobody')}"
    config = PeerConfig(initial_peers=(nobody,), starts_alone=True)
    peer = await SwarmPeer.start(load_identity(tmp_path / "identity"), config)
    try:
        for as_json in (True, False):
            telling = asyncio.create_task(discovery.cli.tell_how_it_starts(Console(as_json), peer, patience=0.0))
            told = ""
            while "ready" not in told and "is up" not in told:
                await asyncio.sleep(0.01)
                told += capsys.readouterr().out
            telling.cancel()
            if as_json:
                alone, ready = map(json.loads, told.splitlines())
                assert (alone["event"], ready["event"], ready["joined"]) == ("alone", "ready", False)
            else:
                assert "none of the other bootstrap peers answers yet" in told
                assert "warning: it is alone" in told
    finally:
        await peer.close()


class TestRegistry:
    """``far-discovery registry`` starts, tells what is ready, and ends when asked to."""

    def refused(self, words: str, *arguments: str) -> None:
        plain = CliRunner().invoke(discovery.cli.app, ["registry", *arguments])
        assert (plain.exit_code, plain.stdout) == (1, "")
        (line,) = plain.stderr.strip().splitlines()
        assert line.startswith("error: ")
        assert words in line
        told = CliRunner().invoke(discovery.cli.app, ["registry", *arguments, "--json"])
        event = json.loads(told.stdout)
        assert (told.exit_code, event["event"], event["code"]) == (1, "error", "invalid_argument")

    def test_a_directory_that_is_not_there(self) -> None:
        self.refused("there is no directory", "--model", "/no/such")

    def test_two_models_of_one_name(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name / "tiny").mkdir(parents=True)
        both = ["--model", str(tmp_path / "a/tiny"), "--model", str(tmp_path / "b/tiny")]
        self.refused("two of the models have the same name", *both)

    def test_a_port_that_is_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            self.refused(f"cannot listen on 127.0.0.1:{port}", "--model", str(tmp_path), "--port", port)

    def test_no_model_is_a_usage_error(self) -> None:
        assert CliRunner().invoke(discovery.cli.app, ["registry"]).exit_code == 2

    def test_it_tells_what_is_ready_and_ends_when_asked_to(self, tmp_path: Path) -> None:
        good, bad = make_model(tmp_path / "good"), tmp_path / "bad"
        bad.mkdir()
        arguments = ["registry", "--json", "--port", "0", "--model", f"far/good={good}", "--model", str(bad)]
        process = Process.start("registry", ["discovery.cli", *arguments], tmp_path)
        try:
            process.wait_until_ready()
            url = process.ready["url"]
            assert process.ready["models"] == ["far/good", "bad"]
            digest = find_model(str(good)).digest
            deadline = time.monotonic() + 30
            while len(process.events()) < 3 and time.monotonic() < deadline:
                time.sleep(0.02)
            _, prepared, failed = process.events()
            assert (prepared["event"], prepared["model_id"], prepared["digest"]) == ("prepared", "far/good", digest)
            assert (failed["event"], failed["code"]) == ("error", "invalid_argument")
            assert httpx.get(f"{url}/models/far/good/manifest").json()["digest"] == digest
            process.send(signal.SIGTERM)
            assert process.wait() == 0
            assert process.events()[-1] == {"event": "stopped"}
            assert process.err.read_text() == ""
        finally:
            process.kill()


class TestServe:
    """``far-discovery serve`` says what keeps it from opening."""

    def refused(self, code: str, words: str, *arguments: str) -> None:
        plain = CliRunner().invoke(discovery.cli.app, ["serve", *arguments])
        assert (plain.exit_code, plain.stdout) == (1, "")
        (line,) = plain.stderr.strip().splitlines()
        assert line.startswith("error: ")
        assert words in line
        told = CliRunner().invoke(discovery.cli.app, ["serve", *arguments, "--json"])
        event = json.loads(told.stdout)
        assert (told.exit_code, event["event"], event["code"]) == (1, "error", code)

    def test_nobody_to_follow(self, tmp_path: Path) -> None:
        self.refused("invalid_setting", "FAR_DISCOVERY_INITIAL_PEERS", "--data-dir", str(tmp_path), "--port", "0")

    def test_a_port_that_is_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            self.refused("invalid_argument", f"cannot listen on 127.0.0.1:{port}", "--port", port)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        self.refused("invalid_setting", "no file of settings", "--config", str(tmp_path / "none.toml"))

    def test_a_database_that_is_none(self, tmp_path: Path) -> None:
        self.refused("invalid_setting", "the database's URL is none", "--database-url", "x", "--port", "0")
