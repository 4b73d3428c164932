"""A provider's first day: settings are asked for once, and from then on a node has a name and no flags."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import far_node.cli
import far_node.config_cli
import far_node.init_cli
from tests.support.swarm import ANY_LOCAL_PORT, Ended, Process, run_here
from tests.swarm.conftest import RealSwarm

pytestmark = pytest.mark.swarm

STORY = ("starting", "loading", "ready", "leaving", "stopped")
WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own; and the logs of this process stay as they are."""
    monkeypatch.delenv("FAR_NODE_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for module in (far_node.cli, far_node.config_cli, far_node.init_cli):
        monkeypatch.setattr(module, "quiet_libraries", lambda: None)
    return tmp_path / ".far" / "nodes" / "second"


@pytest.fixture
def discovery(real_swarm: RealSwarm) -> Iterator[str]:
    """A service that names the bootstrap peer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"initial_peers": real_swarm.initial_peers}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def command(*arguments: str) -> Ended:
    ended = run_here(far_node.cli.app, *arguments, "--name", "second")
    assert ended.status == 0, ended.err
    return ended


def test_a_node_with_a_name_is_made_started_watched_and_stopped(discovery: str, home: Path, tmp_path: Path) -> None:
    made = command("init", "--yes", "--json", "--wallet", WALLET, "--discovery", discovery, "--price", "7").events[-1]
    for setting in (
        ("host_maddr", ANY_LOCAL_PORT),
        ("blocks", "0:1"),
        ("threads", "1"),
        ("cache_mb", "16"),
        ("cpu_only", "yes"),
    ):
        command("config", "set", *setting)
    node = Process.start("second", ["far_node.cli", "start", "--json", "--name", "second"], tmp_path)
    try:
        node.wait_until_ready()
        assert (node.peer_id, node.wallet) == (made["peer_id"], WALLET)
        (status,) = command("status", "--json").events
        assert (status["peer_id"], status["price_units"], status["state"]) == (node.peer_id, 7, "ready")
        assert status["models"][0]["blocks"] == [0, 1]
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(command("metrics").out)
            for sample in family.samples
        }
        assert samples["far_node_ready"] == samples["far_node_model_blocks"] == 1.0
        command("stop")
        assert node.wait() == 0
    finally:
        node.kill()
    told = [event["event"] for event in command("logs", "--json").events]
    assert [event for event in told if event in STORY] == list(STORY)
    assert stat.S_IMODE((home / "logs" / "identity.log").stat().st_mode) == 0o600
