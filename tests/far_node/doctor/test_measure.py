"""What the doctor sees of a real disk, real tools and real services."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from discovery.dht.identity import load_identity
from far_node.doctor import measure
from far_node.doctor.facts import Card
from tests.support.models import make_model


def test_a_key_is_looked_at_and_none_is_made(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    assert not measure.identity(path).exists
    made = load_identity(path)
    facts = measure.identity(path)
    assert (facts.peer_id, facts.mode, facts.error) == (made.peer_id, 0o600, None)
    path.chmod(0o644)
    assert measure.identity(path).mode == 0o644


def test_a_model_whose_file_was_cut_off_is_damaged(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny")
    assert measure.model(str(model)).error is None
    weights = next(model.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    error = measure.model(str(model)).error
    assert error is not None
    assert error.code == "weights_damaged"
    weights.unlink()
    gone = measure.model(str(model)).error
    assert gone is not None
    assert gone.code == "model_unavailable"
    (model / "config.json").unlink()
    assert "config.json" in str(measure.model(str(model)).error)


def test_a_hub_id_is_not_a_wrong_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_MODELS_DIR", str(tmp_path / "models"))
    facts = measure.model("owner/model")
    assert facts.is_elsewhere
    assert measure.disk(facts).needed_bytes is None
    assert not (tmp_path / "models").exists(), "a look makes no directory"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that programs are found in, and no other."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_drivers_tell_of_their_cards_without_torch(tools: Path) -> None:
    assert measure.cards() == ()
    put(tools, "nvidia-smi", "echo 'NVIDIA GeForce RTX 3060, 550.54.14, 12288'")
    put(tools, "rocm-smi", "echo 'device,Card series,Driver version'; echo 'card0,Radeon RX 7900,6.7.0'")
    nvidia, amd = (
        Card("nvidia", "NVIDIA GeForce RTX 3060", "550.54.14", 12 << 30),
        Card("amd", "Radeon RX 7900", "6.7.0"),
    )
    assert measure.cards() == (nvidia, amd)
    put(tools, "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    put(tools, "rocm-smi", "exit 1")
    assert measure.cards() == ()


async def test_the_date_of_a_service_tells_the_time() -> None:
    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Door) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        facts = await measure.service(url, "/health", lambda: time.time() + 600)
        assert facts.status == 200
        assert facts.clock_ahead_seconds == pytest.approx(600, abs=30)
        assert (await measure.service(url, "/ready", time.time)).status == 503
        server.shutdown()
    assert "does not answer" in str((await measure.service(url, "/health", time.time)).reason)
    assert "is no address" in str((await measure.service("far.example", "/health", time.time)).reason)


def test_the_port_that_others_dial(tmp_path: Path) -> None:
    facts = measure.listening(["/ip4/0.0.0.0/tcp/0"], ["/ip4/1.2.3.4/tcp/4000"], relay=False, is_ours=False)
    assert (facts.port, facts.in_use) == (4000, False)
    assert measure.listening(["/ip4/0.0.0.0/udp/1/quic"], [], relay=False, is_ours=False).port is None
    assert measure.listening(["nonsense", "/ip4/1.2.3.4/tcp/nonsense"], [], relay=False, is_ours=False).port is None
