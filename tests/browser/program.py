"""The browser of this machine."""

from __future__ import annotations

import os
import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """``FAR_CHROMIUM``, or what is installed; None: there is none."""
    return os.environ.get("FAR_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


def options_of() -> list[str]:
    """That it is started with. Hosts other than this machine cannot be found."""
    options = ["--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to run as root with it
    return options
