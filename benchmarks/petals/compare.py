"""Tokens per second through three servers: ours, Petals as it stands, and Petals whose servers talk to each other.

    python -m benchmarks.petals.compare --python ENV/bin/python --source PETALS [--rounds 5] [--where …] [--out RESULTS]

The same random Llama (42 M parameters, float32) in three parts on three servers with one thread each, one text at a
time, greedy and without guesses ahead; on this machine, and with every process on a host of its own 20 ms from the
others (needs root). The three take turns, round by round. A token's time is that of all tokens after the first.

``PETALS`` is a checkout of https://github.com/bigscience-workshop/petals (22afba6), whose requirements are of 2024. It
runs in an environment of its own, with these in place of the ones it names::

    python3.11 -m venv ENV
    ENV/bin/pip install torch==2.13.0 transformers==4.43.1 'numpy<2' accelerate 'huggingface-hub<1' peft==0.8.2 \\
        bitsandbytes Dijkstar humanfriendly async-timeout sentencepiece speedtest-cli==2.1.3 \\
        tensor_parallel==1.0.23 cpufeature hivemind==1.1.11

Version 1.1.12 of hivemind has moved a name that Petals imports. The package of 1.1.11 holds a daemon for another
system: copy ``hivemind/hivemind_cli/p2pd`` over it from an installed 1.1.12.

Its servers can send a step's output straight to the next one (``rpc_push``), but the client's branch that asks for it
is behind ``if self._position is not None``, which always holds. "Revived" is a copy in which that branch is no longer
an ``elif``. The output still travels to the client too, and the client still sends it on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.mesh import PLAIN, far_apart, make_model, side_by_side, spans
from benchmarks.support import report
from benchmarks.support.town import FIRST_NODE_HOST
from benchmarks.support.wan import Wan
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions
from tests.support.swarm import Town

SERVERS, PROMPT, TOKENS = 3, list(range(10, 74)), 48
ONE_WAY_SECONDS = {"this machine": 0.0, "20 ms apart": 0.020}
_START_SECONDS = 180.0
_DEAD, _REVIVED = "elif self.config.use_server_to_server:", "if self.config.use_server_to_server:"


class Petals:
    """Servers and a client of one Petals swarm; nothing outlives it."""

    def __init__(self, python: str, source: Path, model: Path, folder: Path) -> None:
        self._python, self._source, self._model, self._folder = python, source, model, folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def serve(
        self, number: int, blocks: tuple[int, int], address: str, peers: Sequence[str], within: list[str]
    ) -> None:
        """Start a server, which is not waited for."""
        # fmt: off
        options = [
            "--block_indices", "{}:{}".format(*blocks), "--host_maddrs", f"/ip4/{address}/tcp/0",
            "--identity_path", str(self._folder / f"server{number}.id"), "--dht_prefix", "benchmark",
            "--torch_dtype", "float32", "--device", "cpu", "--quant_type", "none", "--throughput", "100",
            "--num_handlers", "1", "--attn_cache_tokens", "4096", "--inference_max_length", "2048",
            "--skip_reachability_check", "--no_auto_relay", "--balance_quality", "0",
            *(["--initial_peers", *peers] if peers else ["--new_swarm"]),
        ]
        # fmt: on
        command = [*within, self._python, "-m", "petals.cli.run_server", str(self._model), *options]
        with self._log(number).open("wb") as output:
            self._start(command, self._source, stdout=output, stderr=output)

    def address(self, number: int, said: str = "Running a server on") -> str:
        """Of a server, once it has said so."""
        deadline = time.monotonic() + _START_SECONDS
        while said not in (told := self._log(number).read_text()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a Petals server did not start:\n{told[-3000:]}")
            time.sleep(0.5)
        found = re.search(r"Running a server on \['([^']+)'", told)
        assert found is not None
        return found[1]

    def client(self, source: Path, peer: str) -> subprocess.Popen[bytes]:
        """Start a client that has this source, on the host of the caller, and wait for it."""
        command = [self._python, str(Path(__file__).with_name("client.py")), str(self._model), peer]
        with (self._folder / f"client{len(self._processes)}.log").open("wb") as log:
            client = self._start(command, source, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        _answer(client)
        return client

    def _log(self, number: int) -> Path:
        return self._folder / f"server{number}.log"

    def _start(self, command: list[str], source: Path, **pipes: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"HOME": str(self._folder), "BITSANDBYTES_NOWELCOME": "1"}
        process = subprocess.Popen(command, env=environment, cwd=self._folder, start_new_session=True, **pipes)
        self._processes.append(process)
        return process

    def __enter__(self) -> Petals:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answer(client: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert client.stdout is not None
    for line in client.stdout:
        if line.startswith(b"{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise RuntimeError("the Petals client ended")


def petals_text(client: subprocess.Popen[bytes]) -> tuple[list[int], float]:
    """A text's token ids, and the seconds of all tokens after the first."""
    assert client.stdin is not None
    client.stdin.write(json.dumps({"ids": PROMPT, "tokens": TOKENS}).encode() + b"\n")
    client.stdin.flush()
    answer = _answer(client)
    return answer["ids"], answer["seconds"]


