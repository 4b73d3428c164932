"""No program is left with a limit of recursion at which a stranger's JSON ends it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PYTHON = """
import importlib, json, sys
{before}
for module in sys.argv[1:]:
    importlib.import_module(module)
assert "py_ecc" in sys.modules, "nothing has lifted the limit"
try:
    json.loads("[" * 99_000)
except RecursionError:
    print(sys.getrecursionlimit())
"""


def limit_after(*modules: str, before: str = "") -> int:
    """Python's limit in a process that has imported these, in which many brackets are an error and not the end."""
    command = [sys.executable, "-c", PYTHON.format(before=before), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"ended by {done.returncode}"
    return int(done.stdout)


@pytest.mark.parametrize(
    "modules",
    [
        ("discovery.cli", "discovery.service.app"),
        ("far_node.cli", "far_node.rewards.wallet"),
        ("far_mesh.cli", "far_mesh.marketplace.serve"),
        ("far_mesh.demo.user",),
    ],
    ids=["far-discovery", "far-node", "far-mesh", "a-module-that-begins-with-wallets"],
)
def test_the_limit_is_pythons_whatever_a_program_imports(modules: tuple[str, ...]) -> None:
    assert limit_after(*modules) == 1000


def test_a_limit_that_was_lifted_before_we_came_is_put_back() -> None:
    assert limit_after("discovery", before="import eth_account") == 1000


def test_a_limit_that_somebody_has_chosen_stays() -> None:
    chosen = "sys.setrecursionlimit(3000)"
    assert limit_after("discovery", "far_node.rewards.wallet", before=chosen) == 3000
