"""Starting and ending the server: a sentence when something is in the way, nothing left open."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc.aio
import httpx
import pytest

from far_mesh.marketplace import logs, serve
from far_mesh.marketplace.errors import AddressInUse, ChainMismatch, ChainUnavailable, MissingSetting
from far_mesh.marketplace.grpc_api.far_pb2 import NodeStatusRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.marketplace.serve import listening
from tests.far_mesh.marketplace.doubles import MeshDouble, meshes_of
from tests.far_mesh.marketplace.house import LiveChain
from tests.support.ports import free_port

SERVER = """
import sys
from far_mesh.marketplace.serve import run
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.doubles import MeshDouble, meshes_of
run(Settings.read(), meshes_of(MeshDouble()), on_ready=lambda: print("ready", flush=True))
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging is the process's own; tests share one process."""
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=rf"127.0.0.1:{port}.*--port"):
            listening("127.0.0.1", port)


async def test_a_chain_that_is_gone_is_one_clear_error(live_chain: LiveChain, sqlite_url: str) -> None:
    settings = live_chain.settings(database_url=sqlite_url, chain_rpc_url="http://127.0.0.1:9", port=0)
    with pytest.raises(ChainUnavailable):
        await serve.serve(settings, meshes_of(MeshDouble()))  # type: ignore[arg-type]


async def test_grpc_in_clear_text_for_others_is_one_clear_error(live_chain: LiveChain, sqlite_url: str) -> None:
    settings = live_chain.settings(database_url=sqlite_url, host="0.0.0.0", port=0, grpc_port=50051)
    with pytest.raises(MissingSetting, match="FAR_GRPC_TLS_CERT"):
        await serve.serve(settings, meshes_of(MeshDouble()))  # type: ignore[arg-type]


async def test_a_chain_of_another_id_is_one_clear_error(live_chain: LiveChain, sqlite_url: str) -> None:
    settings = live_chain.settings(database_url=sqlite_url, chain_id=97, port=0)
    with pytest.raises(ChainMismatch, match="97"):
        await serve.serve(settings, meshes_of(MeshDouble()))  # type: ignore[arg-type]


async def test_a_real_process_serves_and_ends_politely(live_chain: LiveChain, tmp_path: Path) -> None:
    port, grpc_port = free_port(), free_port()
    settings = live_chain.settings()
    environment = os.environ | {
        "FAR_DATA_DIR": str(tmp_path / "data"),
        "FAR_PORT": str(port),
        "FAR_GRPC_PORT": str(grpc_port),
        "FAR_CHAIN_RPC_URL": live_chain.rpc_url,
        "FAR_TOKEN_ADDRESS": live_chain.deployment.token,
        "FAR_ESCROW_ADDRESS": live_chain.deployment.escrow,
        "FAR_SETTLER_PRIVATE_KEY": settings.settler_key(),
        "FAR_JWT_SECRET": settings.jwt_key(),
        "FAR_MODELS": '[{"model": "tiny", "completion_price_units": 5}]',
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 120) == b"ready\n"
    async with httpx.AsyncClient() as client:
        gateway = f"http://127.0.0.1:{port}"
        deep, as_json = b"[" * 99_000, {"content-type": "application/json"}
        refused = await client.post(f"{gateway}/api/auth/nonce", content=deep, headers=as_json)
        answer = await client.get(f"{gateway}/ready")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_argument")
    assert answer.json()["status"] == "ready"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        assert (await FarMeshStub(channel).NodeStatus(NodeStatusRequest(), timeout=30)).status == "ready"
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in errors
    assert (tmp_path / "data" / "marketplace.db").exists()