async def our_text(mesh: Mesh) -> tuple[list[int], float]:
    """The same through our mesh."""
    generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS))
    first: float | None = None
    async for _ in generation:
        first = first or time.perf_counter()
    last = time.perf_counter()
    result = await generation.finish()
    assert first is not None
    return list(result.token_ids), last - first


@contextmanager
def both(python: str, source: Path, model: Path, one_way: float) -> Iterator[tuple[Town, dict[str, Any]]]:
    """Our swarm and theirs, on one network; and a client of theirs for each variant."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        revived = folder / "revived"
        shutil.copytree(source, revived)
        session = revived / "petals" / "client" / "inference_session.py"
        assert _DEAD in session.read_text(), "another version of Petals"
        session.write_text(session.read_text().replace(_DEAD, _REVIVED))
        ours: AbstractContextManager[Town] = (
            far_apart(model, SERVERS, one_way) if one_way else side_by_side(model, SERVERS)
        )
        town = stack.enter_context(ours)
        wan: Wan | None = getattr(town, "wan", None)
        theirs = stack.enter_context(Petals(python, source, model, folder))
        peers: list[str] = []
        for number, blocks in enumerate(spans(SERVERS)):
            host = FIRST_NODE_HOST + number
            address, within = (wan.address(host), wan.within(host)) if wan else ("127.0.0.1", [])
            theirs.serve(number, blocks, address, peers, within)
            peers = peers or [theirs.address(number)]
        for number in range(SERVERS):
            theirs.address(number, "] Started")
        clients = {"petals": theirs.client(source, peers[0]), "petals, revived": theirs.client(revived, peers[0])}
        yield town, clients


async def measure(town: Town, model: Path, clients: dict[str, Any], rounds: int, one_way: float) -> dict[str, Any]:
    """Milliseconds per token of each, in turn."""
    found: dict[str, list[float]] = {"ours": [], **{name: [] for name in clients}}
    texts: set[tuple[int, ...]] = set()
    async with await Mesh.join(str(model), town.initial_peers, PLAIN) as mesh:
        for number in range(rounds + 1):  # the first is a rehearsal
            told = {"ours": await our_text(mesh)}
            for name, client in clients.items():
                told[name] = await asyncio.to_thread(petals_text, client)
            for name, (ids, seconds) in told.items():
                texts.add(tuple(ids))
                if number:
                    found[name].append(1000 * seconds / (TOKENS - 1))
    return {
        "one_way_ms": 1000 * one_way,
        "load_average": round(os.getloadavg()[0], 1),
        "same_text": len(texts) == 1,
        "ms_per_token": {name: _spread(values) for name, values in found.items()},
        "tokens_per_s": {name: round(1000 / statistics.median(values), 2) for name, values in found.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "min": round(min(values), 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--where", action="append", choices=list(ONE_WAY_SECONDS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "results")
    given = parser.parse_args()
    chosen = given.where or list(ONE_WAY_SECONDS)
    torch.set_num_threads(1)
    of_commit = report.commit()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        model = make_model(Path(name) / "llama-42m")
        for where in chosen:
            one_way = ONE_WAY_SECONDS[where]
            with both(given.python, (given.source / "src").absolute(), model, one_way) as (town, clients):
                results[where] = asyncio.run(measure(town, model, clients, given.rounds, one_way))
            print(json.dumps({where: results[where]}, indent=2), flush=True)
    command = f"python -m benchmarks.petals.compare --python ENV/bin/python --source PETALS --rounds {given.rounds}"
    command += "".join(f' --where "{where}"' for where in given.where or ())
    report.keep(given.out, "petals", command, of_commit, results)


if __name__ == "__main__":
    main()
