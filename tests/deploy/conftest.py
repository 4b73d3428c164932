"""Machines for the installer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.machine import Machine, make_checkout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with a Python that fits, and no GPU."""
    made = Machine(tmp_path / "machine")
    made.has_python()
    return made


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Something to install."""
    return make_checkout(tmp_path / "checkout")
