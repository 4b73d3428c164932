"""A peer and its daemon live and die together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer

_A_PEER = """
import asyncio, sys
from pathlib import Path
from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer

async def main():
    peer = await SwarmPeer.start(load_identity(Path(sys.argv[1])), PeerConfig())
    print(peer._p2p._child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def daemon_of(peer: SwarmPeer) -> int:
    pid: int = peer._p2p._child.pid
    return pid


async def test_ctrl_c_in_our_terminal_does_not_reach_the_daemon(tmp_path: Path) -> None:
    starting = (SwarmPeer.start(load_identity(tmp_path / name), PeerConfig()) for name in ("a", "b"))
    for peer in await asyncio.gather(*starting):
        assert os.getpgid(daemon_of(peer)) != os.getpgid(0)
        await peer.close()


async def test_a_peer_whose_daemon_is_gone_still_ends(tmp_path: Path) -> None:
    peer = await SwarmPeer.start(load_identity(tmp_path / "identity"), PeerConfig())
    os.kill(daemon_of(peer), signal.SIGKILL)
    await asyncio.sleep(0.2)
    async with asyncio.timeout(60):
        await peer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
async def test_a_killed_peer_leaves_no_daemon_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _A_PEER, str(tmp_path / "identity")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    daemon = int(await process.stdout.readline())
    process.kill()
    async with asyncio.timeout(60):
        await process.wait()
        while Path(f"/proc/{daemon}").exists() and "zombie" not in Path(f"/proc/{daemon}/status").read_text():
            await asyncio.sleep(0.05)
