"""From a machine that has nothing of ours to a node that serves: how long, and how much of the disk?

python -m benchmarks.install_time [--torch-index WHERE] [--torch BUILD] [--scratch DIR] [--out benchmarks/results]

A copy of the last commit is installed by ``deploy/install.sh`` into an empty home, with an empty environment and the
system's own PATH, in a mount namespace that hides /usr/local and the home of whoever runs this. Then come a bootstrap
peer, a node with the settings of ``far-node init`` and one prompt, and everything is uninstalled. What is fetched comes
over this machine's network.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.support.report import commit, keep

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
HIDE = 'for place in "$HIDDEN_HOME" /usr/local; do mount -t tmpfs none "$place" || exit; done; cd "$HOME"; exec "$@"'


class Bare:
    """A home in which there is nothing, and commands that know nothing else."""

    def __init__(self, scratch: Path) -> None:
        self.home, self.checkout = scratch / "home", scratch / "checkout"
        self.home.mkdir()
        self.checkout.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", self.checkout], input=archive, check=True)

    def command(self, *words: str) -> list[str]:
        """In a namespace and an environment of its own."""
        variables = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "HIDDEN_HOME": str(Path.home())}
        clean = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        return [*clean, "unshare", "--map-root-user", "--mount", "/bin/sh", "-c", HIDE, "sh", *words]

    def run(self, *words: str) -> str:
        """To its end, which must be a good one."""
        print("$", shlex.join(words), flush=True)
        ended = subprocess.run(self.command(*words), capture_output=True, text=True, check=False)
        print(ended.stdout, ended.stderr, sep="", flush=True)
        if ended.returncode:
            raise SystemExit(f"exit code {ended.returncode}")
        return ended.stdout

    @contextmanager
    def ready(self, *words: str) -> Iterator[dict[str, Any]]:
        """A command that goes on; yields what it says when it is ready."""
        print("$", shlex.join(words), flush=True)
        process = subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said = json.loads(line)
                if said["event"] == "ready":
                    yield said
                    break
            else:
                raise SystemExit("it ended before it was ready")
        finally:
            process.terminate()
            process.communicate()

    def mib(self) -> int:
        """What lies in the home."""
        return sum(path.lstat().st_blocks for path in self.home.rglob("*")) // 2048


def measure(bare: Bare, options: list[str]) -> dict[str, Any]:
    """Install, serve, ask, uninstall; seconds of each."""
    far, script = bare.home / ".local/bin/far-node", str(bare.checkout / "deploy" / "install.sh")
    programs = bare.home / ".far" / "venv" / "bin"
    seconds: dict[str, float] = {}
    clock = begun = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = round(time.perf_counter() - clock, 1), time.perf_counter()

    bare.run("sh", script, *options)
    lap("install")
    version, disk = bare.run(str(far), "--version").strip(), bare.mib()
    local = ("--host-maddr", "/ip4/127.0.0.1/tcp/0", "--json")
    with bare.ready(str(programs / "far-discovery"), "bootstrap", *local) as peer:
        lap("bootstrap peer")
        bare.run(str(far), "init", "--yes", "--wallet", WALLET, "--initial-peers", peer["maddrs"][0])
        with bare.ready(str(far), "start", *local):
            lap("init and start")
            ready = round(time.perf_counter() - begun, 1)
            asked = ("--model", "far-demo", "--initial-peers", peer["maddrs"][0], "--prompt", "Tell me a story.")
            answer = bare.run(str(programs / "far-mesh"), "generate", *asked)
            lap("first answer")
    bare.run("sh", script, *options)
    lap("install again")
    bare.run("sh", script, "--uninstall")
    lap("stop and uninstall")
    left = sorted(path.name for path in (bare.home / ".far").iterdir())
    return {
        "version": version,
        "seconds": seconds,
        "from_install_to_serving": ready,
        "load_at_the_end": round(os.getloadavg()[2], 1),
        "disk_mib": disk,
        "answered_words": len(answer.split()),
        "left_after_uninstall": left,
    }


def main() -> None:
    """Measure once, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", default="auto")
    parser.add_argument("--torch-index")
    parser.add_argument("--scratch", type=Path, help="where to install to; default: the system's temporary folder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    said = parser.parse_args()
    of_commit = commit()
    options = ["--torch", said.torch, *(["--torch-index", said.torch_index] if said.torch_index else [])]
    with tempfile.TemporaryDirectory(dir=said.scratch, prefix="far-install-") as scratch:
        results = measure(Bare(Path(scratch)), options)
    print(json.dumps(results, indent=2))
    keep(said.out, "install_time", "python -m benchmarks.install_time", of_commit, results)


if __name__ == "__main__":
    main()
