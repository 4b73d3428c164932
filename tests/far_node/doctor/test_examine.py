"""Each thing that keeps newcomers from serving is made here, and exactly that is named."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import far_node.cli
from far_node.config import ModelOptions
from far_node.doctor import measure
from far_node.doctor.examine import Questions, examine
from far_node.doctor.judge import Finding
from tests.support.documents import wallet_of
from tests.support.ports import free_port
from tests.support.swarm import ANY_LOCAL_PORT, Town, run_here

CHECKS = ["config", "wallet", "identity", "model", "disk", "device", "memory"]
CHECKS += ["dht", "port", "nat", "clock", "discovery", "gateway"]
NOBODY = "12D3KooWEjunvbHqkjL26TpYh8hkoF12nQk3hDrHh8PTtaiGgg5W"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town")) as opened:
        yield opened


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how many bytes of the disk are free."""

    def say(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, (1 << 40) - free, free))

    return say


@pytest.fixture
def healthy(town: Town, tmp_path: Path, disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> Questions:
    """A node that nothing is wrong with."""
    disk(100 << 30)
    monkeypatch.setenv("FAR_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(measure, "cards", lambda: ())
    return Questions(
        model=ModelOptions("far-demo", cache_bytes=1 << 20),
        wallet=wallet_of("ann"),
        initial_peers=tuple(town.initial_peers),
        host_maddrs=("/ip4/127.0.0.1/tcp/0",),
        device="cpu",
        reserve_bytes=0,
        identity=tmp_path / "identity",
    )


async def blamed(asked: Questions) -> dict[str, Finding]:
    """What is bad or warned of."""
    found = await examine(asked)
    assert [finding.check for finding in found] == CHECKS
    return {finding.check: finding for finding in found if finding.verdict in ("bad", "warning")}


async def the_one(asked: Questions, check: str) -> Finding:
    """The only thing that is blamed."""
    found = await blamed(asked)
    assert list(found) == [check], {name: finding.says for name, finding in found.items()}
    finding = found[check]
    assert finding.verdict == "bad"
    assert finding.why
    assert finding.todo
    return finding


async def test_a_machine_with_nothing_wrong_is_told_so(healthy: Questions) -> None:
    found = {finding.check: finding for finding in await examine(healthy)}
    assert {name for name, finding in found.items() if finding.verdict != "good"} == {"discovery", "gateway"}
    assert "is reached" in found["port"].says
    assert found["clock"].facts["peers"] == 1
    assert not healthy.identity.exists(), "a look makes no key"


async def test_a_closed_port(healthy: Questions) -> None:
    port = free_port()
    finding = await the_one(replace(healthy, public_maddrs=(f"/ip4/127.0.0.1/tcp/{port}",)), "port")
    assert f"port {port} is closed from outside" in finding.says
    assert "--relay" in finding.todo
    assert not await blamed(replace(healthy, public_maddrs=(), relay=True)), "who is behind a relay needs none"


async def test_a_port_that_another_program_has(healthy: Questions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        finding = await the_one(replace(healthy, host_maddrs=(f"/ip4/127.0.0.1/tcp/{port}",)), "port")
    assert f"another program listens on port {port}" in finding.says
    assert "--host-maddr" in finding.todo


@pytest.mark.parametrize(("seconds", "words"), [(600, "600.0 s ahead"), (-600, "600.0 s behind")])
async def test_a_clock_that_is_off_by_ten_minutes(healthy: Questions, seconds: int, words: str) -> None:
    finding = await the_one(replace(healthy, now=lambda: time.time() + seconds), "clock")
    assert finding.facts["ahead_seconds"] == pytest.approx(seconds, abs=60)
    assert words.partition(".")[0][:2] in finding.says
    assert words.rpartition(" ")[2] in finding.says
    assert finding.command == "sudo timedatectl set-ntp true"


async def test_a_full_disk(healthy: Questions, disk: Callable[[int], None]) -> None:
    disk(10 << 20)
    finding = await the_one(healthy, "disk")
    assert "10.00 MiB of 1024.00 GiB are free" in finding.says


async def test_a_directory_that_cannot_be_written(healthy: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_MODELS_DIR", "/proc/models")
    assert "cannot be written" in (await the_one(healthy, "disk")).says


async def test_no_route_to_the_initial_peers(healthy: Questions) -> None:
    gone = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{NOBODY}"
    finding = await the_one(replace(healthy, initial_peers=(gone,)), "dht")
    assert gone in finding.says
    found = {one.check: one.verdict for one in await examine(replace(healthy, initial_peers=(gone,)))}
    assert (found["port"], found["nat"], found["clock"]) == ("unknown",) * 3, "who was not asked is not blamed"


async def test_peers_that_a_discovery_service_names_are_looked_at_where_no_others_are_known(healthy: Questions) -> None:
    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"initial_peers": healthy.initial_peers}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{service.server_port}"
            found = {one.check: one for one in await examine(replace(healthy, initial_peers=(), discovery=url))}
        finally:
            service.shutdown()
            thread.join()
    assert (found["dht"].verdict, found["discovery"].verdict) == ("good", "good")
    assert "1 of 1 initial peers answer" in found["dht"].says


@pytest.mark.parametrize("model", ["/no/such/model", "models/of/mine"])
async def test_a_wrong_path_of_the_model(healthy: Questions, model: str) -> None:
    finding = await the_one(replace(healthy, model=ModelOptions(model)), "model")
    assert model in finding.says
    assert finding.facts == {"code": "model_unavailable"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA on this machine")
async def test_cuda_is_missing(healthy: Questions) -> None:
    finding = await the_one(replace(healthy, device="cuda:0"), "device")
    assert "no driver tells of a GPU" in finding.says
    assert "--cpu-only" in finding.todo


@pytest.mark.parametrize("wallet", ["0x123", wallet_of("ann").swapcase()])
async def test_a_malformed_wallet(healthy: Questions, wallet: str) -> None:
    assert "0x" in (await the_one(replace(healthy, wallet=wallet), "wallet")).todo


async def test_an_identity_that_others_can_read_or_that_is_none(healthy: Questions) -> None:
    healthy.identity.write_bytes(b"not a key")
    healthy.identity.chmod(0o600)
    assert "not an ed25519 libp2p identity" in (await the_one(healthy, "identity")).says


def test_settings_that_mean_nothing_and_the_wallet_among_them(
    town: Town, tmp_path: Path, disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(100 << 30)
    monkeypatch.setattr("far_node.doctor_cli.quiet_libraries", lambda: None)
    file = tmp_path / "config.toml"
    file.write_text(f'wallet = "0x12"\ndevice = "cpu"\nidentity = "{tmp_path}/identity"\ncache_mbb = 3\n')
    ended = run_here(far_node.cli.app, "doctor", "--config", str(file), "--host-maddr", ANY_LOCAL_PORT, "--json")
    bad = {event["check"]: event["says"] for event in ended.events[:-1] if event["verdict"] == "bad"}
    assert list(bad) == ["config", "wallet"]
    assert "cache_mbb" in bad["config"]
    assert "0x12" not in bad["config"]


async def test_a_model_that_does_not_fit(healthy: Questions) -> None:
    much = ModelOptions("far-demo", cache_bytes=1 << 60)
    assert "even one block" in (await the_one(replace(healthy, model=much), "memory")).says


def test_the_command_tells_programs_and_people(
    healthy: Questions, town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("far_node.doctor_cli.quiet_libraries", lambda: None)
    words = ["doctor", "--initial-peers", town.initial_peers[0], "--host-maddr", "/ip4/127.0.0.1/tcp/0"]
    words += ["--identity", str(tmp_path / "identity"), "--wallet", "0x123", "--device", "cpu"]
    ended = run_here(far_node.cli.app, *words, "--json")
    assert ended.status == 3
    events: list[dict[str, Any]] = ended.events
    assert [event["check"] for event in events[:-1]] == CHECKS
    assert events[1] == events[1] | {"event": "finding", "check": "wallet", "verdict": "bad"}
    assert events[-1] == events[-1] | {"event": "examined", "healthy": False, "bad": 1}
    words[words.index("0x123")] = wallet_of("ann")
    ended = run_here(far_node.cli.app, *words)
    assert ended.status == 0, ended.out + ended.err
    assert "✓ wallet" in ended.out
    assert "nothing keeps this node from serving" in ended.out
