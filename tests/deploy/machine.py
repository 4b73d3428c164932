"""A machine for the installer: a home, the few programs that it may count on, and stand-ins for what looks at hardware
or downloads. The stand-in for Python notes what it is asked, and does itself what only computes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pip

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "install.sh"
TOOLS = """awk basename cat chmod cp cut date df dirname env find grep gzip head id ldd ln ls mkdir mv paste readlink rm
rmdir sed sh sha256sum sleep sort tail tar timeout touch tr uname"""

FAKE_PYTHON = r"""#!/bin/sh
echo "$*" >>"$NOTES"
case "$*" in
  *"$HANGS_AT"*)
    if [ -n "$HANGS_AT" ]; then
      echo $$ >"$NOTES.hanging"
      exec sleep 600
    fi
    ;;
esac
case "$*" in
  *"$FAILS_AT"*)
    if [ -n "$FAILS_AT" ]; then
      printf '%s\n' "$SAYS"
      exit 1
    fi
    ;;
esac
for last in "$@"; do :; done
case "$*" in
  *ensurepip*) exit 0 ;;
  *python_version*) echo 3.11.7 ;;
  *"-m venv"*) mkdir -p "$last/bin" && cp "$0" "$last/bin/python" ;;
  *"import torch"*) echo "torch 2.13.0 sees a GPU: False" ;;
  *"-m pip"*--wheel-dir*)
    mkdir -p "${last%/source}/wheel"
    touch "${last%/source}/wheel/far_mesh-0-py3-none-any.whl"
    ;;
  *"-m pip"*tools.lock) cp "$0" "$(dirname "$0")/uv" ;;
  *"-m pip"*far_mesh-*.whl)
    for name in far-node far-mesh; do
      {
        echo '#!/bin/sh'
        echo '[ "$1" != status ] || exit ${NODE_STATUS:-1}'
        echo '[ "$1" != start ] || read -r stop'
        echo 'echo far'
      } >"$(dirname "$0")/$name"
      chmod +x "$(dirname "$0")/$name"
    done
    ;;
  *"-m pip"*) ;;
  *"pip install --python"*) ;;
  *) exec REAL "$@" ;;
esac
"""


def stand_in() -> str:
    """The text of a Python that installs nothing."""
    return FAKE_PYTHON.replace("REAL", sys.executable)


def real_python() -> str:
    """The text of one that does what it is asked; but its environments share our pip instead of unpacking their own."""
    pip_here = Path(pip.__file__).parent
    return f"""#!/bin/sh
case "$*" in
  *"-m venv"*)
    for last in "$@"; do :; done
    {sys.executable} -I -m venv --without-pip "$last"
    ln -s {pip_here} "$last"/lib/python3*/site-packages/
    ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


def make_program(path: Path, text: str) -> None:
    """Something that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def sha256(path: Path) -> str:
    """Of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_checkout(folder: Path, version: str = "0.1.0") -> Path:
    """What the installer needs of a checkout."""
    for name in ("discovery", "far_node", "far_mesh", "deploy"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(f'[project]\nname = "far-mesh"\nversion = "{version}"\n')
    (folder / "README.md").write_text("Far Mesh\n")
    (folder / "LICENSE").write_text("MIT\n")
    (folder / "far_node" / "cli.py").write_text("app = 1\n")
    (folder / "deploy" / "requirements.lock").write_text(
        "rich==15.0.0 \\\n    --hash=sha256:00\nsetuptools==84.2.1 \\\n    --hash=sha256:11\n"
    )
    (folder / "deploy" / "torch.lock").write_text("torch==2.13.0 \\\n    --hash=sha256:00\n")
    (folder / "deploy" / "tools.lock").write_text("uv==0.13.9 \\\n    --hash=sha256:00\n")
    return folder


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str], needs: tuple[str, ...] = ()) -> Path:
    """A wheel that pip takes, of these files."""
    about = f"{name}-{version}.dist-info"
    metadata = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = files | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n{metadata}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD")))
    return path


@dataclass
class Machine:
    """One home; ``programs`` comes first in its PATH, which has nothing else but ``TOOLS``."""

    place: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.home, self.programs, self.tools):
            folder.mkdir(parents=True)
        for tool in TOOLS.split():
            (self.tools / tool).symlink_to(shutil.which(tool) or "/usr/bin/" + tool)

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def far(self) -> Path:
        return self.home / ".far"

    @property
    def programs(self) -> Path:
        return self.place / "programs"

    @property
    def tools(self) -> Path:
        return self.place / "tools"

    @property
    def notes(self) -> Path:
        return self.place / "notes"

    @property
    def link(self) -> Path:
        return self.home / ".local" / "bin" / "far-node"

    def has(self, name: str, text: str) -> None:
        """Put a program in its PATH."""
        make_program(self.programs / name, text)

    def has_python(self) -> None:
        """The stand-in."""
        self.has("python3", stand_in())

    def asked(self) -> list[str]:
        """What Python, pip and uv were asked to do, in order."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def variables(self, **more: str) -> dict[str, str]:
        """All that the installer finds in its environment."""
        own = {"HOME": str(self.home), "PATH": f"{self.programs}:{self.tools}", "NOTES": str(self.notes)}
        own |= {"HANGS_AT": "", "FAILS_AT": "", "SAYS": ""} | self.environment | more
        return own

    def install(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script to its end."""
        command = ["/bin/sh", str(SCRIPT), *arguments]
        return subprocess.run(
            command, env=self.variables(**variables), capture_output=True, text=True, check=False, timeout=280
        )

    def begin(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start it, in a group of its own, without waiting."""
        return subprocess.Popen(
            ["/bin/sh", str(SCRIPT), *arguments],
            env=self.variables(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a few lines of shell that know the script's functions; it calls nothing by itself."""
        library = self.place / "functions.sh"
        text = SCRIPT.read_text()
        assert text.endswith('\nmain "$@"\n')
        library.write_text(text.removesuffix('main "$@"\n'))
        command = ["/bin/sh", "-c", f". {library}\n{program}", "install.sh"]
        return subprocess.run(
            command, env=self.variables(**variables), capture_output=True, text=True, check=False, timeout=280
        )


def end(process: int) -> None:
    """A stand-in that hangs is ended by its id."""
    os.kill(process, signal.SIGKILL)
