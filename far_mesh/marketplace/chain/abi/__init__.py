"""ABI and bytecode of the contracts, generated from contracts/ and read as package data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def artifact(name: str) -> dict[str, Any]:
    """``{"contractName", "abi", "bytecode"}`` of ``FarToken``, ``InferenceEscrow`` or ``FarStaking``."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath(f"{name}.json").read_text())
    return found
