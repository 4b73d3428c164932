"""What is kept of a run: its figures, with the command and the commit that made them and the machine they are of."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def commit() -> str:
    """Of the code that runs: ask at the beginning, it may be another when the run is over."""
    answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def keep(folder: Path, name: str, command: str, of_commit: str, results: Any) -> None:
    """Write ``<name>.json``."""
    facts = {
        "command": command,
        "commit": of_commit,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
