"""Ten thousand connections that say nothing, twice: what does a gateway's memory do, and is anybody kept waiting?

python -m benchmarks.idle_connections [--count 10000] [--waves 3] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import secrets
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.support import victim
from benchmarks.support.report import commit, keep
from tests.far_mesh.marketplace.doubles import MODEL

HEADER_SECONDS = 30.0
HALF = b"GET /v1/models HTTP/1.1\r\nhost: far.test\r\nx-half: "
WHOLE = b"GET /nothing HTTP/1.1\r\nhost: far.test\r\n\r\n"
KINDS = {"silent": b"", "half a head": HALF, "kept alive": WHOLE}
AT_ONCE = 200
ASKED = 50


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, port: int, count: int) -> dict[str, Any]:
    """A gateway without a chain."""
    return {
        "data_dir": str(folder),
        "port": port,
        "payment_provider": "none",
        "jwt_secret": secrets.token_hex(32),
        "models": [{"model": MODEL, "completion_price_units": 1}],
        "max_connections": count + 1000,
        "header_seconds": HEADER_SECONDS,
        "keep_alive_seconds": 3600,
        "public_requests_per_minute": 0,
        "account_requests_per_minute": 0,
    }


async def answered(url: str, seconds: float = 60.0) -> None:
    """Until the gateway answers."""
    async with httpx.AsyncClient() as client:
        for _ in range(int(seconds / 0.1)):
            try:
                if (await client.get(f"{url}/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError("the gateway does not answer")


async def connect(port: int, said: bytes, count: int) -> list[asyncio.StreamWriter]:
    """So many connections that say this and nothing more."""
    found: list[asyncio.StreamWriter] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(said)
        if said == WHOLE:
            await reader.readuntil(b"\r\n\r\n")
        found.append(writer)

    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(one() for _ in range(min(AT_ONCE, count - start))))
    return found


async def latency(url: str) -> float:
    """Median milliseconds of a small answer."""
    async with httpx.AsyncClient() as client:
        taken = []
        for _ in range(ASKED):
            began = time.perf_counter()
            (await client.get(f"{url}/v1/models")).raise_for_status()
            taken.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(taken), 2)


def megabytes(process: psutil.Process) -> float:
    """Resident memory."""
    return round(process.memory_info().rss / 2**20, 1)


def connections(process: psutil.Process, port: int) -> int:
    """That the gateway holds."""
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in process.net_connections())


async def waves(process: psutil.Process, port: int, count: int, number: int) -> dict[str, Any]:
    """Waves of each kind; memory before, at the top, and when the connections are gone."""
    url = f"http://127.0.0.1:{port}"
    await answered(url)
    for writer in await connect(port, WHOLE, AT_ONCE):  # what is made once is made now
        writer.close()
    found: dict[str, Any] = {"count": count, "mib_before": megabytes(process), "ms_alone": await latency(url)}
    for kind, said in KINDS.items():
        rows = []
        for _ in range(number):
            began = time.perf_counter()
            writers = await connect(port, said, count)
            row: dict[str, Any] = {"open": connections(process, port), "mib": megabytes(process)}
            row["kib_each"] = round(1024 * (row["mib"] - found["mib_before"]) / count, 2)
            row["ms_beside"] = await latency(url)
            if said == WHOLE:  # these the gateway would keep: it is the others that it has to close
                for writer in writers:
                    writer.close()
            while connections(process, port):
                if time.perf_counter() - began > 20 * HEADER_SECONDS:
                    raise TimeoutError("connections are not closed")
                await asyncio.sleep(0.5)
            row |= {"mib_after": megabytes(process), "seconds": round(time.perf_counter() - began, 1)}
            for writer in writers:
                writer.close()
            rows.append(row)
            print(kind, json.dumps(row), flush=True)
        found[kind] = rows
    return found


def main() -> None:
    """Measure and keep the figures; fail if a wave leaves more behind than the first of its kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--waves", type=int, default=2, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    began_at = commit()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(given.count + 1000, hard), hard))
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        log = Path(folder) / "gateway.log"
        values = settings(Path(folder), port, given.count)
        process = multiprocessing.get_context("spawn").Process(
            target=victim.serve, args=(values, str(log)), daemon=True
        )
        process.start()
        assert process.pid is not None
        try:
            found = asyncio.run(waves(psutil.Process(process.pid), port, given.count, given.waves))
        finally:
            process.terminate()
            process.join(30)
    left = {kind: [row["mib_after"] for row in found[kind]] for kind in KINDS}
    found["grows_mib"] = round(max(max(after) - after[0] for after in left.values()), 1)
    print(json.dumps(found, indent=2))
    command = f"python -m benchmarks.idle_connections --count {given.count} --waves {given.waves}"
    keep(given.out, "idle_connections", command, began_at, found)
    if found["grows_mib"] > found["mib_before"] / 20:
        raise SystemExit("memory grows from wave to wave")


if __name__ == "__main__":
    main()
