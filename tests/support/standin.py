"""A tiny ``far-mesh`` in the place of the real one: its ``far-node`` listens to its owner, and does little else.

What it does is in a log of a line for each thing, in the order it happened.
"""

from __future__ import annotations

import base64
import hashlib
import stat
import sys
import zipfile
from pathlib import Path

from packaging.version import Version

from far_node.update.environments import Environment, Environments

PROGRAM = """
import json, os, signal, socket, sys, time
from pathlib import Path

VERSION, WAY = {version!r}, {way!r}
HERE = Path(os.environ.get("STANDIN", "."))


def note(what):
    with (HERE / "log").open("a") as log:
        log.write(VERSION + " " + what + "\\n")


def sessions():
    return int((HERE / "sessions").read_text()) if (HERE / "sessions").exists() else 0


def answer(command):
    if command == "spare":
        return {{"open_sessions": sessions(), "alone": json.loads(os.environ.get("STANDIN_ALONE", "{{}}"))}}
    if command == "status":
        device = "cpu" if WAY == "cpu" else "cuda:0"
        version = "9.9.9" if WAY == "liar" else VERSION
        return {{"state": "ready", "device": device, "versions": {{"far-mesh": version}}}}
    note("leaves")
    while sessions():
        time.sleep(0.01)
    return {{"drained": True, "asked": int(os.environ.get("STANDIN_ASKED", "1"))}}


def serve():
    address = HERE / "identity.sock"
    if WAY == "crash":
        sys.exit(3)
    if WAY == "silent":
        time.sleep(600)
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(address))
        door.listen()
        note("serves")
        while True:
            talk, _ = door.accept()
            with talk, talk.makefile("rb") as lines:
                command = json.loads(lines.readline())["command"]
                talk.sendall(json.dumps({{"ok": answer(command)}}).encode() + b"\\n")
            if command == "stop":
                note("ends")
                return
            if WAY == "dies":
                sys.exit(4)


def main():
    if sys.argv[1:] == ["start", "--help"]:
        sys.exit(1 if WAY == "no program" else 0)
    adopted = os.environ.get("FAR_UPDATE_ADOPT")
    if adopted is None:
        def leave(*_):
            note("is told to go")
            os._exit(0)

        signal.signal(signal.SIGTERM, leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
        note("starts")
        serve()
    else:
        note("takes over")
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(int(adopted), 0)[1]))


if __name__ == "__main__":
    main()
"""


def wheel(directory: Path, version: str, way: str = "serves") -> Path:
    """A wheel of this version, which goes this way."""
    info = f"far_mesh-{version}.dist-info"
    files = {
        "far_node_standin.py": PROGRAM.format(version=version, way=way),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: far-mesh\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nfar-node = far_node_standin:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in files.items())
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"far_mesh-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def environment(environments: Environments, version: str, way: str = "serves", *, whole: bool = True) -> Environment:
    """The same, as if it had been installed."""
    path = environments.root / version
    (path / "bin").mkdir(parents=True)
    program = path / "bin" / "far-node"
    program.write_text(f"#!{sys.executable}\n" + PROGRAM.format(version=version, way=way))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    made = Environment(path, Version(version))
    if whole:
        environments.mark_installed(made, "cpu")
    return made


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
